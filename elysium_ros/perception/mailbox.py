"""What has arrived from one camera: the newest image that waits, and a short memory. Knows no ROS, decodes nothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

TIME_JUMP_NS = 1_000_000_000
"""An image older than the newest by more than this means that time was set back (a bag started again) [ns]."""

MAX_BUFFER_BYTES = 256 * 1024 * 1024
"""The memory holds less than its capacity when images are so large that it would exceed this [bytes]."""


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """One image as it arrived.

    Attributes:
        camera: Name of the camera.
        stamp_ns: Its stamp [ns], 0 if the camera sets none.
        payload: The message, not decoded.
        size: Bytes that the payload holds.
        number: Number of the image in the mailbox's life, from 1; later images have larger numbers.
        epoch: How often time was set back before it; images of two epochs have nothing to do with each other.
        arrived_s: When it arrived, on the steady clock [s].
    """

    camera: str
    stamp_ns: int
    payload: Any
    size: int
    number: int
    epoch: int = 0
    arrived_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An image handed to the consumer.

    Attributes:
        image: The image.
        skipped: Images that arrived since the last delivery and were not handed out.
    """

    image: Incoming
    skipped: int


class Verdict(Enum):
    """What became of an image on arrival."""

    KEPT = "kept"
    OUT_OF_ORDER = "out of order"
    TIME_JUMP = "kept, after a jump back in time"


class Mailbox:
    """A slot for the newest image of one camera, and the last few images for reference. Thread-safe.

    The consumer always gets the newest image; what it was too slow for is counted. Stamps that do not increase are
    refused, except zero stamps (a camera without a clock).

    Args:
        camera: Name of the camera.
        capacity: Images to remember, >= 1.
    """

    def __init__(self, camera: str, capacity: int) -> None:
        self.camera = camera
        self._capacity = capacity
        self._lock = threading.Lock()
        self._received = 0
        self._dropped = 0
        self._number = 0
        self._recent: deque[Incoming] = deque()
        self._recent_bytes = 0
        self._waiting: Incoming | None = None
        self._skipped = 0
        self._newest_stamp_ns = 0
        self._epoch = 0

    def put(self, stamp_ns: int, payload: Any, size: int, *, ahead: bool = False) -> Verdict:
        """Take an image.

        Args:
            stamp_ns: Its stamp [ns], >= 0.
            payload: The message.
            size: Bytes that it holds.
            ahead: The stamp lies in the future, so later ones are not measured against it: one such
                image must not make all right ones look late.
        """
        with self._lock:
            self._received += 1
            jumped = not ahead and 0 < stamp_ns < self._newest_stamp_ns - TIME_JUMP_NS
            if not ahead and not jumped and 0 < stamp_ns <= self._newest_stamp_ns:
                self._skip()
                return Verdict.OUT_OF_ORDER
            if jumped:
                self._forget()
                self._epoch += 1
            if not ahead:
                self._newest_stamp_ns = stamp_ns
            self._number += 1
            image = Incoming(self.camera, stamp_ns, payload, size, self._number, self._epoch)
            if self._waiting is not None:
                self._skip()
            self._waiting = image
            self._remember(image)
            return Verdict.TIME_JUMP if jumped else Verdict.KEPT

    def refuse(self) -> None:
        """Count an image that cannot be used (too old, without a valid stamp)."""
        with self._lock:
            self._received += 1
            self._skip()

    def take(self) -> Delivery | None:
        """Hand out the newest image if it was not handed out before."""
        with self._lock:
            if self._waiting is None:
                return None
            delivery = Delivery(self._waiting, self._skipped)
            self._waiting, self._skipped = None, 0
            return delivery

    def newest(self) -> Incoming | None:
        """Return the newest image, handed out or not."""
        with self._lock:
            return self._recent[-1] if self._recent else None

    def find(self, stamp_ns: int) -> Incoming | None:
        """Return the remembered image with exactly this stamp."""
        with self._lock:
            return next((image for image in reversed(self._recent) if image.stamp_ns == stamp_ns), None)

    def recent(self) -> list[Incoming]:
        """Return the remembered images, oldest first."""
        with self._lock:
            return list(self._recent)

    def clear(self) -> None:
        """Forget all images and stamps; the counters stay."""
        with self._lock:
            self._forget()
            self._newest_stamp_ns = 0

    @property
    def has_mail(self) -> bool:
        """Whether :meth:`take` would return an image."""
        return self._waiting is not None

    @property
    def received(self) -> int:
        """Images that arrived, used or not."""
        return self._received

    @property
    def dropped(self) -> int:
        """Images that arrived and were never handed out."""
        return self._dropped

    def _skip(self) -> None:
        self._skipped += 1
        self._dropped += 1

    def _forget(self) -> None:
        if self._waiting is not None:
            self._skip()
        self._waiting = None
        self._recent.clear()
        self._recent_bytes = 0

    def _remember(self, image: Incoming) -> None:
        self._recent.append(image)
        self._recent_bytes += image.size
        while len(self._recent) > self._capacity or (self._recent_bytes > MAX_BUFFER_BYTES and len(self._recent) > 1):
            self._recent_bytes -= self._recent.popleft().size
