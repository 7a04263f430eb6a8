"""A collection of photos: an index in memory, pictures read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.photo_folders import PACKAGED_PHOTOS, read_photos
from elysium_core.data.photos.photo_index import ObjectTable, PhotoIndex
from elysium_core.data.photos.photo_records import PhotoObject, PhotoRecord, is_held_out
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.errors import DataError, ImageError
from elysium_core.io.image import read_image, resized

LONGEST_SIDE_PX = 512
"""Larger pictures are shrunk to this when they are read: crops of training are 64 to 128 px."""

_LEAST_SIDE_PX = 32
_MOST_TRIES = 100
# A copy at another resolution has the same shape up to the rounding of its shorter side.
_SHAPE_TOLERANCE_PX = 1.0


class PhotoSet:
    """Photos in a fixed order. Unreadable ones are found out when they are read, and counted.

    Args:
        index: The photos.
        report: Where unreadable pictures are counted.

    Raises:
        DataError: There is no photo.
    """

    def __init__(self, index: PhotoIndex, report: PhotoReport) -> None:
        if not len(index):
            raise DataError("there is no photo to train on; name a folder of photos, see docs/data.md")
        self.report = report
        self._index = index
        self._first_object = np.searchsorted(index.objects.photo, np.arange(len(index) + 1))
        self._unusable: set[int] = set()

    @classmethod
    def of(cls, records: Iterable[PhotoRecord]) -> PhotoSet:
        """Index photos.

        Raises:
            DataError: There is none.
        """
        return cls(PhotoIndex.build(records), PhotoReport())

    @classmethod
    def open(cls, folders: Sequence[Path], teachers: Sequence[Path | None] = ()) -> PhotoSet:
        """Index the photos of several folders, in any layout of :func:`read_photos`.

        Args:
            folders: The folders.
            teachers: For each folder, JSON lines with a teacher's boxes, or None; may be shorter.

        Raises:
            DataError: A folder is missing or empty, or a teacher's file is about other pictures.
        """
        report = PhotoReport()
        padded = [*teachers, *[None] * (len(folders) - len(teachers))]
        sources = [read_photos(folder, report, teacher) for folder, teacher in zip(folders, padded, strict=True)]
        return cls(PhotoIndex.build(record for source in sources for record in source), report)

    @classmethod
    def packaged(cls) -> PhotoSet:
        """The few photos that ship with the package: for tests and demonstrations, never for training."""
        return cls.open([PACKAGED_PHOTOS])

    def __len__(self) -> int:
        return len(self._index)

    @property
    def objects(self) -> ObjectTable:
        """All annotated objects."""
        return self._index.objects

    @property
    def names(self) -> tuple[str, ...]:
        """Names of objects; :attr:`ObjectTable.name` counts them."""
        return self._index.names

    def part(self, *, held_out: bool) -> PhotoSet:
        """The photos that are kept for validation, or those that are trained on. Shares the report.

        Raises:
            DataError: There is none.
        """
        keep = np.array([is_held_out(key) is held_out for key in self._index.keys], bool)
        if not keep.any():
            which = "held out" if held_out else "to train on"
            raise DataError(f"of {len(self)} photos none is {which}; one in twenty is held out, so give more photos")
        return PhotoSet(self._index.part(keep), self.report)

    def key(self, index: int) -> str:
        """Path of a photo relative to its folder."""
        return self._index.keys[index]

    def category(self, index: int) -> str:
        """What the whole photo shows; empty if unknown."""
        return self._index.categories[index]

    def rows_of(self, index: int) -> range:
        """Rows of :attr:`objects` that belong to a photo."""
        return range(int(self._first_object[index]), int(self._first_object[index + 1]))

    def objects_of(self, index: int) -> list[PhotoObject]:
        """The annotated objects of a photo."""
        return [self._index.object_of(row) for row in self.rows_of(index)]

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """Read a photo, its longer side at most :data:`LONGEST_SIDE_PX`.

        Returns:
            RGB uint8 (H, W, 3); None if it cannot be used, which is counted in the report.
        """
        if index in self._unusable:
            return None
        image = self._checked(index)
        if image is None:
            self._unusable.add(index)
        return image

    def draw(self, rng: np.random.Generator) -> tuple[int, NDArray[np.uint8]]:
        """Draw a readable photo: its index and pixels.

        Raises:
            DataError: A hundred photos in a row cannot be read.
        """
        for _ in range(_MOST_TRIES):
            index = int(rng.integers(len(self)))
            image = self.read(index)
            if image is not None:
                return index, image
        raise DataError(f"{_MOST_TRIES} photos in a row cannot be used ({self.report})")

    def _checked(self, index: int) -> NDArray[np.uint8] | None:
        path = self._index.paths[index]
        try:
            image = read_image(path)
        except ImageError as error:
            self.report.skip(Skipped.MISSING if error.code == "IMG_MISSING" else Skipped.UNREADABLE, path)
            return None
        height, width = image.shape[:2]
        if min(height, width) < _LEAST_SIDE_PX:
            self.report.skip(Skipped.SMALL, path)
            return None
        annotated_width, annotated_height = (int(side) for side in self._index.sizes[index])
        if not _same_shape(width, height, annotated_width, annotated_height):
            self.report.skip(Skipped.OTHER_SIZE, path)
            return None
        scale = LONGEST_SIDE_PX / max(height, width)
        return resized(image, round(width * scale), round(height * scale)) if scale < 1 else image


def _same_shape(width: int, height: int, annotated_width: int, annotated_height: int) -> bool:
    """Whether boxes in fractions of the annotated picture fit: it may be a copy at another resolution."""
    if not annotated_width or not annotated_height:
        return True
    scale = width / annotated_width
    return abs(annotated_height * scale - height) <= _SHAPE_TOLERANCE_PX * max(1.0, scale)
