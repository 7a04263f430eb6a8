"""What is asked about a sample: tasks, phrasings, frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import DataError
from elysium_core.geometry import Box
from elysium_core.text.box_text import format_box, format_track
from elysium_core.text.questions import REC, REG, RSOT, SOT, TRAINING, VIDEO_REG, fill
from elysium_core.training.finetune.config import FineTuneStage
from elysium_core.training.finetune.samples import Sample, choose_frames, read_evenly, read_frames

_BOX_TASKS = frozenset({REC, SOT, RSOT})


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Questions that follow each other; other dialogues about the same frames are not seen.

    Attributes:
        rounds: Questions and answers.
        answers_boxes: The answers are boxes and nothing else.
    """

    rounds: tuple[tuple[str, str], ...]
    answers_boxes: bool = False


@dataclass(frozen=True, slots=True)
class AskedClip:
    """Frames and what is asked about them.

    Attributes:
        images: RGB (H, W, 3); may be none.
        dialogues: At least one.
    """

    images: Sequence[NDArray[np.uint8]]
    dialogues: Sequence[Dialogue]


def ask(sample: Sample, stage: FineTuneStage, tasks: Sequence[str], rng: np.random.Generator) -> AskedClip:
    """Draw frames and questions of a sample.

    Args:
        sample: The sample.
        stage: How many frames, how far apart, how many questions.
        tasks: Tasks that may be asked about boxes; all that fit if empty.
        rng: Decides.

    Raises:
        DataError: A frame cannot be read, or nothing can be asked.
    """
    if sample.track:
        return _ask_track(sample, stage, tasks, rng)
    if sample.objects and sample.frames is not None:
        return AskedClip(read_frames(sample.frames, [0]), _about_objects(sample, stage, tasks, rng))
    if not sample.rounds:
        raise DataError(f"{sample.place} holds nothing that can be asked")
    count = int(rng.integers(stage.frames[0], stage.frames[1] + 1))
    images = [] if sample.frames is None else read_evenly(sample.frames, count)
    return AskedClip(images, [Dialogue(sample.rounds[: stage.max_turns])])


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
    allowed = _allowed(fitting, _as_still(tasks) if len(indices) == 1 else tasks, sample.place)
    chosen = rng.permutation(len(allowed))[: stage.max_turns]
    dialogues = [_dialogue(rng, allowed[place], sample.expression, boxes) for place in chosen]
    return AskedClip(read_frames(sample.frames, indices), dialogues)


def _as_still(tasks: Sequence[str]) -> list[str]:
    """The tasks of one frame that ask the same as tasks of a video."""
    same = {RSOT: REC, VIDEO_REG: REG}
    return [same.get(task, task) for task in tasks]


def _allowed(fitting: Sequence[str], wanted: Sequence[str], place: str) -> list[str]:
    allowed = [task for task in fitting if not wanted or task in wanted]
    if not allowed:
        raise DataError(f"{place} cannot be asked {', '.join(wanted) or 'anything'}; it lacks words or frames for it")
    return allowed


def _dialogue(rng: np.random.Generator, task: str, expression: str, boxes: Sequence[Box]) -> Dialogue:
    question = fill(_phrasing(rng, task), expression=expression, box=format_box(boxes[0]))
    if task not in _BOX_TASKS:
        return Dialogue(((question, expression),))
    answer = format_box(boxes[0]) if task == REC else format_track(boxes)
    return Dialogue(((question, answer),), answers_boxes=True)


def _phrasing(rng: np.random.Generator, task: str) -> str:
    # The published phrasing is what inference asks, so it gets half of the practice.
    phrasings = TRAINING[task]
    return phrasings[0] if rng.random() < 0.5 else phrasings[int(rng.integers(len(phrasings)))]
