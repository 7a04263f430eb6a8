"""The index of a photo collection: names of files and annotated objects as columns, no pixels.

Shapes: P photos, M objects on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.photo_records import PhotoObject, PhotoRecord
from elysium_core.geometry import Box

_DIFFICULT, _TRUNCATED = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Every annotated object, as arrays, in order of their photos.

    Attributes:
        photo: (M,) int32, index of its photo.
        name: (M,) int32, index of its name in :attr:`PhotoIndex.names`.
        box: (M, 4) float32, x1 y1 x2 y2 as fractions of the photo.
        flags: (M,) uint8, bits for difficult and truncated.
        score: (M,) float32, 0..1.
    """

    photo: NDArray[np.int32]
    name: NDArray[np.int32]
    box: NDArray[np.float32]
    flags: NDArray[np.uint8]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.photo)

    @property
    def area(self) -> NDArray[np.float32]:
        """(M,) area as a fraction of the photo."""
        return np.asarray((self.box[:, 2] - self.box[:, 0]) * (self.box[:, 3] - self.box[:, 1]), np.float32)

    @property
    def is_difficult(self) -> NDArray[np.bool_]:
        """(M,) whether the annotators call it hard to recognise."""
        return np.asarray(self.flags & _DIFFICULT > 0)

    @property
    def is_truncated(self) -> NDArray[np.bool_]:
        """(M,) whether a part of it is outside the photo or hidden."""
        return np.asarray(self.flags & _TRUNCATED > 0)

    def box_of(self, row: int) -> Box:
        """Box of an object."""
        x1, y1, x2, y2 = (float(value) for value in self.box[row])
        return Box(x1, y1, x2, y2)

    def of_photos(self, keep: NDArray[np.bool_]) -> ObjectTable:
        """The objects of the photos that are kept, (P,), which are numbered anew."""
        numbers = np.asarray(np.cumsum(keep) - 1, np.int32)
        rows = keep[self.photo]
        return ObjectTable(
            numbers[self.photo[rows]], self.name[rows], self.box[rows], self.flags[rows], self.score[rows]
        )


@dataclass(frozen=True, slots=True, eq=False)
class PhotoIndex:
    """The photos of a collection, in a fixed order.

    Attributes:
        paths: P files.
        keys: P paths relative to the folders of their data sets.
        categories: What each whole photo shows; empty if unknown.
        sizes: (P, 2) int32, annotated width and height [px]; zeros if not given.
        names: Names of objects.
        objects: The objects.
    """

    paths: tuple[str, ...]
    keys: tuple[str, ...]
    categories: tuple[str, ...]
    sizes: NDArray[np.int32]
    names: tuple[str, ...]
    objects: ObjectTable

    @classmethod
    def build(cls, records: Iterable[PhotoRecord]) -> PhotoIndex:
        """Gather records into columns."""
        files, sizes, boxes = [], [], []
        rows: list[tuple[int, int, int, float]] = []
        names: dict[str, int] = {}
        for photo, record in enumerate(records):
            files.append((str(record.path), record.key, record.category))
            sizes.append((record.width, record.height))
            for found in record.objects:
                flags = _DIFFICULT * found.difficult + _TRUNCATED * found.truncated
                rows.append((photo, names.setdefault(found.name, len(names)), flags, found.score))
                boxes.append(found.box.as_list())
        paths, keys, categories = zip(*files, strict=True) if files else ((), (), ())
        photos, named, flagged, scores = zip(*rows, strict=True) if rows else ((), (), (), ())
        table = ObjectTable(
            np.array(photos, np.int32),
            np.array(named, np.int32),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(flagged, np.uint8),
            np.array(scores, np.float32),
        )
        return cls(paths, keys, categories, np.array(sizes, np.int32).reshape(-1, 2), tuple(names), table)

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, keep: NDArray[np.bool_]) -> PhotoIndex:
        """The photos that are kept, (P,)."""
        chosen = np.flatnonzero(keep)
        return PhotoIndex(
            tuple(self.paths[i] for i in chosen),
            tuple(self.keys[i] for i in chosen),
            tuple(self.categories[i] for i in chosen),
            self.sizes[chosen],
            self.names,
            self.objects.of_photos(keep),
        )

    def object_of(self, row: int) -> PhotoObject:
        """One row of the objects."""
        table = self.objects
        return PhotoObject(
            self.names[table.name[row]],
            table.box_of(row),
            bool(table.flags[row] & _DIFFICULT),
            bool(table.flags[row] & _TRUNCATED),
            float(table.score[row]),
        )
