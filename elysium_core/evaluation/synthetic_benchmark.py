"""Benchmark on the frozen test set of generated video: all tasks of a model on each clip.

The answer file has one JSON line per clip with answers and ground truth. Scores are
computed from it without the generator and the model
(:mod:`elysium_core.evaluation.synthetic_scores`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.data.synthetic import testset
from elysium_core.data.synthetic.clips import Sample
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR
from elysium_core.data.synthetic.expressions import Reference, references
from elysium_core.errors import BoxError, DataError, ExpressionError
from elysium_core.evaluation.answer_log import answer_missing, read_answers
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.protocols import DEFAULT_PROTOCOL
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.evaluation.synthetic_scores import MODEL, Figures, Record, score_all
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import description_frames, sample_evenly
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.follow import follow_recording
from elysium_core.types import PerceptionModel, TrackState

SYNTHETIC = "synthetic"
STILL_FRAMES = (0, 10, 20)
"""Number of frames of a clip that are used as single images."""
ABSENCE_FRAMES = testset.SHORTEST_ABSENCE
"""Number of frames after which an absent object must be UNCERTAIN or LOST."""

_LEAST_VISIBLE = 0.55
_TITLES = {
    "test": "Names and backgrounds: trained names, unseen backgrounds and motions",
    "words": "Words: all names, recoloured objects, two objects of one name; words for name, colour, size or place",
    "test-unseen": "Unseen sprites, followed from a box",
    "small": "Small objects: .05 to .12 of the frame's side, trained names",
    "absence": "Absence: share marked UNCERTAIN or LOST in the tenth frame without the object",
}
_RIVALS = (
    "Random object: the true boxes of an object of the scene, mean over all objects; copied first box: the true box "
    "of the first frame in every frame; any of that name: mean over the objects with the target's name; "
    "truth as text: the truth in steps of 1/100, the precision of text."
)
_RIGHT = "Right object: the centre of the box is nearer to the target's centre than to any other object's."


class SyntheticVideo(Benchmark):
    """All tasks of a model on the clips of the frozen test set, which are generated during the run."""

    kind = SYNTHETIC
    names = (SYNTHETIC,)

    def __init__(self, request: EvalRequest) -> None:
        super().__init__(request)
        # Targets are never removed, because a clip is scored to its end.
        self._config = TrackingConfig(
            max_targets=1, remove_after_s=0.0, clip_length=request.clip_length, zoom=request.zoom
        )

    @property
    def split(self) -> str:
        """``test``, the only split."""
        return "test"

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each clip and its number of frames."""
        yield from ((part.clip_name(index), testset.FRAMES) for part, index in self._clips())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the settings of the tracker."""
        return {"task": "all", "mode": "stream", "clip_length": self._resolved(model).clip_length}

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Run all tasks on each clip that has no answer yet; yield its name."""
        config = self._resolved(model)
        yield from answer_missing(
            folder,
            ranks,
            self._clips(),
            lambda clip: clip[0].clip_name(clip[1]),
            lambda clip: answer_clip(*clip, model, config),
        )

    @staticmethod
    def report(folder: Path, _protocols: Sequence[str] = (), /) -> Report:
        """Report the scores of each part, by number of objects."""
        return synthetic_report(folder)

    def _clips(self) -> Iterator[tuple[testset.FrozenPart, int]]:
        for part in testset.PARTS:
            yield from ((part, index) for index in range(min(part.clips, self.request.limit or part.clips)))

    def _resolved(self, model: PerceptionModel) -> TrackingConfig:
        return self._config.resolved(model.info.clip_length)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The model under test and its tracking settings."""

    model: PerceptionModel
    config: TrackingConfig

    def follow(self, frames: list[Frame], target: int | None, task: str, words: str, box: Box | None) -> dict[str, Any]:
        """Track one target through all frames in stream mode; return box and state of each frame."""
        tracker = self.model.tracker(mode="stream", config=self.config)
        boxes: list[list[float] | None] = [None] * len(frames)
        states = [TrackState.LOST.value] * len(frames)
        scores = [0.0] * len(frames)
        seconds = 0.0
        try:
            for step in follow_recording(tracker, frames, lambda _: tracker.add(expression=words, box=box)):
                seconds += step.seconds
                for update in step.updates:
                    number = update.frame_index
                    boxes[number] = None if update.box is None else [round(v, 5) for v in update.box]
                    states[number], scores[number] = update.state.value, round(update.score, 4)
        except ExpressionError:
            # A model whose vocabulary lacks the words finds nothing, which counts as its answer.
            seconds = 0.0
        track: dict[str, Any] = {"task": task, "target": target, "boxes": boxes, "states": states, "scores": scores}
        return track | {"seconds": round(seconds, 3)}

    def find(self, frame: Frame, words: str) -> list[float] | None:
        """Ground words in one frame."""
        try:
            found = self.model.ground(frame, words, zoom=self.config.zoom).box
        except ExpressionError:
            return None
        return None if found is None else [round(v, 5) for v in found]

    def describe(self, frames: list[Frame], box: Box) -> str:
        """Describe the object in a box of the first frame."""
        shown = sample_evenly(frames, description_frames(self.model.info.clip_length))
        return self.model.describe(shown, box, zoom=self.config.zoom)


def answer_clip(part: testset.FrozenPart, index: int, model: PerceptionModel, config: TrackingConfig) -> dict[str, Any]:
    """Generate one clip and run all tasks of its part on it.

    Args:
        part: Part of the test set; it determines the tasks.
        index: Number of the clip in the part; it determines the target and the absent name.
        model: The model to evaluate.
        config: Tracking settings; ``zoom`` applies to the other tasks too.

    Returns:
        The record for the answer file: answers and ground truth.
    """
    sample, subject = part.draw(index), _Subject(model, config)
    clip = sample.clip
    record: dict[str, Any] = {
        "part": part.name,
        "side_px": part.side_px,
        "names": list(clip.names),
        "colors": [None if color == NO_COLOR else COLORS[color] for color in clip.colors],
        "boxes": [[[round(float(v), 5) for v in box] for box in track] for track in clip.boxes],
        "visible": [[round(float(v), 3) for v in track] for track in clip.visible],
    }
    frames = [Frame(image, index=number) for number, image in enumerate(clip.images)]
    if part is testset.WORDS:
        return record | _ask_words(subject, frames, sample, record, index)
    target = sample.targets[index % len(sample.targets)]
    words, first_box = f"the {clip.names[target]}", _box(record, target, 0)
    if part is testset.VANISHING:
        record["tracks"] = [subject.follow(frames, target, "rsot", words, None)]
        return record
    record["tracks"] = [subject.follow(frames, target, "sot", "", first_box)]
    if part in (testset.TEST, testset.SMALL):
        record["tracks"].append(subject.follow(frames, target, "rsot", words, None))
        absent = _absent_name(part, clip.names, index)
        record["absent"] = subject.follow(frames[:ABSENCE_FRAMES], None, "absent", f"the {absent}", None)
        record["stills"] = _ask_stills(subject, frames, record)
        record["video_reg"] = {"target": target, "answer": subject.describe(frames, first_box)}
    return record


def _ask_words(
    subject: _Subject, frames: list[Frame], sample: Sample, record: dict[str, Any], index: int
) -> dict[str, Any]:
    """Ground objects by each kind of unambiguous expression, track one of them, and describe them."""
    clip, stills = sample.clip, []
    for number in STILL_FRAMES:
        for target in _well_seen(record, number):
            described = subject.describe([frames[number]], _box(record, target, number))
            stills.append({"frame": number, "target": target, "answer": described})
            for said in _one_of_each_kind(references(clip, target, number)):
                box = subject.find(frames[number], said.text)
                stills.append({"frame": number, "target": target, "kind": said.kind, "words": said.text, "box": box})
    tracks = []
    if askable := [target for target in sample.targets if references(clip, target)]:
        # The number of objects repeats with the clip's number; this quotient does not depend on it.
        turn = index // len(testset.OBJECT_COUNTS)
        target = askable[turn % len(askable)]
        kinds = _one_of_each_kind(references(clip, target))
        tracks = [subject.follow(frames, target, "rsot", kinds[turn % len(kinds)].text, None)]
    return {"stills": stills, "tracks": tracks}


def _one_of_each_kind(found: list[Reference]) -> list[Reference]:
    return list({reference.kind: reference for reference in reversed(found)}.values())[::-1]


def _well_seen(record: dict[str, Any], frame: int) -> list[int]:
    return [n for n, visible in enumerate(record["visible"]) if visible[frame] >= _LEAST_VISIBLE]


def _ask_stills(subject: _Subject, frames: list[Frame], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Run REC and REG for every clearly visible object in some single frames."""
    answers = []
    for number in STILL_FRAMES:
        for target in _well_seen(record, number):
            box = subject.find(frames[number], f"the {record['names'][target]}")
            described = subject.describe([frames[number]], _box(record, target, number))
            answers.append({"frame": number, "target": target, "box": box, "answer": described})
    return answers


