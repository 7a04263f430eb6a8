"""Depth image messages to arrays, and calibrations to cameras. Pure functions; nothing in a message is trusted."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ElysiumError, printable
from elysium_core.frames import MAX_PIXELS
from elysium_ros.perception.depth import Pinhole

# The type of a pixel, and the metres of its unit (REP-118). Some drivers call millimetres mono16.
_ENCODINGS: Final[dict[str, tuple[type[np.generic], float]]] = {
    "16UC1": (np.uint16, 0.001),
    "mono16": (np.uint16, 0.001),
    "32FC1": (np.float32, 1.0),
}


class DepthError(ElysiumError):
    """A depth image, or its calibration, cannot be used."""

    code = "DEPTH_SHAPE"


def depth_pixels(message: Any, scale: float = 0.0) -> tuple[NDArray[Any], float]:
    """Return the pixels of a depth image as they are, and the metres of their unit; nothing is copied if possible.

    Args:
        message: A ``sensor_msgs/Image`` of encoding ``16UC1`` or ``32FC1``, from rclpy or from a bag reader.
        scale: Metres a unit; 0 = by the encoding: millimetres for integers, metres for floats.

    Returns:
        Depths, uint16 or float32, shape (height, width), and metres a unit.

    Raises:
        DepthError: ``DEPTH_ENCODING`` another encoding; ``DEPTH_SHAPE`` the numbers contradict each other or the data.
    """
    known = _ENCODINGS.get(message.encoding) if isinstance(message.encoding, str) else None
    if known is None:
        raise DepthError(
            f"depth of the encoding {printable(str(message.encoding), 32)!r} cannot be read; "
            "publish 16UC1 (millimetres) or 32FC1 (metres)",
            code="DEPTH_ENCODING",
        )
    dtype, metres = np.dtype(known[0]), scale or known[1]
    height, width, step, size = int(message.height), int(message.width), int(message.step), len(message.data)
    shape = f"a depth image of {width}x{height} px, encoding {message.encoding}, step {step}, {size} bytes"
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise DepthError(f"{shape} has no pixels, or more than {MAX_PIXELS}")
    if step < width * dtype.itemsize or step * height != size:
        raise DepthError(f"{shape} needs a step of {width * dtype.itemsize} and as many rows of data as its height")
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(height, step)[:, : width * dtype.itemsize]
    pixels = np.require(rows, requirements=["C", "A"]).view(dtype)
    return (pixels.byteswap() if bool(message.is_bigendian) != (sys.byteorder == "big") else pixels), metres


def pinhole(info: Any) -> Pinhole:
    """Return the camera of a calibration; distortion is left out.

    Args:
        info: A ``sensor_msgs/CameraInfo``. A region of interest is the image that is sent.

    Raises:
        DepthError: It is empty, as that of an uncalibrated camera (``DEPTH_CALIBRATION``).
    """
    fx, fy, cx, cy = (float(info.k[place]) for place in (0, 4, 2, 5))
    width, height = int(info.roi.width or info.width), int(info.roi.height or info.height)
    if not (width > 0 and height > 0 and 0 < fx < np.inf and 0 < fy < np.inf and np.isfinite(cx + cy)):
        raise DepthError(
            f"the calibration of {width}x{height} px with focal lengths {fx:g} and {fy:g} is not one; "
            "calibrate the camera, or remap depth/camera_info",
            code="DEPTH_CALIBRATION",
        )
    return Pinhole(fx / width, fy / height, (cx - info.roi.x_offset) / width, (cy - info.roi.y_offset) / height)
