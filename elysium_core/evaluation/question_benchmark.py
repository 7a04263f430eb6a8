"""Video question answering: a model answers questions about videos, and a language model judges the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from elysium_core.data.readers.video_qa import READERS, VideoQuestion, read_video_qa
from elysium_core.errors import ConfigError, DataError, ExpressionError
from elysium_core.evaluation.answer_log import AnswerLog, answer_missing, read_answers
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.judge import Judge, Verdict, judge_answer, score_verdicts
from elysium_core.evaluation.published import published_notes, published_rows, unlike_the_paper
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import Manifest, read_manifest
from elysium_core.io.sampling import QUESTION_FRAMES, sample_recording
from elysium_core.io.video import open_video
from elysium_core.types import PerceptionModel


class VideoQuestions(Benchmark):
    """Question answering on one video data set."""

    kind = "questions"
    names = tuple(READERS)

    def __init__(self, request: EvalRequest) -> None:
        super().__init__(request)
        if request.zoom:
            raise ConfigError("zoom cannot be used with questions, which are about whole images; leave out --zoom")
        self._frames = request.frames or QUESTION_FRAMES

    @property
    def split(self) -> str:
        """The requested split, or ``test``."""
        return self.request.split or "test"

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the id of each question, and 1."""
        yield from ((item.question_id, 1) for item in self._questions())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the task and the number of frames shown."""
        return {"task": "ask", "frames": self._frames}

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Answer every question that has no answer yet; yield its id."""
        yield from answer_missing(
            folder,
            ranks,
            self._questions(),
            lambda item: item.question_id,
            lambda item: answer_question(item, model, self._frames),
        )

    @staticmethod
    def report(folder: Path, _protocols: Sequence[str] = (), /) -> Report:
        """Report the verdicts of the judge, if there are any."""
        return questions_report(folder)

    def _questions(self) -> Iterable[VideoQuestion]:
        return islice(read_video_qa(self.data, self.request.benchmark, self.split, self.skip), self.request.limit)


def answer_question(item: VideoQuestion, model: PerceptionModel, frame_count: int = QUESTION_FRAMES) -> dict[str, Any]:
    """Have a model answer one question.

    Args:
        item: The question.
        model: The model to evaluate.
        frame_count: Frames of the video that the model sees, spread evenly.

    Returns:
        The record for the answer file.

    Raises:
        VideoError: The video cannot be read.
    """
    with open_video(item.video) as recording:
        frames = sample_recording(recording, frame_count)
    try:
        prediction, reason = model.ask(frames, item.question), ""
    except ExpressionError as error:
        # A question that the model refuses counts as a wrong answer.
        prediction, reason = "", str(error)
    record = {"question": item.question, "answer": item.answer, "kind": item.kind, "prediction": prediction}
    return record | {"video": item.video.name, "reason": reason}


def run_judge(folder: Path, judge: Judge, log: AnswerLog) -> Iterator[str]:
    """Judge every answer that has no verdict of this judge yet; store raw replies, judge and date with it.

    Yields:
        The id of each question, once its verdict is written.

    Raises:
        ConfigError: The run is of another kind.
        BackendError: The judge cannot be reached.
    """
    if read_manifest(folder).kind != VideoQuestions.kind:
        raise ConfigError(f"--judge-url is for question benchmarks; {str(folder)!r} holds another kind of run")
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
    """Report the verdicts of the judge; answers without a verdict are named in a warning.

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
    # A question without an answer counts as wrong. An answer without a verdict is left out.
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
    warnings = unlike_the_paper(manifest)
    if answered < len(manifest.entries):
        warnings.append(f"{len(manifest.entries) - answered} questions have no answer yet and count as no / 0.")
    if judged < answered:
        warnings.append(f"{answered - judged} answers are not judged; give --judge-url and --judge-model.")
    if judges > 1:
        warnings.append("The verdicts come from several judges, so their mean is not meaningful.")
    return warnings


def _table(manifest: Manifest, verdicts: list[Verdict]) -> Table:
    scores = score_verdicts(verdicts)
    rows = [[manifest.model, percent(scores["accuracy"]), f"{scores['score']:.2f}"]]
    notes = ["Accuracies of two judges differ by several points; compare only figures of the same judge."]
    paper = published_rows(manifest)
    rows += [[row.label, row.cell("Accuracy", 1), row.cell("Score 0..5", 1)] for row in paper]
    notes += [*published_notes(paper), *(["The judge of the paper's figures was another one."] if paper else [])]
    return Table("Judged answers", ["", "Accuracy", "Score 0..5"], rows, notes)
