"""Single pictures: reading, writing and scaling."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from elysium_core.errors import ImageError
from elysium_core.frames import MAX_PIXELS, Frame
from elysium_core.io.files import atomic_path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})
"""Endings of picture files."""

# Pillow also opens formats that start other programs (EPS) or hold many pictures.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")


def read_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read a picture and rotate it upright according to its EXIF orientation.

    Args:
        path: A JPEG, PNG, BMP, WebP or PPM file, recognised by its content, not its ending.

    Returns:
        RGB, uint8, shape (height, width, 3). Transparency is dropped, 16 bits become 8.

    Raises:
        ImageError: The file is missing, of another format or damaged, or the picture is
            larger than :data:`~elysium_core.frames.MAX_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"there is no image file {str(path)!r}", code="IMG_MISSING")
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            _check_size(path, picture.width, picture.height)
            return _as_rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise ImageError(f"{str(path)!r} is not a JPEG, PNG, BMP, WebP or PPM image", code="IMG_DECODE") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "more") from error
    except (OSError, SyntaxError, ValueError, OverflowError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"image {str(path)!r} cannot be read: {error}", code="IMG_DECODE") from error


def write_image(path: str | PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a picture in the format that the ending names (.png, .jpg, .webp ...).

    Raises:
        ImageError: ``image`` is not RGB uint8, the ending is unknown, or
            the file cannot be written.
    """
    path = Path(path)
    Frame(image)
    check_image_name(path)
    try:
        with atomic_path(path) as temporary:
            Image.fromarray(image).save(temporary, quality=92)
    except OSError as error:
        raise ImageError(f"cannot write {str(path)!r}: {error.strerror or error}", code="IMG_WRITE") from error


def check_image_name(path: Path) -> None:
    """Check that :func:`write_image` can write the format that ``path`` ends in.

    Raises:
        ImageError: The ending is unknown (``IMG_ENCODING``).
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ImageError(
            f"cannot write an image as {str(path)!r}; end it in one of {', '.join(sorted(IMAGE_SUFFIXES))}",
            code="IMG_ENCODING",
        )


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale an RGB uint8 picture to ``width`` x ``height`` px; the same array if it has that size already."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)


def _as_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255 instead of scaling them.
        gray = (np.asarray(picture).clip(0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width}x{height}")


def _too_large(path: Path, size: str) -> ImageError:
    return ImageError(
        f"image {str(path)!r} has {size} px, over the limit of {MAX_PIXELS} px; scale it down first",
        code="IMG_TOO_LARGE",
    )
