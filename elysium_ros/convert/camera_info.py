"""What a camera driver publishes, made from an RGB picture: pure functions from arrays to messages."""

from __future__ import annotations

import array
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from elysium_core.errors import ImageError
from elysium_ros.convert.messages import ns_to_stamp


def header_at(stamp_ns: int, frame_id: str) -> Header:
    """Build a header.

    Args:
        stamp_ns: Time [ns], >= 0.
        frame_id: The camera's optical frame.
    """
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def image_message(rgb: NDArray[np.uint8], header: Header) -> Image:
    """Build an ``rgb8`` image.

    Args:
        rgb: RGB, uint8, shape (height, width, 3).
        header: Header of the message; shared, not copied.
    """
    height, width = rgb.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.data = _as_array(rgb)
    return message


def jpeg_message(rgb: NDArray[np.uint8], header: Header, quality: int = 90) -> CompressedImage:
    """Build a JPEG image.

    Args:
        rgb: RGB, uint8, shape (height, width, 3).
        header: Header of the message; shared, not copied.
        quality: 1..100.

    Raises:
        ImageError: The picture is too large for JPEG (65,500 px a side).
    """
    if max(rgb.shape[:2]) > 65_500:
        raise ImageError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} px does not fit JPEG; publish it raw or smaller")
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    # The format that image_transport writes: original encoding, then what the JPEG holds.
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = _as_array(np.asarray(jpeg, dtype=np.uint8))
    return message


def made_up_camera_info(width: int, height: int, fov_deg: float, header: Header) -> CameraInfo:
    """Build the calibration of an ideal pinhole camera.

    Nothing is known about the camera that took a video: square pixels, no
    distortion and a centred optical axis are assumed, and the field of view is the
    caller's guess. Good for markers, not for measuring.

    Args:
        width: Image width [px].
        height: Image height [px].
        fov_deg: Horizontal field of view [deg], in (0, 180).
        header: Header of the message; shared, not copied.
    """
    focal_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    center_x, center_y = width / 2, height / 2
    info = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal_px, 0.0, center_x, 0.0, focal_px, center_y, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal_px, 0.0, center_x, 0.0, 0.0, focal_px, center_y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def resize(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a picture.

    Args:
        rgb: RGB, uint8, shape (H, W, 3).
        width: Wanted width [px]; 0 = in proportion to ``height``.
        height: Wanted height [px]; 0 = in proportion to ``width``.

    Returns:
        RGB, shape (height, width, 3); ``rgb`` itself when nothing changes.
    """
    own_height, own_width = rgb.shape[:2]
    width_px = width or (max(1, round(own_width * height / own_height)) if height else own_width)
    height_px = height or (max(1, round(own_height * width / own_width)) if width else own_height)
    if (width_px, height_px) == (own_width, own_height):
        return rgb
    smaller = width_px * height_px < own_width * own_height
    scaled = cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return scaled.astype(np.uint8, copy=False)


def _as_array(pixels: NDArray[np.uint8]) -> array.array[int]:
    # rclpy takes an array.array as it is; a numpy array or bytes would be converted number by number.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data
