"""DAVIS: frames ``JPEGImages/480p/<seq>/00000.jpg`` and masks ``Annotations/480p/<seq>/00000.png``.

Masks are 0/255 (DAVIS-2016, one object) or have one number for each object (DAVIS-2017). A
target's box is the tight box around its pixels: x is the first column, w the number of
columns. In a frame without its pixels the target is absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elysium_core.data.readers.annotation_files import Skip, read_text, usable
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, subfolders
from elysium_core.errors import DataError

_SINGLE_OBJECT = 255


def read_davis(
    root: Path, split: str = "val", skip: Skip | None = None, resolution: str = "480p"
) -> Iterator[LabelledRecording]:
    """Yield one recording for each object of each sequence.

    Args:
        root: The folder of ``JPEGImages`` and ``Annotations``.
        split: Name of a list ``ImageSets/{2016,2017,480p}/<split>.txt``; without one, all sequences are read.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.
        resolution: Name of the subfolders with frames and masks.

    Raises:
        DataError: Masks or frames are missing or damaged, or differ in number.
    """
    masks = root / "Annotations" / resolution
    names = _listed(root, split) or [folder.name for folder in subfolders(masks)]
    frames = root / "JPEGImages" / resolution
    yield from chain.from_iterable(usable(names, lambda name: _recordings(frames / name, masks / name), skip))


def _listed(root: Path, split: str) -> list[str]:
    """Return the names in the split's list, which has one name a line, or pairs of paths in DAVIS-2016."""
    for folder in ("2017", "2016", "480p"):
        path = root / "ImageSets" / folder / f"{split}.txt"
        if path.is_file():
            words = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
            return list(dict.fromkeys(word.split("/")[-2] if "/" in word else word for word in words))
    return []


def _recordings(frames: Path, masks: Path) -> list[LabelledRecording]:
    mask_files = [masks / name for name in list_pictures(masks)]
    labels = _read_mask(mask_files[0])
    objects = [int(value) for value in np.unique(labels) if value > 0]
    if not objects:
        raise DataError(f"{str(mask_files[0])!r} marks no object in the first frame")
    boxes = _boxes(mask_files, objects)
    source = PictureFrames(frames, list_pictures(frames), (labels.shape[1], labels.shape[0]))
    names = [f"{frames.name}.{number}" for number in range(1, len(objects) + 1)]
    names = [frames.name] if objects == [_SINGLE_OBJECT] else names
    return [LabelledRecording(name, source, boxes[value], masks) for name, value in zip(names, objects, strict=True)]


def _boxes(mask_files: list[Path], objects: list[int]) -> dict[int, NDArray[np.float64]]:
    boxes = {value: np.full((len(mask_files), 4), np.nan) for value in objects}
    for index, path in enumerate(mask_files):
        labels = _read_mask(path)
        for value in objects:
            boxes[value][index] = tight_box(labels == value)
    return boxes


def tight_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return ``x, y, w, h`` [px] of the tight box around a mask of shape (height, width); NaN if it is empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if len(columns) == 0:
        return (np.nan, np.nan, np.nan, np.nan)
    x, y = columns[0], rows[0]
    return float(x), float(y), float(columns[-1] - x + 1), float(rows[-1] - y + 1)


def _read_mask(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            labels = np.asarray(picture if picture.mode in ("P", "L") else picture.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"mask {str(path)!r} cannot be read: {error}") from error
    return labels.astype(np.uint8)
