"""Whole frames with named objects, made of annotated photos: the photo itself, a part of it, or several side by side.

Only photos with annotated objects are used. All objects of the known names must be annotated in them, because a name
that is not annotated counts as absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.photometry import CameraSettings, draw_camera
from elysium_core.errors import DataError

OTHER_NAME = -1
"""Number of a name that is not one of the known ones."""

_WHOLE_SHARE, _PART_SHARE = 0.22, 0.48
_HALVES_SHARE = 0.5
_CAMERA_SHARE = 0.45
_NEAR_OBJECT_SHARE = 0.8
_PART, _TILE = (0.4, 1.5), (0.6, 1.15)
_SPLIT = (0.33, 0.67)
# Photos of rare names are drawn a little more often; those without a known name hardly ever, as a share of the others.
_RARITY_POWER, _NAMELESS_SHARE = -0.4, 0.03
# Of an object cut by the edge of the picture: below the first it is gone, below the second too little to be asked for.
_GONE_BELOW, _USABLE_FROM = 0.06, 0.35
_LEAST_SIDE = 0.04
_SHRINK_BELOW = 0.6
_USUAL_CAMERA = CameraSettings()


@dataclass(frozen=True, slots=True, eq=False)
class FrameView:
    """A picture and its objects.

    Attributes:
        image: (S, S, 3) uint8 RGB; the frame is stretched to a square, as the model sees it.
        names: (M,) int64, numbers of the names; OTHER_NAME for a name that is not known.
        boxes: (M, 4) float32, x1, y1, x2, y2 in 0..1.
        is_usable: (M,) bool; the others are difficult, hardly visible or very small: neither asked for nor absent.
    """

    image: NDArray[np.uint8]
    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    is_usable: NDArray[np.bool_]


class FrameViews:
    """Draws views.

    Args:
        photos: Annotated photos; those without objects are not used.
        names: The known names. Case and blanks do not count: "diningtable" in the photos is "dining table".
        side_px: S.
        camera: What some of the views are taken with.

    Raises:
        DataError: No photo has an object of a known name.
    """

    def __init__(
        self, photos: PhotoSet, names: Sequence[str], side_px: int, camera: CameraSettings = _USUAL_CAMERA
    ) -> None:
        self._photos, self._side_px, self._camera = photos, side_px, camera
        numbers = {_plain(name): number for number, name in enumerate(names)}
        table = photos.objects
        known = np.array([numbers.get(_plain(name), OTHER_NAME) for name in photos.names], np.int64)
        self._name = known[table.name] if len(table) else np.zeros(0, np.int64)
        self._annotated = np.unique(table.photo)
        if not (self._name != OTHER_NAME).any():
            raise DataError(f"no photo has an annotated object of the names {', '.join(names)}")
        pairs = np.unique(np.stack([table.photo, self._name], 1)[self._name != OTHER_NAME], axis=0)
        self.counts = np.bincount(pairs[:, 1], minlength=len(names)).astype(np.int64)
        """(V,) number of photos that show each name."""
        self._chance = self._chances(pairs)

    def _chances(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each annotated photo is drawn, of the pairs of photos and names that they show."""
        rarity = self.counts[pairs[:, 1]].astype(float) ** _RARITY_POWER
        total, seen = np.zeros(len(self._photos)), np.zeros(len(self._photos))
        np.add.at(total, pairs[:, 0], rarity)
        np.add.at(seen, pairs[:, 0], 1)
        weight = total / seen.clip(1)
        weight[seen == 0] = _NAMELESS_SHARE * weight[seen > 0].mean()
        return np.asarray(weight[self._annotated] / weight[self._annotated].sum(), np.float64)

    def __len__(self) -> int:
        """Number of annotated photos."""
        return len(self._annotated)

    def whole(self, number: int) -> FrameView | None:
        """The annotated photo with this number as it is; None if it cannot be read."""
        index = int(self._annotated[number])
        image = self._photos.read(index)
        return None if image is None else self._cut(image, self._objects(index), (0.0, 0.0, 1.0, 1.0), (0, 0, 0))

    def draw(self, seed: int, number: int) -> FrameView:
        """The view with this number of a seed; the same on every machine."""
        rng = np.random.default_rng([seed, number])
        image, objects = self._photo(rng)
        fill = tuple(image.mean((0, 1))) if rng.random() < 0.5 else tuple(rng.uniform(0, 255, 3))
        kind = rng.random()
        if kind < _WHOLE_SHARE:
            view = self._cut(image, objects, (0.0, 0.0, 1.0, 1.0), fill)
        elif kind < _WHOLE_SHARE + _PART_SHARE:
            view = self._cut(image, objects, _window(rng, objects, *_PART), fill)
        else:
            view = self._mosaic(rng, image, objects, fill)
        view = _mirrored(view) if rng.random() < 0.5 else view
        if rng.random() >= _CAMERA_SHARE:
            return view
        picture = draw_camera(rng, self._camera, self._side_px).apply(view.image, rng)
        return FrameView(picture, view.names, view.boxes, view.is_usable)

    def _photo(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], _Objects]:
        """A readable photo, drawn by its chance."""
        for _ in range(100):
            index = int(self._annotated[rng.choice(len(self._annotated), p=self._chance)])
            image = self._photos.read(index)
            if image is not None:
                return image, self._objects(index)
        raise DataError(f"100 annotated photos in a row cannot be used ({self._photos.report})")

    def _objects(self, index: int) -> _Objects:
        table, rows = self._photos.objects, self._photos.rows_of(index)
        part = slice(rows.start, rows.stop)
        return _Objects(self._name[part], table.box[part], ~table.is_difficult[part])

    def _cut(
        self,
        image: NDArray[np.uint8],
        objects: _Objects,
        window: tuple[float, float, float, float],
        fill: tuple[float, ...],
        size: tuple[int, int] | None = None,
    ) -> FrameView:
        """A window (left, top, width, height in fractions; may reach beyond the photo) as a picture of a size [px]."""
        left, top, width, height = window
        out_width, out_height = size or (self._side_px, self._side_px)
        scale = min(out_width / (width * image.shape[1]), out_height / (height * image.shape[0]))
        if scale < _SHRINK_BELOW:
            factor = min(1.0, 1.3 * scale)
            shrunk = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
        across, down = out_width / (width * image.shape[1]), out_height / (height * image.shape[0])
        # Half a pixel more: warpAffine counts from the middle of the first pixel, fractions from its edge.
        move = np.array(
            [
                [across, 0, (0.5 - left * image.shape[1]) * across - 0.5],
                [0, down, (0.5 - top * image.shape[0]) * down - 0.5],
            ]
        )
        picture = cv2.warpAffine(
            image,
            move,
            (out_width, out_height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
        )
        found = objects.inside(window)
        return FrameView(np.asarray(picture, np.uint8), found.names, found.boxes, found.is_usable)

    def _mosaic(
        self, rng: np.random.Generator, image: NDArray[np.uint8], objects: _Objects, fill: tuple[float, ...]
    ) -> FrameView:
        """Parts of two or four photos side by side."""
        side = self._side_px
        columns, rows = ([0, int(cut), side] for cut in rng.uniform(*_SPLIT, 2) * side)
        if rng.random() < _HALVES_SHARE:
            columns, rows = ([0, side], rows) if rng.random() < 0.5 else (columns, [0, side])
        picture = np.empty((side, side, 3), np.uint8)
        parts: list[_Objects] = []
        for x1, x2 in pairwise(columns):
            for y1, y2 in pairwise(rows):
                if parts:
                    image, objects = self._photo(rng)
                tile = self._cut(image, objects, _window(rng, objects, *_TILE), fill, (x2 - x1, y2 - y1))
                picture[y1:y2, x1:x2] = tile.image
                scale = np.array([x2 - x1, y2 - y1] * 2, np.float32)
                boxes = (tile.boxes * scale + np.array([x1, y1] * 2, np.float32)) / side
                parts.append(_Objects(tile.names, boxes.astype(np.float32), tile.is_usable))
        found = _Objects.join(parts)
        return FrameView(picture, found.names, found.boxes, found.is_usable & (found.side >= _LEAST_SIDE))


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """Objects of a picture; see :class:`FrameView`."""

    names: NDArray[np.int64]
    boxes: NDArray[np.float32]
    is_usable: NDArray[np.bool_]

    @property
    def side(self) -> NDArray[np.float32]:
        """(M,) longer side of each."""
        return np.asarray((self.boxes[:, 2:] - self.boxes[:, :2]).max(1, initial=0), np.float32)

    @classmethod
    def join(cls, parts: Sequence[_Objects]) -> _Objects:
        return cls(
            np.concatenate([part.names for part in parts]),
            np.concatenate([part.boxes for part in parts]).astype(np.float32),
            np.concatenate([part.is_usable for part in parts]),
        )

    def inside(self, window: tuple[float, float, float, float]) -> _Objects:
        """What a window shows of them, in its own fractions."""
        left, top, width, height = window
        corner, size = np.array([left, top] * 2, np.float32), np.array([width, height] * 2, np.float32)
        boxes = ((self.boxes - corner) / size).astype(np.float32)
        cut = boxes.clip(0, 1)
        share = _areas(cut) / _areas(boxes).clip(1e-6)
        usable = (
            self.is_usable & (share > _USABLE_FROM) & (_Objects(self.names, cut, self.is_usable).side >= _LEAST_SIDE)
        )
        keep = share > _GONE_BELOW
        return _Objects(self.names[keep], cut[keep].astype(np.float32), usable[keep])


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1), np.float32)


def _window(
    rng: np.random.Generator, objects: _Objects, least: float, most: float
) -> tuple[float, float, float, float]:
    """A window of a photo, mostly with its middle near an object's."""
    size = np.exp(rng.uniform(np.log(least), np.log(most)) + rng.normal(0, 0.15, 2))
    if len(objects.boxes) and rng.random() < _NEAR_OBJECT_SHARE:
        box = objects.boxes[rng.integers(len(objects.boxes))]
        middle = (box[:2] + box[2:]) / 2 + rng.normal(0, 0.3, 2) * size
    else:
        middle = rng.random(2)
    low, high = np.minimum(size, 1) / 2, np.maximum(1 - size / 2, size / 2)
    middle = middle.clip(np.where(size <= 1, low, 1 - size / 2), np.where(size <= 1, 1 - size / 2, high))
    left, top = middle - size / 2
    return float(left), float(top), float(size[0]), float(size[1])


def _mirrored(view: FrameView) -> FrameView:
    boxes = view.boxes.copy()
    boxes[:, [0, 2]] = 1 - view.boxes[:, [2, 0]]
    return FrameView(np.ascontiguousarray(view.image[:, ::-1]), view.names, boxes, view.is_usable)


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()