def _absent_name(part: testset.FrozenPart, present: tuple[str, ...], index: int) -> str:
    others = [name for name in part.names if name not in present]
    return others[index % len(others)]


def _box(record: dict[str, Any], target: int, frame: int) -> Box:
    values = record["boxes"][target][frame]
    try:
        return Box(*values)
    except BoxError as error:
        raise BoxError(f"object {target} of a clip has no box in frame {frame}: {error}") from error


def synthetic_report(folder: Path) -> Report:
    """Score the answers of a run.

    Raises:
        DataError: There is no answer yet.
    """
    manifest = read_manifest(folder)
    answers = read_answers(folder, "answers")
    records = [answers[name] for name in manifest.entries if name in answers]
    if not records:
        raise DataError(f"{str(folder)!r} holds no answer yet; run elysium eval synthetic first")
    missing = len(manifest.entries) - len(records)
    scores = score_all(records)
    mode = "stream mode" + (", with zoom" if manifest.zoom else "")
    return Report(
        title=f"{manifest.model} on the frozen test set of generated video",
        facts={
            "Protocol": f"greedy, {mode}; AUC by {DEFAULT_PROTOCOL}, mean over clips",
            "Clips": f"{len(records)} of {len(manifest.entries)}"
            + (f" (at most {manifest.limit} of each part)" if manifest.limit else ""),
            "Model": ", ".join(f"{key} {value}" for key, value in manifest.device.items()),
            "Speed": _speed(records),
            "Version": manifest.version,
        },
        warnings=[f"{missing} clips have no answer yet and are left out."] if missing else [],
        tables=[_table(_TITLES[part], figures, manifest.model) for part, figures in scores.items() if figures],
        scores={"parts": scores, "clips": len(records)},
    )


def _table(title: str, figures: Figures, model: str) -> Table:
    columns = sorted({key for by in figures.values() for who in by.values() for key in who if key != "all"})
    rows = []
    for name, by in figures.items():
        for who, values in by.items():
            label = f"{name}, {model if who == MODEL else who}"
            rows.append([label, *(percent(values.get(key)) for key in [*columns, "all"])])
    headings = ["[%]", *(f"{key} object{'s' if key != '1' else ''}" for key in columns), "all"]
    return Table(title, headings, rows, (_RIVALS, _RIGHT) if len(rows) > len(figures) else ())


def _speed(records: Sequence[Record]) -> str:
    tracks = [track for record in records for track in record.get("tracks", ()) if track["seconds"] > 0]
    seconds = sum(track["seconds"] for track in tracks)
    return (
        f"{sum(len(track['boxes']) for track in tracks) / seconds:.1f} frames per second of tracking"
        if seconds
        else "-"
    )
