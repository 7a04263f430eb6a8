"""Questions about whole frames with named objects: where is the dog, the dog on the left, what is in this box.

Shapes: V known names, M objects of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.training.real.frame_features import NOTHING

ABSENT = -1
"""Object of a question about something that the frame does not show."""

SIDES = (("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1))
"""Words of places with the axis and the direction in which the named thing comes first."""

_ARTICLES = ("the ", "a ", "")
_PLACES = ("the {name} on the {side}", "the {side} {name}", "{name} on the {side}")
_UPRIGHT = {"top": "the {name} at the top", "bottom": "the {name} at the bottom"}
# Two things of one name are told apart by their places if these differ by at least this much.
_CLEARLY_APART = 0.1
# Of several things of one name, the largest is meant if it is this much larger than the next.
_CLEARLY_LARGER = 1.3
_ABSENT_PLACE_SHARE, _NAME_SHARE, _PLACE_SHARE = 0.15, 0.8, 0.7
_PRESENT_POWER, _ABSENT_POWER = -0.4, 0.6
_BOX_ERROR = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class FrameQuestion:
    """A question about one frame.

    Attributes:
        name: Number of the asked name; of the object in the box, where it is to be named.
        target: Index of the object; ABSENT if the frame does not show it.
        expression: What is looked for; empty where an object is to be named.
        box: (4,) the object's rough box where it is to be named, else None.
    """

    name: int
    target: int
    expression: str = ""
    box: NDArray[np.float32] | None = None


class QuestionDrawer:
    """Draws questions about frames.

    Args:
        names: The known names.
        counts: (V,) number of photos that show each name: rare names are asked for more often, and a name is asked for
            in vain about as often as it is there.
    """

    def __init__(self, names: Sequence[str], counts: NDArray[np.int64]) -> None:
        self._names = tuple(names)
        self._present = counts.clip(1) ** _PRESENT_POWER
        self._absent = counts.clip(1) ** _ABSENT_POWER

    def draw(
        self,
        rng: np.random.Generator,
        names: NDArray[np.int64],
        boxes: NDArray[np.float32],
        usable: NDArray[np.bool_],
        count: int,
    ) -> list[FrameQuestion]:
        """Draw questions about one frame; fewer than wanted, perhaps none, if there is nothing to ask about.

        Args:
            rng: Source of randomness.
            names: (M,) see :class:`elysium_core.training.real.frame_features.FrameObjects`; so the next two.
            boxes: (M, 4).
            usable: (M,).
            count: Number of questions.
        """
        shown = names != NOTHING
        found = _Findable.of(names[shown], boxes[shown], usable[shown])
        missing = [name for name in range(len(self._names)) if name not in set(found.names.tolist())]
        questions = [self._in_vain(rng, missing)] if missing else []
        if len(found.nameable) and rng.random() < _NAME_SHARE:
            questions.append(self._to_be_named(rng, found))
        if found.by_place and rng.random() < _PLACE_SHARE:
            side, target = found.by_place[rng.integers(len(found.by_place))]
            name = int(found.names[target])
            questions.append(FrameQuestion(name, target, self._placed(rng, name, side)))
        known = list(found.by_name)
        if known:
            chance = self._present[known] / self._present[known].sum()
            most = min(len(known), count - len(questions))
            chosen = rng.choice(known, max(0, most), replace=False, p=chance).tolist()
            questions += [self._search(rng, name, found.by_name[name]) for name in chosen]
        while len(questions) < count and (missing or len(found.nameable)):
            if known and rng.random() < 0.5:
                name = known[rng.integers(len(known))]
                questions.append(self._search(rng, name, found.by_name[name]))
            elif len(found.nameable) and (not missing or rng.random() < 0.5):
                questions.append(self._to_be_named(rng, found))
            else:
                questions.append(self._in_vain(rng, missing))
        return questions[:count]

    def _search(self, rng: np.random.Generator, name: int, target: int) -> FrameQuestion:
        article = _ARTICLES[rng.choice(len(_ARTICLES), p=(0.6, 0.2, 0.2))]
        noun = self._names[name]
        return FrameQuestion(name, target, ("an " if article == "a " and noun[0] in "aeiou" else article) + noun)

    def _placed(self, rng: np.random.Generator, name: int, side: str) -> str:
        pattern = _UPRIGHT[side] if side in _UPRIGHT else _PLACES[rng.integers(len(_PLACES))]
        return pattern.format(name=self._names[name], side=side)

    def _in_vain(self, rng: np.random.Generator, missing: Sequence[int]) -> FrameQuestion:
        """A question about one of the names that the frame does not show."""
        chance = self._absent[missing] / self._absent[missing].sum()
        name = int(rng.choice(missing, p=chance))
        if rng.random() < _ABSENT_PLACE_SHARE:
            return FrameQuestion(name, ABSENT, self._placed(rng, name, SIDES[rng.integers(len(SIDES))][0]))
        return self._search(rng, name, ABSENT)

    def _to_be_named(self, rng: np.random.Generator, found: _Findable) -> FrameQuestion:
        weight = self._present[found.names[found.nameable]]
        target = int(rng.choice(found.nameable, p=weight / weight.sum()))
        box = found.boxes[target]
        rough = box + rng.normal(0, _BOX_ERROR, 4) * np.tile(box[2:] - box[:2], 2)
        return FrameQuestion(int(found.names[target]), target, box=rough.clip(0, 1).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Findable:
    """What can be asked about a frame: its shown objects, those that a name or a name with a place tells apart."""

    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    nameable: NDArray[np.int64]
    by_name: dict[int, int]
    by_place: list[tuple[str, int]]

    @classmethod
    def of(cls, names: NDArray[np.int64], boxes: NDArray[np.float32], usable: NDArray[np.bool_]) -> _Findable:
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        by_name, by_place = {}, []
        for name in sorted(set(names[names >= 0].tolist())):
            members = np.flatnonzero(names == name)
            order = members[np.argsort(-areas[members], kind="stable")]
            if usable[order[0]] and (len(order) == 1 or areas[order[0]] > _CLEARLY_LARGER * areas[order[1]]):
                by_name[name] = int(order[0])
            if len(order) > 1 and usable[members].all():
                by_place += places(boxes, members)
        return cls(names, boxes, np.flatnonzero((names >= 0) & usable), by_name, by_place)


def places(boxes: NDArray[np.float32], members: NDArray[np.int64]) -> list[tuple[str, int]]:
    """Words of places that tell one of several objects from the others, with that object's index."""
    middles = (boxes[members, :2] + boxes[members, 2:]) / 2
    found = []
    for word, axis, sign in SIDES:
        order = np.argsort(middles[:, axis] * sign, kind="stable")
        if abs(middles[order[0], axis] - middles[order[1], axis]) > _CLEARLY_APART:
            found.append((word, int(members[order[0]])))
    return found
