"""``sensor_msgs/CompressedImage`` to RGB: JPEG and PNG only, and never decoded before its size is known."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ImageError
from elysium_core.frames import MAX_PIXELS
from elysium_ros.guard import printable

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"

# Start-of-frame markers hold the size; C4, C8 and CC in that range mean something else.
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_SCAN = 0xDA


def compressed_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Decode a compressed image message to RGB.

    What the data is follows from its first bytes; the ``format`` field is not believed. An orientation stored in the
    file is ignored, as boxes are in pixels of the picture as sent.

    Args:
        message: A ``sensor_msgs/CompressedImage``, from rclpy or from a bag reader.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: ``IMG_DECODE`` not JPEG or PNG, or damaged; ``IMG_TOO_LARGE`` more than
            :data:`elysium_core.frames.MAX_PIXELS`.
    """
    data = memoryview(message.data).cast("B")
    width, height = compressed_size(data)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"a compressed image of {width}x{height} px is over the limit of {MAX_PIXELS} px; scale it down before",
            code="IMG_TOO_LARGE",
        )
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        bgr = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise _broken(f"cannot be decoded ({error.err})") from error
    if bgr is None:
        raise _broken("cannot be decoded")
    if bgr.shape[:2] != (height, width):
        raise _broken(f"says {width}x{height} px but holds {bgr.shape[1]}x{bgr.shape[0]} px")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def compressed_size(data: memoryview) -> tuple[int, int]:
    """Read width and height [px] of a JPEG or PNG from its header, without decoding.

    Raises:
        ImageError: It is neither, or its header is damaged.
    """
    head = bytes(data[:8])
    if head == _PNG_MAGIC:
        width, height = _png_size(data)
    elif head.startswith(_JPEG_MAGIC):
        width, height = _jpeg_size(data)
    else:
        raise _broken(f"starts with {printable(repr(head), 48)}, which is neither JPEG nor PNG")
    if width < 1 or height < 1:
        raise _broken(f"says {width}x{height} px")
    return width, height


def _png_size(data: memoryview) -> tuple[int, int]:
    header = bytes(data[8:24])
    if len(header) < 16 or header[4:8] != b"IHDR":
        raise _broken("is a PNG without a header")
    return int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    # A cut JPEG decodes to a picture with a grey rest; a camera's packet lost on the way must not become pixels.
    if bytes(data[-4096:]).rfind(_JPEG_END) < 0:
        raise _broken("is a JPEG without its end")
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _MARKERS_WITHOUT_LENGTH:
            position += 2
        elif marker in _SIZE_MARKERS:
            return _uint16(data, position + 7), _uint16(data, position + 5)
        elif marker == _START_OF_SCAN:
            break
        else:
            position += 2 + max(2, _uint16(data, position + 2))
    raise _broken("is a JPEG without a size")


def _uint16(data: memoryview, position: int) -> int:
    return int.from_bytes(data[position : position + 2], "big")


def _broken(what: str) -> ImageError:
    return ImageError(f"the compressed image {what}; send JPEG or PNG", code="IMG_DECODE")
