"""Records the messages of the camera and of the tracker, and draws the tracks into the pictures.

Frames are numbered by their stamps, so that a lost message does not shift the others.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Queue
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from elysium_core.errors import ElysiumError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.frame_writer import FrameWriter
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.convert.images import image_to_rgb
from elysium_ros.convert.messages import STATE_NAMES, box_from_message, is_no_box, stamp_to_ns
from elysium_ros.msg import TrackedObject, TrackedObjectArray


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


# Deep enough that a listener on a busy machine never loses a message.
_MESSAGES, _PICTURES = QoSProfile(depth=1000), QoSProfile(depth=50)
_MAX_UNWRITTEN = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tracker said about one frame.

    Attributes:
        stamp_ns: Stamp of the frame.
        width: Frame width [px].
        height: Frame height [px].
        updates: One per target; ``frame_index`` is the number of the frame as it was sent.
        dropped: Frames that the tracker received and skipped since its answer before.
        latency_s: From the stamp to the answer, as the tracker measured it [s].
    """

    stamp_ns: int
    width: int
    height: int
    updates: tuple[TrackUpdate, ...]
    dropped: int
    latency_s: float


class Recorder:
    """Subscribes and keeps what comes; all methods can be called from any thread.

    Pictures are written in another thread, so that encoding a video delays no message.

    Args:
        node: A node that spins in another thread.
        tracker: Full name of the tracker node.
        numbers: Numbers the frames by their stamps.
        writers: Where annotated pictures go as they arrive.
    """

    def __init__(self, node: Node, tracker: str, numbers: FrameNumbers, writers: Sequence[FrameWriter]) -> None:
        self._lock = threading.Lock()
        self._writers = writers
        self._numbers = numbers
        self._messages: list[Any] = []
        self._unwritten: Queue[Image | None] = Queue(_MAX_UNWRITTEN)
        self._written_ns = 0
        self._thread = threading.Thread(target=self._write_pictures, name="demo_writer", daemon=True)
        self.problem: ElysiumError | None = None
        self._thread.start()
        node.create_subscription(CameraInfo, "/camera_info", self._on_sent, _MESSAGES)
        node.create_subscription(TrackedObjectArray, f"{tracker}/objects", self._on_objects, _MESSAGES)
        node.create_subscription(Image, f"{tracker}/annotated/image", self._unwritten.put, _PICTURES)

    @property
    def sent(self) -> int:
        """Frames that the camera has sent so far."""
        return self._numbers.count

    @property
    def answered(self) -> int:
        """Frames that the tracker has answered so far."""
        return len(self._messages)

    @property
    def first_stamp_ns(self) -> int | None:
        """Stamp of the first frame, None before it was sent."""
        return self._numbers.first_ns

    @property
    def is_complete(self) -> bool:
        """Whether the newest frame that was sent has been answered, and drawn."""
        with self._lock:
            newest_ns = self._numbers.newest_ns
            answered_ns = stamp_to_ns(self._messages[-1].header.stamp) if self._messages else None
        return newest_ns is not None and newest_ns == answered_ns == self._written_ns

    def answers(self) -> list[Answer]:
        """Return the answers so far, in order."""
        with self._lock:
            return [_answer(message, self._numbers) for message in self._messages]

    def _on_sent(self, message: CameraInfo) -> None:
        with self._lock:
            self._numbers.of(stamp_to_ns(message.header.stamp))

    def _on_objects(self, message: TrackedObjectArray) -> None:
        if any(item.state == TrackedObject.STATE_STALE for item in message.objects):
            return  # not about a frame: it says that there was no result for a while
        with self._lock:
            self._messages.append(message)

    def close(self) -> None:
        """Write the pictures that have come, and end the thread; can be called twice."""
        self._unwritten.put(None)
        self._thread.join()

    def _write_pictures(self) -> None:
        while (message := self._unwritten.get()) is not None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            with self._lock:
                number = self._numbers.of(stamp_ns)
            frame = Frame(image_to_rgb(message), stamp_ns, number)
            try:
                for writer in self._writers:
                    writer.write(frame)
            except ElysiumError as error:  # a full disk: reported once the processes are stopped
                self.problem = error
            self._written_ns = stamp_ns


def _answer(message: Any, numbers: FrameNumbers) -> Answer:
    stamp_ns = stamp_to_ns(message.header.stamp)
    width, height = int(message.image_width), int(message.image_height)
    index = numbers.of(stamp_ns)
    updates = tuple(_update(tracked, index, stamp_ns, width, height) for tracked in message.objects)
    latency_s = message.latency.sec + message.latency.nanosec * 1e-9
    return Answer(stamp_ns, width, height, updates, int(message.dropped), latency_s)


def _update(tracked: Any, index: int, stamp_ns: int, width: int, height: int) -> TrackUpdate:
    state = TrackState(STATE_NAMES[tracked.state])
    shown: Box | None = None if is_no_box(tracked.box) else box_from_message(tracked.box, width, height)
    # While an object is LOST the message repeats its last box; that is no box of this frame.
    has_box = state in (TrackState.TRACKED, TrackState.UNCERTAIN)
    return TrackUpdate(
        target_id=str(tracked.id),
        frame_index=index,
        box=shown if has_box else None,
        score=float(tracked.score),
        state=state,
        stamp_ns=stamp_ns,
        expression=str(tracked.expression),
        age=int(tracked.age),
        last_box=shown,
    )
