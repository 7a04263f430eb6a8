"""The depth images of one camera: pairs them with its images, and gives each box its position. Imports no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from elysium_ros.convert.depth import DepthError, depth_pixels, pinhole
from elysium_ros.perception.depth import find_position
from elysium_ros.perception.types import DepthSettings, FrameJob, ObjectView

# A depth image comes a little before or after its image, rarely more than two frames.
_REMEMBERED = 4
# Ratios of width to height that differ by this much are those of two views.
_RATIO_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class DepthHealth:
    """What became of the depth images.

    Attributes:
        topic: Where they are expected.
        received: How many came.
        silence_s: Time since the newest one, or since the start [s].
        problem: Why the newest image got no positions, a sentence that starts with a code; empty if it could have.
    """

    topic: str = ""
    received: int = 0
    silence_s: float = 0.0
    problem: str = ""


class DepthSource:
    """Keeps the depth image that is nearest in time to the image that the model sees. Thread-safe.

    The model may take long, while depth images go on to come; so the pair of its image is kept apart.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = "depth/image"
        self._depth_info: Any = None
        self._image_info: Any = None
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: deque[tuple[int, Any]] = deque(maxlen=_REMEMBERED)
        self._wanted_ns = 0
        self._pair: tuple[int, Any] | None = None
        self._received = 0
        self._newest_s = clock()
        self._problem = ""

    def listen(self, topic: str) -> None:
        """Note where depth images are expected, for messages."""
        self._topic = topic

    def calibrate(self, info: Any, *, of_depth: bool) -> None:
        """Take the newest calibration.

        Args:
            info: The ``CameraInfo``.
            of_depth: It is that of the depth images; otherwise that of the images, used when there is no other.
        """
        if of_depth:
            self._depth_info = info
        else:
            self._image_info = info

    def put(self, stamp_ns: int, message: Any) -> None:
        """Take a depth image.

        Args:
            stamp_ns: Its stamp [ns], >= 0.
            message: The ``sensor_msgs/Image``.
        """
        with self._lock:
            self._received += 1
            self._newest_s = self._clock()
            self._recent.append((stamp_ns, message))
            self._pair = self._nearest((self._pair, (stamp_ns, message)))

    def expect(self, stamp_ns: int) -> None:
        """Look for the pair of an image from now on.

        Args:
            stamp_ns: Stamp of the image [ns].
        """
        with self._lock:
            self._wanted_ns = stamp_ns
            self._pair = self._nearest(self._recent)

    def clear(self) -> None:
        """Forget all depth images."""
        with self._lock:
            self._recent.clear()
            self._pair = None

    def health(self) -> DepthHealth:
        """Return what became of the depth images so far."""
        with self._lock:
            return DepthHealth(self._topic, self._received, self._clock() - self._newest_s, self._problem)

    def locate(
        self, job: FrameJob, views: Iterable[ObjectView], settings: DepthSettings, report: Callable[[Exception], str]
    ) -> list[ObjectView]:
        """Return the views with positions, where their boxes have one.

        Args:
            job: The image, for which :meth:`expect` was called.
            views: Targets in it.
            settings: Scale and tolerance in time.
            report: Called with the reason if there is no depth for this image.
        """
        views = list(views)
        try:
            pixels, metres, camera = self._usable(job, settings)
        except DepthError as error:
            self._problem = report(error)
            return views
        self._problem = ""
        return [
            view
            if view.update.box is None
            else replace(view, position=find_position(pixels, metres, view.update.box, camera))
            for view in views
        ]

    def _usable(self, job: FrameJob, settings: DepthSettings) -> tuple[Any, float, Any]:
        """Return the depths of the image, the metres of their unit, and the camera.

        Raises:
            DepthError: There is none that can be used.
        """
        message = self._pair_of(job.image.stamp_ns, settings.sync_slop_s)
        image_frame = str(job.image.payload.header.frame_id)
        _check_frame(str(message.header.frame_id), image_frame, "the depth image")
        pixels, metres = depth_pixels(message, settings.scale)
        height, width = pixels.shape
        if abs(width * job.frame.height / (height * job.frame.width) - 1) > _RATIO_TOLERANCE:
            raise DepthError(
                f"a depth image of {width}x{height} px does not belong to an image of {job.frame.width}x"
                f"{job.frame.height} px; publish depth that is registered to the image",
                code="DEPTH_SIZE",
            )
        info = self._depth_info if self._depth_info is not None else self._image_info
        if info is None:
            raise DepthError(
                "no calibration has come; publish depth/camera_info or camera_info, or remap them",
                code="DEPTH_CALIBRATION",
            )
        _check_frame(str(info.header.frame_id), image_frame, "the calibration")
        return pixels, metres, pinhole(info)

    def _pair_of(self, stamp_ns: int, slop_s: float) -> Any:
        with self._lock:
            pair, received = self._pair, self._received
        if not received:
            raise DepthError(
                f"no depth image has come on {self._topic}; publish one, or remap depth/image",
                code="DEPTH_NOT_RECEIVED",
            )
        if stamp_ns == 0 or pair is None or pair[0] == 0:
            raise DepthError("without stamps of images and depth images they cannot be paired", code="DEPTH_TIME")
        gap_s = abs(pair[0] - stamp_ns) / 1e9
        if gap_s > slop_s:
            raise DepthError(
                f"the nearest depth image is {gap_s:.3f} s from the image, and depth.sync_slop is {slop_s:g} s",
                code="DEPTH_TIME",
            )
        return pair[1]

    def _nearest(self, pairs: Iterable[tuple[int, Any] | None]) -> tuple[int, Any] | None:
        found = [pair for pair in pairs if pair is not None]
        return min(found, key=lambda pair: abs(pair[0] - self._wanted_ns)) if found else None


def _check_frame(frame_id: str, image_frame: str, what: str) -> None:
    """Refuse what is of another frame than the image; an empty frame is taken to be the same."""
    if frame_id and image_frame and frame_id != image_frame:
        raise DepthError(
            f"{what} is in the frame {frame_id[:64]!r} and the image in {image_frame[:64]!r}; publish depth that is "
            "registered to the image (RealSense: align_depth.enable:=true)",
            code="DEPTH_FRAME",
        )
