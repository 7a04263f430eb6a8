"""The trackers of one camera and the order in which they see its images. Knows no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from elysium_core.errors import TargetError
from elysium_core.frames import Frame
from elysium_core.types import Tracker
from elysium_ros.perception.mailbox import Incoming, Mailbox

Decode = Callable[[Any, int, int], Frame]
"""Turns a payload into a frame, given its stamp [ns] and its index; raises ``ImageError``."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image and what it decoded to.

    Attributes:
        image: The image.
        frame: What it decoded to.
        taken_s: When the inference thread took it, on the steady clock [s].
        decode_s: How long decoding took [s].
    """

    image: Incoming
    frame: Frame
    taken_s: float = 0.0
    decode_s: float = 0.0


class CameraStream:
    """One camera. Used by the inference thread only.

    All targets share one tracker, and so the model's work on each frame, except a target whose box was drawn on a
    frame that the others have passed already: that one gets a tracker of its own, which starts at its frame.

    Args:
        mailbox: Where the images arrive.
        new_tracker: Makes a tracker.
        decode: Decodes an image.
    """

    def __init__(self, mailbox: Mailbox, new_tracker: Callable[[], Tracker], decode: Decode) -> None:
        self.mailbox = mailbox
        self.epoch = 0
        self.skipped = 0
        self._new_tracker = new_tracker
        self._decode = decode
        self._index = 0
        self._last: Seen | None = None
        self._last_number = 0
        self._trackers = [new_tracker()]

    @property
    def camera(self) -> str:
        """Name of the camera."""
        return self.mailbox.camera

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """The trackers, the shared one first."""
        return tuple(self._trackers)

    @property
    def last(self) -> Seen | None:
        """Newest image that the trackers have seen."""
        return self._last

    def is_new(self, image: Incoming) -> bool:
        """Whether the image came after all that the trackers have seen."""
        return image.number > self._last_number

    def begin(self, image: Incoming) -> Seen:
        """Decode a new image and make it the newest one.

        Raises:
            ImageError: It cannot be used; it counts as skipped.
        """
        self._last_number = image.number
        taken_s = time.monotonic()
        try:
            frame = self._decoded(image, self._index)
        except Exception:
            self.skipped += 1
            raise
        self._index += 1
        self._last = Seen(image, frame, taken_s, time.monotonic() - taken_s)
        return self._last

    def tracker_at(self, image: Incoming) -> Tracker:
        """Return a tracker whose newest frame is ``image``, which must not be new.

        Raises:
            ImageError: An earlier image cannot be used.
        """
        if self._last is not None and image.number == self._last.image.number:
            return self._trackers[0]
        tracker = self._new_tracker()
        tracker.step(self.frame_of(image))
        self._trackers.append(tracker)
        return tracker

    def frame_of(self, image: Incoming) -> Frame:
        """Decode a remembered image, or return the frame if it is the newest one seen.

        Raises:
            ImageError: It cannot be used.
        """
        if self._last is not None and image.number == self._last.image.number:
            return self._last.frame
        return self._decoded(image, max(0, self._index - 1))

    def _decoded(self, image: Incoming, index: int) -> Frame:
        # With the time of arrival: a camera may set no stamps, and frames are skipped.
        return replace(self._decode(image.payload, image.stamp_ns, index), arrived_s=image.arrived_s)

    def remembered(self, stamp_ns: int) -> Incoming:
        """Return the image with this stamp, or the newest one for 0.

        Raises:
            TargetError: ``NO_IMAGE`` none has arrived; ``BOX_STAMP`` that one is not remembered (any more).
        """
        image = self.mailbox.find(stamp_ns) if stamp_ns else self.mailbox.newest()
        if image is not None:
            return image
        recent = self.mailbox.recent()
        if not recent:
            raise TargetError(f"no image has arrived{_from(self.camera)} yet", code="NO_IMAGE")
        raise TargetError(
            f"there is no image with the stamp {stamp_ns} ns{_from(self.camera)}; {len(recent)} are remembered, "
            f"from {recent[0].stamp_ns} to {recent[-1].stamp_ns} ns; draw on a newer one or raise buffer.capacity",
            code="BOX_STAMP",
        )

    def drop_idle_trackers(self) -> list[Tracker]:
        """Let go of trackers that were made for one target and have none left; return them."""
        idle = [tracker for tracker in self._trackers[1:] if not tracker.target_ids]
        self._trackers = [tracker for tracker in self._trackers if tracker not in idle]
        return idle

    def restart(self) -> list[Tracker]:
        """Forget all frames and start with a new tracker; return the old ones."""
        old, self._trackers = self._trackers, [self._new_tracker()]
        self._last = None
        return old


def _from(camera: str) -> str:
    return f" from camera {camera!r}" if camera else ""
