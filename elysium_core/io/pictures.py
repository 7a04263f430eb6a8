"""Pictures in the forms in which people have them: frames, arrays, PIL images, paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elysium_core.errors import ImageError
from elysium_core.frames import Frame, is_address
from elysium_core.io.image import from_pil, is_file
from elysium_core.io.live_stream import without_password
from elysium_core.io.video import read_picture


def as_frames(images: object) -> list[Frame]:
    """Return one picture, or several, as frames.

    Args:
        images: A :class:`~elysium_core.frames.Frame`, an RGB uint8 array (height, width, 3), a PIL image, the path of
            a picture of any kind that the command line reads, or several of those; an array (N, height, width, 3) is
            N of them.

    Returns:
        At least one frame; those that were none are numbered from 0.

    Raises:
        ImageError: There is no picture, one cannot be read or is no RGB picture, or it is the address of one
            (``IMG_ADDRESS``).
    """
    single = isinstance(images, Frame | str | bytes | PathLike) or getattr(images, "ndim", 4) != 4
    several: list[object] = list(images) if isinstance(images, Iterable) and not single else [images]
    if not several:
        raise ImageError("there is no frame; give at least one image or frame")
    return [each if isinstance(each, Frame) else Frame(_pixels(each), index=i) for i, each in enumerate(several)]


def _pixels(picture: Any) -> Any:
    """Return the array of a PIL image or of a picture file; anything else as it is, for :class:`Frame` to judge."""
    if isinstance(picture, Image.Image):
        return from_pil(picture)
    if isinstance(picture, str) and is_address(picture) and not is_file(picture):
        raise ImageError(
            f"{without_password(picture)!r} is an address, and nothing is downloaded here; save the picture to a file "
            "and give its path",
            code="IMG_ADDRESS",
        )
    return _read(os.fsdecode(picture)) if isinstance(picture, str | PathLike) else picture


def _read(path: str) -> NDArray[np.uint8]:
    try:
        return read_picture(path)
    except ImageError as error:
        if error.code != "IMG_DECODE":
            raise
        raise ImageError(
            f"{error}; the frames of a video are read with elysium_core.io.video.open_video(path)", code=error.code
        ) from error
