"""Questions about videos: the model answers from 16 frames, a judge grades, both are written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from elysium_core.data.readers.video_qa import VideoQuestion
from elysium_core.errors import DataError, ExpressionError
from elysium_core.evaluation.answer_files import AnswerLog, read_answers
from elysium_core.evaluation.frame_sampling import sample_video
from elysium_core.evaluation.judge import Judge, Verdict, judge_answer, score_verdicts
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import Manifest, read_manifest
from elysium_core.evaluation.tracking_tables import PAPER, published_rows
from elysium_core.types import PerceptionModel

KIND = "questions"
FRAMES = 16


def run_questions(
    questions: Iterable[VideoQuestion], model: PerceptionModel, log: AnswerLog, frame_count: int = FRAMES
) -> Iterator[str]:
    """Have the model answer every question that has no answer yet.

    Yields:
        The id of each question, once its answer is written.
    """
    for item in questions:
        if item.question_id not in log.done:
            frames = sample_video(item.video, frame_count)
            try:
                prediction, reason = model.ask(frames, item.question), ""
            except ExpressionError as error:
                # A question that the model refuses is answered wrongly, not left out.
                prediction, reason = "", str(error)
            record = {"question": item.question, "answer": item.answer, "kind": item.kind, "prediction": prediction}
            log.append(item.question_id, record | {"video": item.video.name, "reason": reason})
        yield item.question_id


def run_judge(folder: Path, judge: Judge, log: AnswerLog) -> Iterator[str]:
    """Have every answer judged that is not yet; raw replies, judge and day are kept with each.

    Yields:
        The id of each question, once its verdict is written.

    Raises:
        BackendError: The judge cannot be reached.
    """
    for question_id, record in read_answers(folder, "answers").items():
        if log.done.get(question_id, {}).get("judge") != judge.name:
            judgement = judge_answer(judge, record["question"], record["answer"], record["prediction"])
            verdict = {"correct": judgement.verdict.correct, "score": judgement.verdict.score}
            source = {"judge": judge.name, "day": datetime.now(timezone.utc).date().isoformat()}
            log.append(
                question_id, verdict | source | {"readable": judgement.readable, "replies": list(judgement.replies)}
            )
        yield question_id


def questions_report(folder: Path) -> Report:
    """Report what the judge said; without a judge, that the answers wait for one.

    Raises:
        DataError: There is no answer yet.
    """
    manifest = read_manifest(folder)
    answers = {k: v for k, v in read_answers(folder, "answers").items() if k in manifest.entries}
    if not answers:
        raise DataError(f"{str(folder)!r} holds no answer yet; run elysium eval {manifest.benchmark} first")
    judged = {k: v for k, v in read_answers(folder, "verdicts").items() if k in answers}
    judges = sorted({f"{record['judge']} ({record['day']})" for record in judged.values()})
    facts = {
        "Protocol": "Video-ChatGPT judge: yes / no and 0..5",
        "Questions": f"{len(answers)} answered of {len(manifest.entries)}, {len(judged)} judged",
        "Empty answers": str(sum(not record["prediction"].strip() for record in answers.values())),
        "Judge": ", ".join(judges) or "none yet",
        "Replies of the judge that could not be read (count as no / 0)": str(
            sum(not record["readable"] for record in judged.values())
        ),
        "Version": manifest.version,
    }
    # A question without an answer is answered wrongly; one whose answer waits for the judge is not.
    verdicts = [_verdict(record) for record in judged.values()]
    verdicts += [Verdict(correct=False, score=0)] * (len(manifest.entries) - len(answers))
    return Report(
        title=f"{manifest.model} on {manifest.benchmark} {manifest.split}",
        facts=facts,
        warnings=_warnings(manifest, len(answers), len(judged), len({r["judge"] for r in judged.values()})),
        tables=[_table(manifest, verdicts)] if judged else [],
        scores=dict(score_verdicts(verdicts)) if judged else {},
    )


def _verdict(record: dict[str, Any]) -> Verdict:
    return Verdict(bool(record["correct"]), int(record["score"]))


def _warnings(manifest: Manifest, answered: int, judged: int, judges: int) -> list[str]:
    warnings = []
    if answered < len(manifest.entries):
        warnings.append(f"{len(manifest.entries) - answered} questions have no answer yet and count as no / 0.")
    if judged < answered:
        warnings.append(f"{answered - judged} answers are not judged; give --judge-url and --judge-model.")
    if judges > 1:
        warnings.append("The verdicts come from several judges; a mean over them means little.")
    return warnings


def _table(manifest: Manifest, verdicts: list[Verdict]) -> Table:
    scores = score_verdicts(verdicts)
    rows = [[manifest.model, percent(scores["accuracy"]), f"{scores['score']:.2f}"]]
    notes = ["Accuracies of two judges differ by points; compare only figures of one judge."]
    for row in published_rows(manifest.benchmark, manifest.split, manifest.task):
        accuracy, score = row.figures["Accuracy"], row.figures["Score 0..5"]
        rows.append([f"{row.model}, figure of the paper", f"{accuracy:.1f}", f"{score:.1f}"])
        notes.append(f"{row.model}: printed in the {PAPER}, not measured here, by another judge.")
    return Table("Judged answers", ["", "Accuracy", "Score 0..5"], rows, notes)
