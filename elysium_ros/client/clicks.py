"""From a click in rviz or rqt_image_view to the box that it stands for. No node, and no waiting."""

from __future__ import annotations

import threading
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from elysium_core.errors import ElysiumError
from elysium_core.io.box_lines import is_calibrated
from elysium_core.viewer.backend import box_at
from elysium_ros.convert.messages import box_to_message
from elysium_ros.msg import Box2D, TrackedObjectArray


class ClickError(ElysiumError):
    """A click says nothing about the image."""

    code = "CLICK_NO_IMAGE"


class Clicks:
    """Turns clicks into boxes of the newest image. Safe to use from several threads.

    The newest message of the tracker says how large the image is and in which frame; the calibration says where a point
    in space appears.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._image: TrackedObjectArray | None = None
        self._info: CameraInfo | None = None

    def see(self, message: TrackedObjectArray) -> None:
        """Take the newest result of the tracker."""
        with self._lock:
            self._image = message

    def calibrate(self, info: CameraInfo) -> None:
        """Take the newest calibration of the camera."""
        with self._lock:
            self._info = info

    def in_image(self, point: Any) -> tuple[Box2D, Time]:
        """Return the box around a click in the image, and the stamp of the image.

        Args:
            point: ``geometry_msgs/Point`` in pixels of the image, as rqt_image_view publishes it.

        Raises:
            ClickError: There is no image yet (``CLICK_NO_IMAGE``).
            BoxError: The point is outside the image.
        """
        image = self._newest()
        return self._around(float(point.x) / image.image_width, float(point.y) / image.image_height, image)

    def in_space(self, point: Any) -> tuple[Box2D, Time]:
        """Return the box around a click on something in space, and the stamp of the image.

        Args:
            point: ``geometry_msgs/PointStamped`` [m], as rviz and Foxglove publish it: in the fixed frame of the view.

        Raises:
            ClickError: There is no image (``CLICK_NO_IMAGE``) or calibration (``CLICK_NO_CALIBRATION``) yet, the point
                is not in the camera's frame (``CLICK_FRAME``), or behind the camera (``CLICK_BEHIND``).
            BoxError: The camera does not see the point.
        """
        image = self._newest()
        with self._lock:
            info = self._info
        if info is None or not is_calibrated(info.k, info.width, info.height):
            raise ClickError("the camera_info of the camera has not come, or is empty", code="CLICK_NO_CALIBRATION")
        own = image.header.frame_id
        if point.header.frame_id.lstrip("/") != own.lstrip("/"):
            raise ClickError(
                f"the click is in the frame {point.header.frame_id!r}, and the camera in {own!r}; make that the fixed "
                f"frame of rviz (at launch: fixed_frame:={own})",
                code="CLICK_FRAME",
            )
        x, y, z = (float(value) for value in (point.point.x, point.point.y, point.point.z))
        if not z > 0:
            raise ClickError(f"the point at z = {z:g} m is not in front of the camera", code="CLICK_BEHIND")
        column, row = info.k[0] * x / z + info.k[2], info.k[4] * y / z + info.k[5]
        return self._around(column / info.width, row / info.height, image)

    def _newest(self) -> TrackedObjectArray:
        with self._lock:
            if self._image is None:
                raise ClickError(
                    "the tracker has not looked at an image yet; wait for the first", code="CLICK_NO_IMAGE"
                )
            return self._image

    @staticmethod
    def _around(x: float, y: float, image: TrackedObjectArray) -> tuple[Box2D, Time]:
        width, height = image.image_width, image.image_height
        return box_to_message(box_at(x, y, width, height), width, height), image.header.stamp
