"""Referring expressions for the objects of a generated clip, each of which fits exactly one object.

Kinds: ``name`` ("the car"), ``color`` ("the red car"), ``size`` ("the small car") and
``place`` ("the car on the left"); instead of the name, the last three may say "object".
Size and place are those in one frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.clips import SyntheticClip
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR

NAME, COLOR, SIZE, PLACE = "name", "color", "size", "place"
KINDS = (NAME, COLOR, SIZE, PLACE)
ANY_OBJECT = "object"
"""A noun that fits every object."""

# How much larger, or further to one side, the object must be than all others.
_LARGER_BY = 1.6
_FARTHER_BY = 0.12
# The size of an object is unclear if less than this share of it is visible.
_LEAST_VISIBLE = 0.55
# Share of expressions with the name, where "object" would do, too.
_NAMED_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Reference:
    """A referring expression for one object.

    Attributes:
        kind: One of KINDS.
        text: The expression, with article.
        noun: The name, or ANY_OBJECT.
    """

    kind: str
    text: str
    noun: str


def description(clip: SyntheticClip, target: int) -> str:
    """Return the name of an object with article, and with its colour word if it has one."""
    return describe(clip.names[target], int(clip.colors[target]))


def describe(name: str, color: int) -> str:
    """Return a name with article and colour word; NO_COLOR gives no colour word."""
    return f"the {name}" if color == NO_COLOR else f"the {COLORS[color]} {name}"


def references(clip: SyntheticClip, target: int, frame: int = 0) -> list[Reference]:
    """Return all expressions that fit an object in a frame, and no other object."""
    everything = [n for n in range(len(clip.names)) if clip.boxes[n, frame, 2] > 0]
    namesakes = [n for n in everything if clip.names[n] == clip.names[target]]
    name = clip.names[target]
    found = [Reference(NAME, f"the {name}", name)] if namesakes == [target] else []
    for noun, rivals in ((name, namesakes), (ANY_OBJECT, everything)):
        found += [Reference(kind, text, noun) for kind, text in _attributes(clip, target, frame, noun, rivals)]
    return found


def _attributes(
    clip: SyntheticClip, target: int, frame: int, noun: str, rivals: list[int]
) -> Iterator[tuple[str, str]]:
    color = int(clip.colors[target])
    if color != NO_COLOR and [n for n in rivals if clip.colors[n] == color] == [target]:
        yield COLOR, f"the {COLORS[color]} {noun}"
    if len(rivals) < 2 or clip.visible[rivals, frame].min() < _LEAST_VISIBLE:
        return
    boxes = clip.boxes[rivals, frame].astype(np.float64)
    own = rivals.index(target)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for word, better in (("large", np.log(areas)), ("small", -np.log(areas))):
        if _stands_out(better, own, float(np.log(_LARGER_BY))):
            yield SIZE, f"the {word} {noun}"
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    for words, better in (("on the left", -x), ("on the right", x), ("at the top", -y), ("at the bottom", y)):
        if _stands_out(better, own, _FARTHER_BY):
            yield PLACE, f"the {noun} {words}"


def _stands_out(values: NDArray[np.float64], own: int, margin: float) -> bool:
    return bool((values[own] >= np.delete(values, own) + margin).all())


def choose(rng: np.random.Generator, found: list[Reference], plain_share: float) -> Reference:
    """Choose one of the references of an object: with probability ``plain_share`` its name, where that is enough.

    Raises:
        ValueError: ``found`` is empty.
    """
    if not found:
        raise ValueError("there is no reference to choose from: the object cannot be told apart from others")
    plain = [reference for reference in found if reference.kind == NAME]
    others = [reference for reference in found if reference.kind != NAME]
    if plain and (not others or rng.random() < plain_share):
        return plain[0]
    named = [reference for reference in others if reference.noun != ANY_OBJECT]
    pool = named if named and rng.random() < _NAMED_SHARE else others
    # The kind is chosen first: there are more expressions for places than for colours.
    kinds = sorted({reference.kind for reference in pool})
    kind = kinds[int(rng.integers(len(kinds)))]
    same = [reference for reference in pool if reference.kind == kind]
    return same[int(rng.integers(len(same)))]
