"""Single pictures: reading, writing and scaling."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from elysium_core.errors import ImageError
from elysium_core.frames import MAX_PIXELS, Frame
from elysium_core.io.files import atomic_path, lfs_pointer

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})
"""Endings of picture files."""

# Pillow also opens formats that start other programs (EPS) or hold many pictures.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")


Size = tuple[int, int]
"""Width and height [px]."""

# The EXIF tag of the orientation, and the orientations that exchange width and height.
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
# Annotations round: sides of one shape may differ by this share.
_SHAPE_TOLERANCE = 0.02
_LONGEST_NAME = 200


def read_image(path: str | PathLike[str], annotated: Size | None = None) -> NDArray[np.uint8]:
    """Read a picture and rotate it upright according to its EXIF orientation.

    Args:
        path: A JPEG, PNG, BMP, WebP or PPM file, recognised by its content, not its ending.
        annotated: Width and height that an annotation of the picture states [px]. If the picture has this shape as
            it is stored, it is not rotated, because the boxes are those of the stored picture.

    Returns:
        RGB, uint8, shape (height, width, 3). Transparency is dropped, 16 bits become 8.

    Raises:
        ImageError: The file is missing, of another format or damaged, the picture is larger than
            :data:`~elysium_core.frames.MAX_PIXELS`, or has another shape than annotated (``IMG_SIZE``).
    """
    path = Path(path)
    if not is_file(path):
        raise ImageError(f"there is no image file {str(path)[:_LONGEST_NAME]!r}", code="IMG_MISSING")
    return _read(path, repr(str(path)), annotated)


def is_file(path: str | PathLike[str]) -> bool:
    """Return whether there is such a file; False for a name that no file can have."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def decode_image(content: bytes, name: str, annotated: Size | None = None) -> NDArray[np.uint8]:
    """Decode the content of a picture file, as :func:`read_image` does.

    Args:
        content: The bytes of the file.
        name: Where it is from, for messages.
        annotated: See :func:`read_image`.
    """
    return _read(io.BytesIO(content), name, annotated)


def image_size(path: str | PathLike[str], annotated: Size | None = None) -> Size:
    """Return the width and height [px] of what :func:`read_image` returns, from the header alone.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    name = repr(str(path))
    with _opened(Path(path), name) as picture:
        turned = picture.getexif().get(_ORIENTATION) in _TURNED and not _is_as_stored(picture, name, annotated)
        return (picture.height, picture.width) if turned else picture.size


def from_pil(picture: Image.Image) -> NDArray[np.uint8]:
    """Return an opened picture as :func:`read_image` returns one.

    Raises:
        ImageError: Its file is damaged, it has more than :data:`~elysium_core.frames.MAX_PIXELS`, or its pixels are
            floating point numbers.
    """
    name = f"of PIL ({picture.mode}, {picture.width}x{picture.height} px)"
    with _image_errors(name):
        _check_size(name, picture.width, picture.height)
        return as_rgb(ImageOps.exif_transpose(picture))


def _read(source: Path | io.BytesIO, name: str, annotated: Size | None) -> NDArray[np.uint8]:
    with _opened(source, name) as picture:
        return as_rgb(picture if _is_as_stored(picture, name, annotated) else ImageOps.exif_transpose(picture))


@contextmanager
def _opened(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Open a picture; errors of the block, which decodes it, become an ImageError, too."""
    with _image_errors(name):
        try:
            with Image.open(source, formats=_FORMATS) as picture:
                _check_size(name, picture.width, picture.height)
                yield picture
        except UnidentifiedImageError as error:
            if isinstance(source, Path) and lfs_pointer(source):
                raise ImageError(
                    f"{name} is a Git LFS pointer, not the image; run git lfs pull", "IMG_DECODE"
                ) from error
            raise ImageError(f"{name} is not a JPEG, PNG, BMP, WebP or PPM image", code="IMG_DECODE") from error


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises while it reads a picture into an ImageError."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, "more") from error
    except (OSError, SyntaxError, ValueError, OverflowError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"image {name} cannot be read: {error}", code="IMG_DECODE") from error


def _is_as_stored(picture: Image.Image, name: str, annotated: Size | None) -> bool:
    """Return whether an annotation is of the picture as it is stored, so that it must not be rotated."""
    if annotated is None:
        return False
    turned = picture.getexif().get(_ORIENTATION) in _TURNED
    if _same_shape(picture.size, annotated):
        return True
    if turned and _same_shape(picture.size[::-1], annotated):
        return False
    raise ImageError(
        f"image {name} has {picture.width}x{picture.height} px, but its annotation is of one of "
        f"{annotated[0]}x{annotated[1]} px; it is another image",
        code="IMG_SIZE",
    )


def _same_shape(size: Size, annotated: Size) -> bool:
    """Return whether two sizes are of one shape: the picture may be a scaled copy of the annotated one."""
    if min(annotated) < 1:
        return False
    across, down = size[0] / annotated[0], size[1] / annotated[1]
    # A rounded side of a small picture is half a pixel off.
    tolerance = _SHAPE_TOLERANCE + 0.5 / min(*size, *annotated)
    return abs(across - down) <= tolerance * max(across, down)


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


def as_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """Convert an opened picture to RGB, uint8, shape (height, width, 3); 16 bits become 8, transparency is dropped."""
    if picture.mode == "F":
        raise ValueError("its pixels are floating point numbers; convert it to 8 or 16 bits")
    if picture.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255 instead of scaling them.
        gray = (np.asarray(picture).clip(0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.array(picture.convert("RGB"))


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width}x{height}")


def _too_large(name: str, size: str) -> ImageError:
    return ImageError(
        f"image {name} has {size} px, over the limit of {MAX_PIXELS} px; scale it down first",
        code="IMG_TOO_LARGE",
    )
