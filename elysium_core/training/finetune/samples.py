"""Samples of a data set in one form for all layouts, and the random choice of frames and questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.frame_sources import FrameSource, PictureFrames, VideoFrames, ZipFrames
from elysium_core.errors import DataError, ElysiumError
from elysium_core.geometry import Box
from elysium_core.io.sampling import even_positions, sample_recording
from elysium_core.io.video import open_video
from elysium_core.prompt.box_text import format_box, format_track
from elysium_core.prompt.questions import REC, REG, RSOT, SOT, TRAINING, VIDEO_REG, fill
from elysium_core.training.finetune.finetune_recipe import VQA, FineTuneStage


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """An object in a single image.

    Attributes:
        expression: Words that name it.
        box: Its box.
    """

    expression: str
    box: Box


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a data set, before its images are read.

    Attributes:
        place: File and line, for messages.
        frames: The images; None for a conversation without images.
        rounds: Questions and answers of one conversation, in order; beside a track, about all of its frames.
        objects: Objects of a single image.
        track: Box of one object in each frame, None where it is absent; empty if no object is followed.
        expression: Words that name the tracked object; empty if there are none.
        at_intervals: Whether a conversation is about frames at a random distance instead of evenly spread ones.
    """

    place: str
    frames: FrameSource | None
    rounds: tuple[tuple[str, str], ...] = ()
    objects: tuple[LabelledObject, ...] = ()
    track: tuple[Box | None, ...] = ()
    expression: str = ""
    at_intervals: bool = False


def choose_frames(
    rng: np.random.Generator, available: Sequence[int], count: tuple[int, int], interval: tuple[int, int]
) -> list[int]:
    """Draw frames with a random start and one random distance (paper, section 4.2).

    Args:
        rng: Source of random numbers.
        available: Indices to choose from, ascending, at least one.
        count: Fewest and most frames; a short video gives fewer.
        interval: Shortest and longest distance, in entries of ``available``.

    Returns:
        Chosen indices, ascending.
    """
    wanted = min(int(rng.integers(count[0], count[1] + 1)), len(available))
    longest = (len(available) - 1) // max(1, wanted - 1)
    high = max(1, min(interval[1], longest))
    step = int(rng.integers(min(interval[0], high), high + 1))
    start = int(rng.integers(0, len(available) - step * (wanted - 1)))
    return [available[start + step * place] for place in range(wanted)]


