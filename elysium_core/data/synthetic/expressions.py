"""What one may call an object of a generated clip, so that exactly one object is meant.

Kinds: ``name`` ("the car"), ``color`` ("the red car"), ``size`` ("the small car") and
``place`` ("the car on the left"); instead of the name, the last three may say "object".
Size and place are those of one frame, as a person would see them who speaks then.
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
"""Noun that fits every object."""

# By how much the wanted object must stand out, or a person would hesitate.
_LARGER_BY = 1.6
_FARTHER_BY = 0.12
# Of an object that is hidden more than that nobody can tell the size.
_LEAST_VISIBLE = 0.55
# Most people name a thing when they can.
_NAMED_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Reference:
    """Words that mean one object.

    Attributes:
        kind: One of KINDS.
        text: The words, with article.
        noun: The name, or ANY_OBJECT.
    """

    kind: str
    text: str
    noun: str


def description(clip: SyntheticClip, target: int) -> str:
    """What an object is: its name, with its colour word if it has one."""
    return describe(clip.names[target], int(clip.colors[target]))


def describe(name: str, color: int) -> str:
    """Words for a name and a colour (NO_COLOR for none)."""
    return f"the {name}" if color == NO_COLOR else f"the {COLORS[color]} {name}"


def references(clip: SyntheticClip, target: int, frame: int = 0) -> list[Reference]:
    """Everything one may call an object in a frame without meaning another one too."""
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
    """One of the references of an object: its mere name, where that will do, with probability ``plain_share``.

    Raises:
        ValueError: There is nothing to choose from.
    """
    if not found:
        raise ValueError("an object that cannot be told apart cannot be asked for")
    plain = [reference for reference in found if reference.kind == NAME]
    others = [reference for reference in found if reference.kind != NAME]
    if plain and (not others or rng.random() < plain_share):
        return plain[0]
    named = [reference for reference in others if reference.noun != ANY_OBJECT]
    pool = named if named and rng.random() < _NAMED_SHARE else others
    # By kind first: there are more ways to say a place than a colour.
    kinds = sorted({reference.kind for reference in pool})
    kind = kinds[int(rng.integers(len(kinds)))]
    same = [reference for reference in pool if reference.kind == kind]
    return same[int(rng.integers(len(same)))]
