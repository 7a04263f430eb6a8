"""Questions about generated clips, with their answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.colors import NO_COLOR
from elysium_core.data.synthetic.expressions import choose, describe, description, references
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box, format_track
from elysium_core.prompt.questions import REC, REG, RSOT, SOT, TRAINING, VIDEO_REG, fill
from elysium_core.training.nano.nano_recipe import SyntheticDataConfig

NOTHING = -2
"""Target of a turn about an object that is not in the image."""

_VIDEO_REG_SHARE = 0.2
# Share among the questions about an absent object.
_WRONG_COLOR_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Turn:
    """One question about a clip and its answer.

    Attributes:
        task: Task name of :mod:`elysium_core.prompt.questions`.
        target: Index of the object in the clip, or NOTHING.
        question: Question text.
        answer: Answer text.
    """

    task: str
    target: int
    question: str
    answer: str


def draw_turns(
    rng: np.random.Generator, clip: SyntheticClip, data: SyntheticDataConfig, generator: ClipGenerator
) -> list[Turn]:
    """Draw questions about a clip, in random order and phrasing.

    Some questions have no true answer: the object is not in the image, or has left it.
    Their answers are random boxes. The model cannot predict them, so it learns low
    probabilities for their digits, and with them a low score.
    """
    frames = len(clip.images)
    wanted: list[tuple[str, int]] = []
    for target in clip.targets + clip.vanishing:
        wanted += [(REC, target), (REG, target)] if frames == 1 else [(SOT, target), (RSOT, target)]
        if frames > 1 and rng.random() < _VIDEO_REG_SHARE:
            wanted.append((VIDEO_REG, target))
    # An object without an unambiguous expression can still be followed from a box, or named.
    callable_ = {n for n in range(len(clip.names)) if references(clip, n)}
    wanted = [(task, n) for task, n in wanted if n in callable_ or task not in (REC, RSOT)]
    order = rng.permutation(len(wanted))[: data.max_turns]
    turns = [_turn(rng, clip, wanted[i][0], wanted[i][1], data.plain_share) for i in order]
    for place in np.flatnonzero(rng.random(len(turns)) < data.absent_share):
        turns[place] = _absent_turn(rng, clip, generator)
    return turns


def _turn(rng: np.random.Generator, clip: SyntheticClip, task: str, target: int, plain_share: float) -> Turn:
    gone = clip.visible[target] <= 0
    boxes = [_random_box(rng) if gone[t] else Box(*map(float, box)) for t, box in enumerate(clip.boxes[target])]
    words = choose(rng, references(clip, target), plain_share).text if task in (REC, RSOT) else ""
    question = fill(_phrasing(rng, task), expression=words, box=format_box(boxes[0]))
    if task in (REG, VIDEO_REG):
        return Turn(task, target, question, description(clip, target))
    return Turn(task, target, question, format_box(boxes[0]) if task == REC else format_track(boxes))


def _absent_turn(rng: np.random.Generator, clip: SyntheticClip, generator: ClipGenerator) -> Turn:
    """Return a question about an object that is not in the clip."""
    frames = len(clip.images)
    task = REC if frames == 1 else RSOT
    question = fill(_phrasing(rng, task), expression=_absent_words(rng, clip, generator))
    boxes = [_random_box(rng) for _ in range(frames)]
    return Turn(task, NOTHING, question, format_box(boxes[0]) if task == REC else format_track(boxes))


def _absent_words(rng: np.random.Generator, clip: SyntheticClip, generator: ClipGenerator) -> str:
    """Return an absent name; or, with colours, a present name with a colour that it does not have."""
    if generator.config.dye_share and rng.random() < _WRONG_COLOR_SHARE:
        name = clip.names[int(rng.integers(len(clip.names)))]
        shown = {int(c) for n, c in zip(clip.names, clip.colors, strict=True) if n == name}
        others = sorted(set(generator.dyes(name)) - shown)
        if others:
            return describe(name, others[int(rng.integers(len(others)))])
    absent = [name for name in generator.vocabulary if name not in clip.names]
    name = absent[int(rng.integers(len(absent)))]
    dyes = generator.dyes(name)
    if not dyes or rng.random() >= generator.config.dye_share:
        return describe(name, NO_COLOR)
    return describe(name, dyes[int(rng.integers(len(dyes)))])


def _phrasing(rng: np.random.Generator, task: str) -> str:
    # Inference uses the published phrasing, so half of the questions have it.
    phrasings = TRAINING[task]
    return phrasings[0] if rng.random() < 0.5 else phrasings[int(rng.integers(len(phrasings)))]


def _random_box(rng: np.random.Generator) -> Box:
    """Return a random box: any place, any size that objects have."""
    width, height = np.exp(rng.uniform(np.log(0.12), np.log(0.5), 2))
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return Box(x, y, x + width, y + height)
