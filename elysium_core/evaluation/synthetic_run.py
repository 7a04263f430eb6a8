"""The frozen test set of generated video: every task of a model, one clip at a time.

One JSON line a clip holds the truth beside the answers, so that scores need neither
the generator nor the model again (:mod:`elysium_core.evaluation.synthetic_scores`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elysium_core.data.synthetic import testset
from elysium_core.data.synthetic.clips import Sample
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR
from elysium_core.data.synthetic.expressions import Reference, references
from elysium_core.errors import BoxError, ExpressionError
from elysium_core.evaluation.answer_files import AnswerLog
from elysium_core.evaluation.run_folder import Manifest, open_run
from elysium_core.evaluation.zoomed import ZoomedModel
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import description_frames, sample_evenly
from elysium_core.types import PerceptionModel, TrackingConfig, TrackState

KIND = "synthetic"
BENCHMARK = "synthetic"
STILL_FRAMES = (0, 10, 20)
"""Frames of a clip that are asked about as single pictures."""
ABSENCE_FRAMES = testset.SHORTEST_ABSENCE
"""Frames after which an absent object must be marked as doubtful."""

_LEAST_VISIBLE = 0.55


def clip_names(limit: int | None) -> dict[str, int]:
    """Name of every clip -> its frames; at most ``limit`` clips of each part."""
    counts = {part: min(part.clips, limit or part.clips) for part in testset.PARTS}
    return {part.clip_name(index): testset.FRAMES for part, count in counts.items() for index in range(count)}


def run_synthetic(
    model: PerceptionModel, model_name: str, folder: Path, limit: int | None = None, *, zoom: bool = False
) -> Iterator[str]:
    """Ask a model everything about the frozen test set that has no answer in the folder yet.

    Args:
        model: Answers.
        model_name: As asked for.
        folder: Run folder.
        limit: Clips at most of each part, None for all.
        zoom: Whether the model looks closer.

    Yields:
        The name of each clip, once its answers are written.

    Raises:
        ConfigError: The folder holds another run.
    """
    manifest = Manifest(
        kind=KIND,
        benchmark=BENCHMARK,
        split="test",
        model=model_name,
        task="all",
        mode="stream",
        limit=limit,
        zoom=zoom,
        device=asdict(model.info),
        entries=clip_names(limit),
    )
    open_run(folder, manifest)
    if zoom:
        model = ZoomedModel(model)
    with AnswerLog(folder, "answers") as log:
        for part in testset.PARTS:
            for index in range(min(part.clips, limit or part.clips)):
                name = part.clip_name(index)
                if name not in log.done:
                    log.append(name, answer_clip(part.draw(index), part, index, model))
                yield name


def answer_clip(sample: Sample, part: testset.FrozenPart, index: int, model: PerceptionModel) -> dict[str, Any]:
    """Everything that is asked about one clip, and the truth.

    Args:
        sample: The clip.
        part: The part it belongs to: it decides what is asked.
        index: Its number; decides which target is followed and what absent name is asked for.
        model: Answers.
    """
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
        return record | _ask_words(model, frames, sample, record, index)
    target = sample.targets[index % len(sample.targets)]
    words, first_box = f"the {clip.names[target]}", _box(record, target, 0)
    if part is testset.VANISHING:
        record["tracks"] = [_follow(model, frames, target, "rsot", words, None)]
        return record
    record["tracks"] = [_follow(model, frames, target, "sot", "", first_box)]
    if part in (testset.TEST, testset.SMALL):
        record["tracks"].append(_follow(model, frames, target, "rsot", words, None))
        absent = _absent_name(part, clip.names, index)
        record["absent"] = _follow(model, frames[:ABSENCE_FRAMES], None, "absent", f"the {absent}", None)
        record["stills"] = _ask_stills(model, frames, record)
        shown = sample_evenly(frames, description_frames(model.info.clip_length))
        record["video_reg"] = {"target": target, "answer": model.describe(shown, first_box)}
    return record


def _follow(
    model: PerceptionModel, frames: list[Frame], target: int | None, task: str, words: str, box: Box | None
) -> dict[str, Any]:
    """Track one target from the first frame to the last, live; boxes and states frame by frame."""
    # Never removed: a clip is scored to its end.
    tracker = model.tracker(mode="stream", config=TrackingConfig(max_targets=1, remove_after_s=0.0))
    boxes: list[list[float] | None] = [None] * len(frames)
    states = [TrackState.LOST.value] * len(frames)
    scores = [0.0] * len(frames)
    started = time.perf_counter()
    try:
        tracker.add(expression=words, box=box)
    except ExpressionError:
        # A model that does not know the words finds nothing: that is its answer.
        return {"task": task, "target": target, "boxes": boxes, "states": states, "scores": scores, "seconds": 0.0}
    for number, frame in enumerate(frames):
        for update in tracker.step(frame):
            boxes[number] = None if update.box is None else [round(v, 5) for v in update.box]
            states[number], scores[number] = update.state.value, round(update.score, 4)
    seconds = round(time.perf_counter() - started, 3)
    return {"task": task, "target": target, "boxes": boxes, "states": states, "scores": scores, "seconds": seconds}


def _ask_words(
    model: PerceptionModel, frames: list[Frame], sample: Sample, record: dict[str, Any], index: int
) -> dict[str, Any]:
    """Find objects by each kind of words that means them alone; follow one of them; say what they are."""
    clip, stills = sample.clip, []
    for number in STILL_FRAMES:
        for target in _well_seen(record, number):
            described = model.describe(frames[number], _box(record, target, number))
            stills.append({"frame": number, "target": target, "answer": described})
            for said in _one_of_each_kind(references(clip, target, number)):
                box = _find(model, frames[number], said.text)
                stills.append({"frame": number, "target": target, "kind": said.kind, "words": said.text, "box": box})
    tracks = []
    if askable := [target for target in sample.targets if references(clip, target)]:
        # The number of objects follows the clip's number, so its fours say nothing else.
        turn = index // len(testset.OBJECT_COUNTS)
        target = askable[turn % len(askable)]
        kinds = _one_of_each_kind(references(clip, target))
        tracks = [_follow(model, frames, target, "rsot", kinds[turn % len(kinds)].text, None)]
    return {"stills": stills, "tracks": tracks}


def _one_of_each_kind(found: list[Reference]) -> list[Reference]:
    return list({reference.kind: reference for reference in reversed(found)}.values())[::-1]


def _well_seen(record: dict[str, Any], frame: int) -> list[int]:
    return [n for n, visible in enumerate(record["visible"]) if visible[frame] >= _LEAST_VISIBLE]


def _find(model: PerceptionModel, frame: Frame, words: str) -> list[float] | None:
    try:
        found = model.ground(frame, words).box
    except ExpressionError:
        return None
    return None if found is None else [round(v, 5) for v in found]


def _ask_stills(model: PerceptionModel, frames: list[Frame], record: dict[str, Any]) -> list[dict[str, Any]]:
    """REC and REG about every object that is well seen in some single frames."""
    answers = []
    for number in STILL_FRAMES:
        for target in _well_seen(record, number):
            box = _find(model, frames[number], f"the {record['names'][target]}")
            described = model.describe(frames[number], _box(record, target, number))
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
