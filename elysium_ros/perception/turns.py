"""When questions and when images get the inference thread. Imports no ROS.

A question takes long and changes nothing. While images come, they go first; a question goes on when none waits, and for
a fifth of the time when there always is one. What a model answers in one piece, without breaks, is followed by as much
time for images.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Time of questions after an image, as a fraction of the time that image took: a fifth of the whole.
_LEAST_SHARE = 0.25

# A camera that has sent an image so recently sends more, which are not to wait for one question after the other.
_LIVE_S = 1.0


class Turns:
    """Divides the time of the thread between questions and images. Used by one thread.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at_s = float("-inf")
        self._look_s = 0.0
        # Time of questions since the last image.
        self._asked_s = 0.0
        self._part_from_s = 0.0
        self._next_from_s = float("-inf")

    def begin_part(self) -> None:
        """A question begins, or goes on after a break."""
        self._part_from_s = self._clock()

    def end_part(self) -> None:
        """The question has come to a break."""
        self._asked_s += self._clock() - self._part_from_s

    def end_question(self) -> None:
        """The question is answered."""
        self.end_part()
        now_s = self._clock()
        is_live = self._part_from_s - self._looked_at_s < _LIVE_S
        self._next_from_s = 2 * now_s - self._part_from_s if is_live else float("-inf")

    def looked(self, begin_s: float) -> None:
        """An image was looked at.

        Args:
            begin_s: When that began, on the clock [s].
        """
        self._looked_at_s, self._look_s = begin_s, self._clock() - begin_s
        self._asked_s = 0.0

    @property
    def is_images(self) -> bool:
        """Whether it is the turn of an image, if one waits."""
        return self._asked_s >= _LEAST_SHARE * self._look_s

    @property
    def wait_s(self) -> float:
        """How long no question may begin [s]; 0 if one may."""
        return max(0.0, self._next_from_s - self._clock())
