"""Image messages to RGB pixels: ``sensor_msgs/Image`` in many encodings, ``CompressedImage`` as JPEG or PNG.

The size, step, encoding and data of a message are not trusted: all of them are checked against each other before
memory is allocated. A compressed image is decoded only if its header announces an allowed size.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elysium_core.errors import ImageError, printable
from elysium_core.frames import MAX_PIXELS


@dataclass(frozen=True, slots=True)
class _Layout:
    """Memory layout of an encoding.

    Attributes:
        channels: Numbers a pixel.
        to_rgb: OpenCV conversion code, None if it is RGB already.
        bits: Bits a number, 8 or 16.
        even_width: Two columns share their colour.
        planar: 4:2:0 with the colour plane below the grey one (half as many rows again); two rows share their colour.
    """

    channels: int
    to_rgb: int | None
    bits: int = 8
    even_width: bool = False
    planar: bool = False


_RGB: Final = _Layout(3, None)
_BGR: Final = _Layout(3, cv2.COLOR_BGR2RGB)
_BGRA: Final = _Layout(4, cv2.COLOR_BGRA2RGB)
_MONO: Final = _Layout(1, cv2.COLOR_GRAY2RGB)
_MONO_16: Final = _Layout(1, cv2.COLOR_GRAY2RGB, 16)
_UYVY: Final = _Layout(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True)
_YUYV: Final = _Layout(2, cv2.COLOR_YUV2RGB_YUYV, even_width=True)

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two rows.
_BAYER: Final = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

_LAYOUTS: Final[dict[str, _Layout]] = {
    "rgb8": _RGB,
    "bgr8": _BGR,
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _BGRA,
    "rgb16": _Layout(3, None, 16),
    "bgr16": _Layout(3, cv2.COLOR_BGR2RGB, 16),
    "rgba16": _Layout(4, cv2.COLOR_RGBA2RGB, 16),
    "bgra16": _Layout(4, cv2.COLOR_BGRA2RGB, 16),
    "mono8": _MONO,
    "mono16": _MONO_16,
    # Encodings without a colour order have that of OpenCV.
    "8UC1": _MONO,
    "8UC3": _BGR,
    "8UC4": _BGRA,
    "16UC1": _MONO_16,
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv12": _Layout(1, cv2.COLOR_YUV2RGB_NV12, even_width=True, planar=True),
    "nv21": _Layout(1, cv2.COLOR_YUV2RGB_NV21, even_width=True, planar=True),
    **{f"bayer_{pattern}8": _Layout(1, code) for pattern, code in _BAYER.items()},
    **{f"bayer_{pattern}16": _Layout(1, code, 16) for pattern, code in _BAYER.items()},
}

SUPPORTED_ENCODINGS: Final = tuple(_LAYOUTS)
"""Encodings that :func:`image_to_rgb` takes."""

Converter = Callable[[Any], NDArray[np.uint8]]
"""Converts a ``sensor_msgs/Image`` to RGB, as cv_bridge does."""

# cv_bridge gives the same result for these. Its results for padded rows, 16 bits and planes depend on its version.
_BRIDGED: Final = frozenset(
    {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2", *(f"bayer_{p}8" for p in _BAYER)}
)

_TO_8_BIT: Final = (np.arange(65536) * (255.0 / 65535.0)).astype(np.uint8)


def decode_image_message(message: Any, convert: Converter | None = None) -> NDArray[np.uint8]:
    """Decode an image message, raw or compressed.

    Args:
        message: A ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``, from rclpy or from a bag reader.
        convert: See :func:`image_to_rgb`.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: See :func:`image_to_rgb` and :func:`compressed_to_rgb`.
    """
    try:
        return image_to_rgb(message, convert) if hasattr(message, "encoding") else compressed_to_rgb(message)
    except (MemoryError, OverflowError) as error:
        raise ImageError(f"there is not enough memory for the picture ({error})", code="IMG_TOO_LARGE") from error


def image_to_rgb(message: Any, convert: Converter | None = None) -> NDArray[np.uint8]:
    """Convert an image message to RGB.

    A message of type ``rgb8`` without padding is not copied: the result shares its memory.

    Args:
        message: A ``sensor_msgs/Image``, from rclpy or from a bag reader.
        convert: Converts the usual 8-bit encodings in place of this module; all checks are made before.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: ``IMG_ENCODING`` unknown encoding, ``IMG_SHAPE`` the numbers contradict each other or the
            data, ``IMG_TOO_LARGE`` more than :data:`elysium_core.frames.MAX_PIXELS`.
    """
    layout = _LAYOUTS.get(message.encoding) if isinstance(message.encoding, str) else None
    if layout is None:
        raise ImageError(
            f"encoding {printable(str(message.encoding), 32)!r} cannot be read as a colour picture; "
            "publish rgb8 or bgr8 instead",
            code="IMG_ENCODING",
        )
    height, width = _checked_size(message, layout)
    if convert is not None and message.encoding in _BRIDGED and message.step == width * layout.channels:
        return convert(message)
    pixels = _pixels(message, layout, height, width)
    return pixels if layout is _RGB else _convert(pixels, layout)


def _checked_size(message: Any, layout: _Layout) -> tuple[int, int]:
    """Return height and width [px] of the picture, after checking all numbers of the message against each other."""
    height, width, step, size = int(message.height), int(message.width), int(message.step), len(message.data)
    shape = f"an image of {width}x{height} px, encoding {message.encoding}, step {step}, {size} bytes"
    if height < 1 or width < 1:
        raise ImageError(f"{shape} has no pixels")
    if height * width > MAX_PIXELS:
        raise ImageError(f"{shape} is over the limit of {MAX_PIXELS} px; scale it down first", code="IMG_TOO_LARGE")
    row_bytes = width * layout.channels * layout.bits // 8
    if step < row_bytes:
        raise ImageError(f"{shape} needs a step of at least {row_bytes}")
    if layout.even_width and width % 2:
        raise ImageError(f"{shape} needs an even width")
    if layout.planar:
        height = _planar_height(shape, height, step, size)
    elif step * height != size:
        raise ImageError(f"{shape} needs {step * height} bytes of data")
    return height, width


def _planar_height(shape: str, height: int, step: int, size: int) -> int:
    # Drivers disagree whether `height` is that of the picture or of the buffer; the amount of data decides.
    if height % 2 == 0 and size == step * height * 3 // 2:
        return height
    if height % 3 == 0 and size == step * height:
        return height // 3 * 2
    raise ImageError(f"{shape} needs an even height and {step * height * 3 // 2} bytes of data")


def _pixels(message: Any, layout: _Layout, height: int, width: int) -> NDArray[Any]:
    """View the data as an array of native numbers without padding: (rows, width[, channels])."""
    rows = height * 3 // 2 if layout.planar else height
    row_bytes = width * layout.channels * layout.bits // 8
    buffer = np.frombuffer(message.data, dtype=np.uint8).reshape(rows, int(message.step))[:, :row_bytes]
    buffer = np.require(buffer, requirements=["C", "A"])
    pixels: NDArray[Any] = buffer
    if layout.bits == 16:
        pixels = buffer.view(np.uint16)
        if bool(message.is_bigendian) != (sys.byteorder == "big"):
            pixels = pixels.byteswap()
    return pixels.reshape(rows, width, layout.channels) if layout.channels > 1 else pixels


def _convert(pixels: NDArray[Any], layout: _Layout) -> NDArray[np.uint8]:
    try:
        rgb = pixels if layout.to_rgb is None else cv2.cvtColor(pixels, layout.to_rgb)
    except cv2.error as error:
        shape = "x".join(str(side) for side in pixels.shape[1::-1])
        raise ImageError(f"a picture of {shape} px cannot be converted to RGB ({error.err})") from error
    return _TO_8_BIT[rgb] if layout.bits == 16 else np.asarray(rgb, dtype=np.uint8)


# The bytes that end a JPEG, and how far before the end of the data they are searched: cameras pad what they send.
_JPEG_END = b"\xff\xd9"
_LONGEST_PADDING = 4096


def compressed_to_rgb(message: Any) -> NDArray[np.uint8]:
    """Decode a compressed image message to RGB.

    The format is recognised by the data; the ``format`` field is not used. An orientation in the file is ignored:
    boxes are in pixels of the image as sent.

    Args:
        message: A ``sensor_msgs/CompressedImage``, from rclpy or from a bag reader.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: ``IMG_DECODE`` not JPEG or PNG, or damaged; ``IMG_TOO_LARGE`` more than
            :data:`elysium_core.frames.MAX_PIXELS`.
    """
    data = memoryview(message.data).cast("B")
    width, height = _announced_size(data)
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        bgr = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise _damaged(f"cannot be decoded ({error.err})") from error
    if bgr is None:
        raise _damaged("cannot be decoded")
    if bgr.shape[:2] != (height, width):
        raise _damaged(f"has {width}x{height} px by its header but holds {bgr.shape[1]}x{bgr.shape[0]} px")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _announced_size(data: memoryview) -> tuple[int, int]:
    """Read width and height [px] from the header of a JPEG or PNG; no pixel is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            (width, height), is_png = picture.size, picture.format == "PNG"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("far more pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        head = printable(repr(bytes(data[:8])), 48)
        raise _damaged(f"has no valid JPEG or PNG header; it starts with {head}") from error
    if width < 1 or height < 1:
        raise _damaged(f"has {width}x{height} px by its header")
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width}x{height} px")
    # OpenCV fills the missing part of a cut JPEG with grey; a packet lost on the way must not become pixels.
    # Buffers of drivers are filled up with zeros, often many more than the picture has bytes.
    if not is_png and bytes(data).rstrip(b"\0")[-_LONGEST_PADDING:].rfind(_JPEG_END) < 0:
        raise _damaged("is a JPEG without its end")
    return width, height


def _damaged(what: str) -> ImageError:
    return ImageError(f"the compressed image {what}; send JPEG or PNG", code="IMG_DECODE")


def _too_large(size: str) -> ImageError:
    return ImageError(
        f"the compressed image has {size}, and the limit is {MAX_PIXELS} px; scale it down first", code="IMG_TOO_LARGE"
    )
