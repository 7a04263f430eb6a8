"""Numbers frames by their stamps, so that a lost message shifts no other. Pure; knows no ROS."""

from __future__ import annotations


class FrameNumbers:
    """Numbers of the frames of a camera that plays a video with the stamps of the video.

    The first stamp seen is frame 0. Between two stamps lie as many frames as the time between them has room for, so
    stamps may be missing, and may come late. The pause that the camera makes by itself is no room.

    Args:
        rate_hz: Frames a second, > 0.
        pause_after: The camera pauses after this many frames; 0 = never.
    """

    def __init__(self, rate_hz: float, pause_after: int = 0) -> None:
        self._rate_hz = rate_hz
        self._pause_after = pause_after
        self._number_of: dict[int, int] = {}
        self._newest_ns = 0

    @property
    def count(self) -> int:
        """Frames up to the newest one, those whose stamps were never seen included."""
        return self._number_of[self._newest_ns] + 1 if self._number_of else 0

    @property
    def first_ns(self) -> int | None:
        """Stamp of frame 0, None before any was seen."""
        return next(iter(self._number_of), None)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest frame, None before any was seen."""
        return self._newest_ns if self._number_of else None

    def of(self, stamp_ns: int) -> int:
        """Return the number of the frame with this stamp."""
        if stamp_ns not in self._number_of:
            self._number_of[stamp_ns] = self._next(stamp_ns)
            self._newest_ns = max(self._newest_ns, stamp_ns)
        return self._number_of[stamp_ns]

    def _next(self, stamp_ns: int) -> int:
        count, gap_ns = self.count, stamp_ns - self._newest_ns
        if count == 0 or (count == self._pause_after and gap_ns > 0):
            return count
        steps = round(gap_ns * self._rate_hz / 1e9)
        return count - 1 + (max(1, steps) if gap_ns > 0 else steps)
