"""Which images of a camera are in order, which are late, and when time has really jumped. Imports no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

TIME_JUMP_NS = 1_000_000_000
"""An image this far from the others is late, or from the future, or the first one after a jump in time [ns]."""

# A jump is believed when so many images have gone on from there, for so long, and none from before has come between.
# What was held up on its way arrives in a burst, which is over sooner.
_BELIEF_IMAGES = 3
_BELIEF_S = 0.75


class Verdict(Enum):
    """What becomes of an image on arrival."""

    KEPT = "kept"
    OUT_OF_ORDER = "out of order"
    TIME_JUMP = "kept, after a jump back in time"


@dataclass(slots=True)
class _OtherLine:
    """Images that go on from another time than the rest."""

    newest_ns: int
    since_s: float
    images: int = 1

    def take(self, stamp_ns: int) -> None:
        self.newest_ns, self.images = stamp_ns, self.images + 1


class TimeLine:
    """Judges the images of one camera by their stamps, in the order of their arrival.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest_ns = 0
        self._other: _OtherLine | None = None

    def judge(self, stamp_ns: int, *, ahead: bool = False) -> Verdict:
        """Say what becomes of an image.

        Args:
            stamp_ns: Its stamp [ns], >= 0; 0 is always kept (a camera without a clock).
            ahead: It lies in the future. It is kept, but one such image must not make all right ones look late.
        """
        if stamp_ns == 0:
            return Verdict.KEPT
        gap_ns = stamp_ns - self._newest_ns
        if gap_ns > 0 and not (ahead and gap_ns > TIME_JUMP_NS):
            self._newest_ns, self._other = stamp_ns, None
            return Verdict.KEPT
        if -TIME_JUMP_NS <= gap_ns <= 0:
            self._other = None
            return Verdict.OUT_OF_ORDER
        return self._judge_far(stamp_ns, forward=gap_ns > 0)

    def forget(self) -> None:
        """Measure the next image against none before it."""
        self._newest_ns, self._other = 0, None

    def _judge_far(self, stamp_ns: int, *, forward: bool) -> Verdict:
        other, now_s = self._other, self._clock()
        goes_on = other is not None and other.newest_ns < stamp_ns <= other.newest_ns + TIME_JUMP_NS
        if other is None or not goes_on:
            is_late = other is not None and other.newest_ns - TIME_JUMP_NS <= stamp_ns <= other.newest_ns
            if not is_late:
                self._other = _OtherLine(stamp_ns, now_s)
            return Verdict.KEPT if forward and not is_late else Verdict.OUT_OF_ORDER
        other.take(stamp_ns)
        if other.images >= _BELIEF_IMAGES and now_s - other.since_s >= _BELIEF_S:
            self._newest_ns, self._other = stamp_ns, None
            return Verdict.KEPT if forward else Verdict.TIME_JUMP
        return Verdict.KEPT if forward else Verdict.OUT_OF_ORDER
