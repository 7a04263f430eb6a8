"""The images of one camera: the mailbox in which they arrive, and the stream that the trackers see. Imports no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elysium_core.errors import TargetError
from elysium_core.frames import Frame
from elysium_core.types import Tracker
from elysium_ros.convert.images import decode_image
from elysium_ros.perception.camera_record import CameraRecord
from elysium_ros.perception.depth_source import DepthSource
from elysium_ros.perception.time_line import TimeLine, Verdict
from elysium_ros.perception.types import FrameJob, Incoming

MAX_BUFFER_BYTES = 256 * 1024 * 1024
"""The memory holds less than its capacity when images are so large that it would exceed this [bytes]."""


class Mailbox:
    """A slot for the newest image of one camera, and the last few images for reference. Thread-safe; decodes nothing.

    The consumer always gets the newest image; what it was too slow for is counted. Late images are refused
    (:class:`TimeLine`).

    Attributes:
        camera: Name of the camera.
        received: Images that arrived, used or not.
        dropped: Images that arrived and were never handed out.
        record: What became of the images.
        depth: The depth images of the camera; None if there are none.

    Args:
        camera: Name of the camera.
        capacity: Images to remember, >= 1.
        arrivals: Notified when an image is kept; mailboxes that one thread serves share it.
        clock: Steady clock [s].
        depth: As above.
    """

    def __init__(
        self,
        camera: str,
        capacity: int,
        arrivals: threading.Condition | None = None,
        clock: Callable[[], float] = time.monotonic,
        depth: DepthSource | None = None,
    ) -> None:
        self.camera = camera
        self.depth = depth
        self.received = 0
        self.dropped = 0
        self.record = CameraRecord(clock)
        self._capacity = capacity
        self._arrivals = arrivals or threading.Condition()
        self._number = 0
        self._recent: deque[Incoming] = deque()
        self._recent_bytes = 0
        self._waiting: Incoming | None = None
        self._clock = clock
        self._time_line = TimeLine(clock)
        self._epoch = 0

    def put(self, stamp_ns: int, payload: Any, size: int, *, ahead: bool = False) -> Verdict:
        """Take an image, and wake the thread that serves this mailbox.

        Args:
            stamp_ns: Its stamp [ns], >= 0.
            payload: The message.
            size: Bytes that it holds.
            ahead: The stamp lies in the future; see :class:`TimeLine`.
        """
        self.record.image_received()
        with self._arrivals:
            self.received += 1
            verdict = self._time_line.judge(stamp_ns, ahead=ahead)
            if verdict is Verdict.OUT_OF_ORDER:
                self.dropped += 1
                return verdict
            if verdict is Verdict.TIME_JUMP:
                self._forget()
                self._epoch += 1
            if self._waiting is not None:
                self.dropped += 1
            self._number += 1
            self._waiting = Incoming(self.camera, stamp_ns, payload, size, self._number, self._epoch, self._clock())
            self._remember(self._waiting)
            self._arrivals.notify_all()
            return verdict

    def refuse(self, reason: str) -> None:
        """Count an image that cannot be used (too old, without a valid stamp).

        Args:
            reason: One sentence that starts with a code and a colon.
        """
        self.record.image_received()
        self.record.image_refused(reason)
        with self._arrivals:
            self.received += 1
            self.dropped += 1

    def take(self) -> Incoming | None:
        """Hand out the newest image if it was not handed out before."""
        with self._arrivals:
            image, self._waiting = self._waiting, None
            return image

    def newest(self) -> Incoming | None:
        """Return the newest image, handed out or not."""
        with self._arrivals:
            return self._recent[-1] if self._recent else None

    def find(self, stamp_ns: int) -> Incoming | None:
        """Return the remembered image with exactly this stamp."""
        with self._arrivals:
            return next((image for image in reversed(self._recent) if image.stamp_ns == stamp_ns), None)

    def recent(self) -> list[Incoming]:
        """Return the remembered images, oldest first."""
        with self._arrivals:
            return list(self._recent)

    def clear(self) -> None:
        """Forget all images and stamps; the counters stay."""
        self.record.wait_anew()
        if self.depth is not None:
            self.depth.clear()
        with self._arrivals:
            self._forget()
            self._time_line.forget()

    def _forget(self) -> None:
        if self._waiting is not None:
            self.dropped += 1
        self._waiting = None
        self._recent.clear()
        self._recent_bytes = 0

    def _remember(self, image: Incoming) -> None:
        self._recent.append(image)
        self._recent_bytes += image.size
        while len(self._recent) > self._capacity or (self._recent_bytes > MAX_BUFFER_BYTES and len(self._recent) > 1):
            self._recent_bytes -= self._recent.popleft().size


class CameraStream:
    """The frames of one camera, in order, and the trackers that see them. Used by the inference thread only.

    All targets share one tracker, and so the model's work on each frame, except a target whose box was drawn on a
    frame that the others have passed already: that one gets another tracker, which starts at its frame.

    Attributes:
        trackers: The trackers, the shared one first.
        last_number: ``Incoming.number`` of the newest image seen; one that is not larger has been seen.
        epoch: ``Incoming.epoch`` of the images seen.

    Args:
        mailbox: Where the images arrive.
        new_tracker: Makes a tracker.
    """

    def __init__(self, mailbox: Mailbox, new_tracker: Callable[[], Tracker]) -> None:
        self.mailbox = mailbox
        self.trackers = [new_tracker()]
        self.last_number = 0
        self.epoch = 0
        self._new_tracker = new_tracker
        self._last: FrameJob | None = None
        self._index = 0
        self._undecoded = 0
        self._restarts = 0
        self._reported_drops = 0
        self._retired_parse_failures = 0

    def begin(self, image: Incoming) -> FrameJob:
        """Decode an image that the trackers have not seen, and make it the newest one.

        Raises:
            ImageError: It cannot be used; it counts as skipped.
        """
        self.last_number = image.number
        if self.mailbox.depth is not None:
            self.mailbox.depth.expect(image.stamp_ns)
        taken_s = time.monotonic()
        try:
            frame = Frame(decode_image(image.payload), image.stamp_ns, self._index, image.arrived_s)
        except Exception:
            self._undecoded += 1
            raise
        self._index += 1
        drops = self.mailbox.dropped + self._undecoded
        skipped, self._reported_drops = drops - self._reported_drops, drops
        self._last = FrameJob(image, frame, skipped, taken_s, time.monotonic() - taken_s)
        return self._last

    def tracker_at(self, image: Incoming) -> Tracker:
        """Return a tracker whose newest frame is ``image``, which must not be new.

        Raises:
            ImageError: An earlier image cannot be used.
        """
        if self._last is not None and image.number == self._last.image.number:
            return self.trackers[0]
        tracker = self._new_tracker()
        tracker.step(self.frame_of(image))
        self.trackers.append(tracker)
        return tracker

    def frame_of(self, image: Incoming) -> Frame:
        """Decode a remembered image, or return the frame if it is the newest one seen.

        Raises:
            ImageError: It cannot be used.
        """
        if self._last is not None and image.number == self._last.image.number:
            return self._last.frame
        return Frame(decode_image(image.payload), image.stamp_ns, max(0, self._index - 1), image.arrived_s)

    def remembered(self, stamp_ns: int) -> Incoming:
        """Return the image with this stamp, or the newest one for 0.

        Raises:
            TargetError: ``NO_IMAGE`` none has arrived; ``BOX_STAMP`` that one is not remembered (any more).
        """
        image = self.mailbox.find(stamp_ns) if stamp_ns else self.mailbox.newest()
        if image is not None:
            return image
        recent, camera = self.mailbox.recent(), self.mailbox.camera
        source = f" from camera {camera!r}" if camera else ""
        health = self.mailbox.record.health()
        if not recent and health.refused:
            raise TargetError(health.refusal_text, code=health.refusal_code)
        if not recent:
            raise TargetError(f"no image has arrived{source} yet", code="NO_IMAGE")
        raise TargetError(
            f"there is no image with the stamp {stamp_ns} ns{source}; {len(recent)} are remembered, "
            f"from {recent[0].stamp_ns} to {recent[-1].stamp_ns} ns; draw on a newer one or raise buffer.capacity",
            code="BOX_STAMP",
        )

    @property
    def parse_failures(self) -> int:
        """Answers of the model without a usable box; may be read from any thread."""
        return self._retired_parse_failures + sum(map(_parse_failures, self.trackers.copy()))

    def drop_idle_trackers(self) -> None:
        """Let go of trackers that were made for one target and have none left."""
        for tracker in self.trackers[1:]:
            if not tracker.target_ids:
                self._retire(tracker)

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Raise at the end of the block if the images were forgotten meanwhile: an answer about them is void.

        Raises:
            TargetError: They were (``IMAGES_FORGOTTEN``).
        """
        restarts = self._restarts
        yield
        if self._restarts != restarts:
            raise TargetError(
                "the stamps of the images went backwards, or the tracker was reset, before the answer was complete; "
                "ask again",
                code="IMAGES_FORGOTTEN",
            )

    def restart(self, epoch: int) -> None:
        """Forget all frames and start with a new tracker.

        Args:
            epoch: ``Incoming.epoch`` of the images to come.
        """
        self.epoch = epoch
        self._restarts += 1
        for tracker in self.trackers.copy():
            self._retire(tracker)
        self.trackers.append(self._new_tracker())
        self._last = None

    def _retire(self, tracker: Tracker) -> None:
        self._retired_parse_failures += _parse_failures(tracker)
        self.trackers.remove(tracker)


def _parse_failures(tracker: Tracker) -> int:
    # Copied first: status messages are made in another thread while the tracker counts.
    return sum(list(tracker.stats.parse_failures.values()))