def read_frames(source: FrameSource, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Read some frames of a source. From a folder or a zip file only these are read.

    Raises:
        DataError: One of them is missing or damaged.
    """
    if isinstance(source, (PictureFrames, ZipFrames)):
        chosen = replace(source, names=[source.names[index] for index in indices])
        return [frame.image for frame in chosen]
    wanted, found = set(indices), {}
    for frame in source:
        if frame.index in wanted:
            found[frame.index] = frame.image
        if frame.index >= max(wanted):
            break
    missing = sorted(wanted - set(found))
    if missing:
        raise DataError(f"{source.name!r} has no frame {missing[0]} that can be read")
    return [found[index] for index in indices]


def read_evenly(source: FrameSource, count: int) -> list[NDArray[np.uint8]]:
    """Read up to ``count`` frames spread over the whole source, as for questions about a video.

    Raises:
        DataError: No frame can be read.
    """
    if isinstance(source, VideoFrames):
        try:
            with open_video(source.path) as recording:
                return [frame.image for frame in sample_recording(recording, count)]
        except ElysiumError as error:
            raise DataError(str(error)) from error
    total = source.count or 0
    return read_frames(source, even_positions(total, count))


_BOX_TASKS = frozenset({REC, SOT, RSOT})
_BOX = re.compile(r"\[[0-9]+(?:,[0-9]+){3}\]")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Successive questions and answers, independent of other dialogues about the same frames.

    Attributes:
        rounds: Questions and answers.
        answers_boxes: Whether the answers are boxes only.
    """

    rounds: tuple[tuple[str, str], ...]
    answers_boxes: bool = False


@dataclass(frozen=True, slots=True)
class AskedClip:
    """Frames and the dialogues about them.

    Attributes:
        images: RGB (H, W, 3); may be empty.
        dialogues: At least one.
    """

    images: Sequence[NDArray[np.uint8]]
    dialogues: Sequence[Dialogue]


def ask(sample: Sample, stage: FineTuneStage, tasks: Sequence[str], rng: np.random.Generator) -> AskedClip:
    """Draw frames and questions of a sample.

    Args:
        sample: The sample.
        stage: Stage with the ranges of frames, distance and questions.
        tasks: Tasks to train on boxes; all that fit if empty.
        rng: Source of random numbers.

    Raises:
        DataError: A frame cannot be read, or nothing can be asked.
    """
    if sample.track:
        return _ask_track(sample, stage, tasks, rng)
    if sample.objects and sample.frames is not None:
        return AskedClip(read_frames(sample.frames, [0]), _about_objects(sample, stage, tasks, rng))
    if not sample.rounds:
        raise DataError(f"{sample.place} has no questions, boxes or expressions to train on")
    return AskedClip(_conversation_images(sample, stage, rng), [Dialogue(sample.rounds[: stage.max_turns])])


def _conversation_images(sample: Sample, stage: FineTuneStage, rng: np.random.Generator) -> Sequence[NDArray[np.uint8]]:
    if sample.frames is None:
        return []
    if sample.at_intervals:
        return read_frames(
            sample.frames, choose_frames(rng, range(_length(sample.frames)), stage.frames, stage.interval)
        )
    return read_evenly(sample.frames, int(rng.integers(stage.frames[0], stage.frames[1] + 1)))


def _length(source: FrameSource) -> int:
    """Return the number of frames; that of a video is counted, because containers are often wrong."""
    total = source.count if source.count is not None else sum(1 for _ in source)
    if total < 1:
        raise DataError(f"{source.name!r} has no frame that can be read")
    return total


def _about_objects(
    sample: Sample, stage: FineTuneStage, tasks: Sequence[str], rng: np.random.Generator
) -> list[Dialogue]:
    allowed = _allowed((REC, REG), tasks, sample.place)
    chosen = rng.permutation(len(sample.objects))[: stage.max_turns]
    drawn = [(sample.objects[index], allowed[int(rng.integers(len(allowed)))]) for index in chosen]
    return [_dialogue(rng, task, thing.expression, [thing.box]) for thing, task in drawn]


def _ask_track(sample: Sample, stage: FineTuneStage, tasks: Sequence[str], rng: np.random.Generator) -> AskedClip:
    shown = [index for index, box in enumerate(sample.track) if box is not None]
    if not shown or sample.frames is None:
        raise DataError(f"{sample.place} has no box in any frame")
    indices = choose_frames(rng, shown, stage.frames, stage.interval)
    boxes = [box for index in indices if (box := sample.track[index]) is not None]
    fitting: tuple[str, ...] = (SOT, RSOT, VIDEO_REG) if len(indices) > 1 else (REC, REG)
    if not sample.expression:
        fitting = tuple(task for task in fitting if task == SOT)
    if sample.rounds and (len(indices) == len(sample.track) or not _names_boxes(sample.rounds)):
        fitting = (*fitting, VQA)
    allowed = _allowed(fitting, _as_still(tasks) if len(indices) == 1 else tasks, sample.place)
    chosen = rng.permutation(len(allowed))[: stage.max_turns]
    dialogues = [
        Dialogue(sample.rounds[: stage.max_turns])
        if allowed[place] == VQA
        else _dialogue(rng, allowed[place], sample.expression, boxes)
        for place in chosen
    ]
    return AskedClip(read_frames(sample.frames, indices), dialogues)


def _names_boxes(rounds: Sequence[tuple[str, str]]) -> bool:
    """Return whether a conversation gives boxes, which are those of all its frames and of no others."""
    return any(_BOX.search(text) for pair in rounds for text in pair)


def _as_still(tasks: Sequence[str]) -> list[str]:
    """Tasks of one frame that correspond to tasks of a video."""
    same = {RSOT: REC, VIDEO_REG: REG}
    return [same.get(task, task) for task in tasks]


def _allowed(fitting: Sequence[str], wanted: Sequence[str], place: str) -> list[str]:
    allowed = [task for task in fitting if not wanted or task in wanted]
    if not allowed:
        raise DataError(f"{place} does not fit the tasks {', '.join(wanted) or 'of boxes'}; it lacks words or frames")
    return allowed


def _dialogue(rng: np.random.Generator, task: str, expression: str, boxes: Sequence[Box]) -> Dialogue:
    question = fill(_phrasing(rng, task), expression=expression, box=format_box(boxes[0]))
    if task not in _BOX_TASKS:
        return Dialogue(((question, expression),))
    answer = format_box(boxes[0]) if task == REC else format_track(boxes)
    return Dialogue(((question, answer),), answers_boxes=True)


def _phrasing(rng: np.random.Generator, task: str) -> str:
    # Inference uses the published phrasing, so half of the questions have it.
    phrasings = TRAINING[task]
    return phrasings[0] if rng.random() < 0.5 else phrasings[int(rng.integers(len(phrasings)))]
