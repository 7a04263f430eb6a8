"""Image messages to RGB pixels, by cv_bridge where it is installed, else by :mod:`elysium_core.io.image_message`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.io import image_message
from elysium_core.io.image_message import SUPPORTED_ENCODINGS, compressed_to_rgb

__all__ = ["SUPPORTED_ENCODINGS", "compressed_to_rgb", "decode_image", "image_to_rgb"]


def decode_image(message: Any) -> NDArray[np.uint8]:
    """Decode an image message, raw or compressed; see :func:`elysium_core.io.image_message.decode_image_message`."""
    return image_message.decode_image_message(message, _cv_bridge())


def image_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Convert an image message to RGB; see :func:`elysium_core.io.image_message.image_to_rgb`."""
    return image_message.image_to_rgb(message, _cv_bridge())


@lru_cache(maxsize=1)
def _cv_bridge() -> image_message.Converter | None:
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):
        # Not installed, or built for another numpy (which shows as either error).
        return None
    bridge = CvBridge()
    return lambda message: np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"), dtype=np.uint8)
