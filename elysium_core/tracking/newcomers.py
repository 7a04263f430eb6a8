"""When newcomers are searched for while all objects of some names are followed, and which of them count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.target import StreamClock
from elysium_core.types import Grounding

SEARCH_PERIOD_S = 1.0
"""Time between two searches for newcomers, after one that found none [s]."""
NEWCOMER_SCORE = 0.4
"""Least score of an object that becomes a target by itself: a wrong box would be followed for long."""
NEWCOMER_SCORE_BY_NAME = 0.5
"""The same of models whose scores count evidence for the name: one person in the picture is evidence for the next."""

# Two boxes are about one object if they overlap so much, or if so much of the smaller one is inside the other.
_SAME_IOU, _SAME_INSIDE = 0.4, 0.75
# Objects of different names may lie in front of each other, as a person on a horse.
_SAME_PLACE_IOU = 0.8
_MOST_NAMES = 16
# Times are sums of the steps of stamps; what differs by less is one time.
_SAME_TIME_S = 1e-6

Known = tuple[str, Box]
"""Name and box of an object that is known already."""


@runtime_checkable
class FindsAll(Protocol):
    """A model that finds all objects of a name."""

    def find_all(
        self, image: Frame | NDArray[np.uint8], names: Sequence[str], *, known: Sequence[Known] = ()
    ) -> dict[str, list[Grounding]]:
        """See :meth:`elysium_core.api.Elysium.find_all`."""
        ...

    def search_of_all(self, names: str | Sequence[str]) -> InstanceSearch:
        """See :meth:`elysium_core.api.Elysium.search_of_all`."""
        ...


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An object that was found and is not followed yet.

    Attributes:
        name: The name by which it was found.
        box: Its box.
        score: Score of the box, 0..1.
    """

    name: str
    box: Box
    score: float


def split_names(text: str | Iterable[str], clean: Callable[[str], str]) -> list[str]:
    """The names of a list such as ``"person, dog"``, in the model's own words, each once.

    Args:
        text: Names with commas between them, or the names.
        clean: Cleans one name; see :meth:`elysium_core.types.PerceptionModel.clean_words`.

    Raises:
        ConfigError: There is no name, or there are more than 16 (``NAMES``).
        ExpressionError: A name cannot be used.
    """
    parts = text.split(",") if isinstance(text, str) else list(text)
    names = list(dict.fromkeys(clean(part) for part in parts if part.strip()))
    if not 0 < len(names) <= _MOST_NAMES:
        raise ConfigError(f"{text!r} holds {len(names)} names; give 1..{_MOST_NAMES}, as in 'person, dog'", "NAMES")
    return names


def same_object(first: Known, second: Known) -> bool:
    """Whether two boxes with their names are about one object."""
    iou = first[1].iou(second[1])
    if first[0] != second[0]:
        return iou > _SAME_PLACE_IOU
    return iou > _SAME_IOU or _inside(first[1], second[1]) > _SAME_INSIDE


def _inside(first: Box, second: Box) -> float:
    """Share of the smaller box that is inside the other."""
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    return max(0.0, width) * max(0.0, height) / min(first.area, second.area)


class InstanceSearch:
    """Decides when newcomers are searched for in a stream, and which of them count.

    After a search that found something the next frame is searched, too: others may show beside what was found. After
    one that found nothing, the search pauses.

    Args:
        model: The model.
        names: Names of the wanted objects, cleaned.
        period_s: Time between two searches, after one that found nothing [s].
        least_score: Least score of a newcomer, 0..1.
    """

    def __init__(
        self,
        model: FindsAll,
        names: Sequence[str],
        period_s: float = SEARCH_PERIOD_S,
        least_score: float = NEWCOMER_SCORE,
    ) -> None:
        self.names = tuple(names)
        self._model, self._period_s, self._least_score = model, period_s, least_score
        self.restart()

    def restart(self) -> None:
        """Begin a new stream; its first frame is searched."""
        self._clock = StreamClock()
        self._next_s = 0.0

    def look(self, frame: Frame, known: Mapping[str, Known], room: int) -> list[Newcomer]:
        """Search a frame, if it is time.

        Args:
            frame: The newest frame of the stream; call this once for each.
            known: What is followed in this frame, by target.
            room: Most newcomers.

        Returns:
            Newcomers, the most certain first; empty in most frames.

        Raises:
            BackendError: The model failed.
        """
        now_s = self._clock.tick(frame)
        if now_s < self._next_s - _SAME_TIME_S or room <= 0:
            return []
        taken = list(known.values())
        found = self._model.find_all(frame, self.names, known=taken)
        every = [(name, each) for name, those in found.items() for each in those if each.score >= self._least_score]
        newcomers: list[Newcomer] = []
        for name, each in sorted(every, key=lambda entry: -entry[1].score)[:room]:
            if each.box is not None and not any(same_object((name, each.box), other) for other in taken):
                newcomers.append(Newcomer(name, each.box, each.score))
                taken.append((name, each.box))
        self._next_s = now_s if newcomers else now_s + self._period_s
        return newcomers
