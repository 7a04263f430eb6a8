"""What was left out of a photo collection, and why."""

from __future__ import annotations

import logging
from enum import Enum

_LOG = logging.getLogger(__name__)
# Of each reason, so many are named in the log; the rest is only counted.
_MOST_NAMED = 10


class Skipped(str, Enum):
    """Why a picture, a line or a box is not used."""

    MISSING = "picture missing"
    UNREADABLE = "picture unreadable"
    OTHER_SIZE = "annotation of a picture of another shape"
    BAD_BOX = "box empty or outside the picture"
    BAD_ENTRY = "annotation damaged"
    SMALL = "picture too small"


class PhotoReport:
    """Counts what was skipped. Each place is counted and named once, however often it is met."""

    def __init__(self) -> None:
        self._places: dict[Skipped, dict[str, None]] = {}

    def skip(self, reason: Skipped, place: str) -> None:
        """Count one thing that is left out.

        Args:
            reason: Why.
            place: The file, and the line or object in it.
        """
        places = self._places.setdefault(reason, {})
        if place in places:
            return
        places[place] = None
        if len(places) <= _MOST_NAMED:
            _LOG.warning("%s: %s", place, reason.value)
        elif len(places) == _MOST_NAMED + 1:
            _LOG.warning("%s: more of them are counted, not named", reason.value)

    def count(self, reason: Skipped) -> int:
        """Number of places that were skipped for this reason."""
        return len(self._places.get(reason, ()))

    def places(self, reason: Skipped) -> list[str]:
        """The places that were skipped for this reason, in the order in which they were met."""
        return list(self._places.get(reason, ()))

    @property
    def total(self) -> int:
        """Number of all places that were skipped."""
        return sum(len(places) for places in self._places.values())

    def __str__(self) -> str:
        if not self._places:
            return "nothing skipped"
        parts = []
        for reason, places in self._places.items():
            first = next(iter(places))
            parts.append(f"{len(places)} x {reason.value} (first: {first})")
        return "skipped: " + "; ".join(parts)
