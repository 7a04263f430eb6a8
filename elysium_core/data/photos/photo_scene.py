"""Scenes made of a photo alone: an annotated object or any region of it, and a second view of the photo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutouts import CutoutLibrary, pictures_look_the_same
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.scene_parts import (
    Absence,
    Scene,
    SceneKind,
    box_size,
    draw_bend,
    draw_change,
    draw_occluder,
    lay,
)
from elysium_core.data.photos.shot import Box4, Placed, Shot, box_in_frame, ellipse
from elysium_core.data.photos.warps import Matrix, bounds, project, translation
from elysium_core.geometry import pairwise_iou
from elysium_core.io.crop import Crop

# Annotated objects are usually small in their photo, so that there are surroundings; larger ones are drawn less often.
_LEAST_AREA, _USUAL_AREA, _MOST_AREA = 0.004, 0.08, 0.5
_LARGE_WEIGHT = 0.3
_LEAST_SIDE_PX = 14.0
_REGION_STRETCH = 0.45
_REGION_MIDDLE = (0.15, 0.85)
_LARGEST_REGION = 0.6
_DISTANCES = (0.9, 2.2)
_MARGIN = 3.0
# A thing whose box overlaps the object's more than this may be a part of it.
_APART_IOU = 0.3
# Live crops are longer than planned by up to this factor.
_SAFETY = 1.35
_MOST_TRIES = 6


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """An object in its photo.

    Attributes:
        photo: RGB uint8 (H, W, 3).
        box: Its box [px].
        name: What it is; empty for a region.
        likes: Boxes of other things of the same name [px].
    """

    photo: NDArray[np.uint8]
    box: Box4
    name: str = ""
    likes: tuple[Box4, ...] = ()


class PhotoScenes:
    """Draws scenes of photos.

    Args:
        photos: The photos.
        library: Cut-outs that get into the way.
        settings: Shares and ranges.
    """

    def __init__(self, photos: PhotoSet, library: CutoutLibrary, settings: PairSettings) -> None:
        self._photos, self._library, self._settings = photos, library, settings
        table = photos.objects
        fair = np.flatnonzero((table.area > _LEAST_AREA) & (table.area < _MOST_AREA) & ~table.is_difficult)
        self._rows = fair
        weights = np.where(table.area[fair] < _USUAL_AREA, 1.0, _LARGE_WEIGHT)
        self._cumulated = np.cumsum(weights)
        self._by_name = {int(name): fair[table.name[fair] == name] for name in np.unique(table.name[fair])}

    @property
    def has_true_boxes(self) -> bool:
        """Whether the photos have annotated objects of a fair size."""
        return len(self._rows) > 0

    def draw(self, rng: np.random.Generator, kind: SceneKind, absence: Absence) -> Scene | None:
        """Draw a scene.

        Args:
            rng: Source of randomness.
            kind: TRUE_BOX or REGION.
            absence: Whether and how the object is missing in the second shot; not OTHER_SCENE.

        Returns:
            The scene; None if what was drawn is unusable.
        """
        seen = self._draw_object(rng) if kind is SceneKind.TRUE_BOX else self._draw_region(rng)
        if seen is None:
            return None
        margin, beyond = self._draw_surroundings(rng, seen)
        first = self._shot(seen, np.eye(3), margin, beyond)
        if absence is Absence.LOOK_ALIKE:
            other = self._draw_namesake(rng, seen)
            if other is None:
                return None
            second, place = self._second_view(rng, other, *self._draw_surroundings(rng, other))
            likes = (*second.like_outlines, ellipse(other.box))
            return Scene(kind, absence, first, replace(second, outline=None, like_outlines=likes), place)
        second, place = self._second_view(rng, seen, margin, beyond)
        if absence is Absence.NONE:
            return Scene(kind, absence, first, self._disturbed(rng, second, seen, place), place)
        away = self._place_without(rng, second, place)
        return None if away is None else Scene(kind, absence, first, second, away, is_near=True)

    def can_be(self, kind: SceneKind, absence: Absence) -> bool:
        """Whether such a scene exists: a region has no look-alike."""
        return not (kind is SceneKind.REGION and absence is Absence.LOOK_ALIKE)

    def _draw_object(self, rng: np.random.Generator) -> _Seen | None:
        row = self._rows[int(np.searchsorted(self._cumulated, rng.uniform(0, self._cumulated[-1]), side="right"))]
        return self._object(int(row))

    def _object(self, row: int) -> _Seen | None:
        table = self._photos.objects
        index = int(table.photo[row])
        photo = self._photos.read(index)
        if photo is None:
            return None
        sides = np.array([photo.shape[1], photo.shape[0]] * 2, np.float64)
        box = table.box[row] * sides
        if (box[2:] - box[:2]).min() < _LEAST_SIDE_PX:
            return None
        same = [n for n in self._photos.rows_of(index) if n != row and table.name[n] == table.name[row]]
        others = table.box[same].astype(np.float64).reshape(-1, 4)
        apart = pairwise_iou(others, np.broadcast_to(table.box[row], others.shape)) < _APART_IOU
        name = self._photos.names[table.name[row]]
        return _Seen(photo, box, name, tuple(other * sides for other in others[apart]))

    def _draw_region(self, rng: np.random.Generator) -> _Seen:
        _, photo = self._photos.draw(rng)
        sides = np.array([photo.shape[1], photo.shape[0]], np.float64)
        size = np.exp(rng.uniform(*np.log(self._settings.region_px)))
        stretch = np.exp(rng.normal(0, _REGION_STRETCH) / 2)
        half = np.minimum(size * np.array([stretch, 1 / stretch]), _LARGEST_REGION * sides) / 2
        middle = rng.uniform(*_REGION_MIDDLE, 2) * sides
        box = np.concatenate([np.maximum(middle - half, 0), np.minimum(middle + half, sides)])
        return _Seen(photo, box)

    def _draw_namesake(self, rng: np.random.Generator, seen: _Seen) -> _Seen | None:
        """Another thing of the same name in another photo, that does not look the same."""
        rows = self._by_name.get(self._photos.names.index(seen.name), np.zeros(0, np.int64))
        for _ in range(min(_MOST_TRIES, len(rows))):
            other = self._object(int(rows[int(rng.integers(len(rows)))]))
            if other is not None and not pictures_look_the_same(_patch(seen), _patch(other)):
                return other
        return None

    def _draw_surroundings(self, rng: np.random.Generator, seen: _Seen) -> tuple[float, NDArray[np.uint8]]:
        """How far the frame reaches over the photo on all sides [px], and what is there."""
        if rng.random() >= self._settings.beyond_share:
            return 0.0, _plain(seen.photo)
        # A live crop is about four times as long as the object, so that it ends inside such a frame.
        return _MARGIN * box_size(seen.box), self._photos.draw(rng)[1]

    def _shot(self, seen: _Seen, change: Matrix, margin: float, beyond: NDArray[np.uint8]) -> Shot:
        height, width = seen.photo.shape[:2]
        return Shot(
            seen.photo,
            translation(margin, margin) @ change,
            round(width + 2 * margin),
            round(height + 2 * margin),
            outline=ellipse(seen.box),
            like_outlines=tuple(ellipse(like) for like in seen.likes),
            beyond=beyond,
        )

    def _second_view(
        self, rng: np.random.Generator, seen: _Seen, margin: float, beyond: NDArray[np.uint8]
    ) -> tuple[Shot, Box4]:
        """The photo as it is seen later, and the object's box in it."""
        settings = self._settings
        x, y = (seen.box[:2] + seen.box[2:]) / 2
        shot = self._shot(seen, draw_change(rng, settings, x, y, box_size(seen.box)), margin, beyond)
        bend = draw_bend(rng, settings, settings.photo_bend)
        return replace(shot, photo_bend=bend), bounds(project(shot.photo_matrix, ellipse(seen.box)))

    def _disturbed(self, rng: np.random.Generator, shot: Shot, seen: _Seen, place: Box4) -> Shot:
        """Add something beside the object and something in front of it."""
        settings, placed = self._settings, []
        if rng.random() < settings.distractor_share:
            placed.append(self._distractor(rng, seen, place))
        if rng.random() < settings.occluder_share:
            placed.append(draw_occluder(rng, self._library, settings, place))
        return replace(shot, placed=tuple(placed))

    def _distractor(self, rng: np.random.Generator, seen: _Seen, place: Box4) -> Placed:
        settings, size = self._settings, box_size(place)
        other = None
        if seen.name and rng.random() < settings.distractor_like_share:
            other = self._library.draw_named(rng, seen.name)
        is_like = other is not None
        if other is None:
            other = self._library.draw(rng, settings.sprite_share)
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*_DISTANCES)
        x, y = (place[:2] + place[2:]) / 2 + size * distance * np.array([np.cos(angle), np.sin(angle)])
        matrix = lay(other, x, y, size * np.exp(rng.normal(0, 0.25)), np.deg2rad(rng.normal(0, settings.turn)))
        return Placed(other, matrix, None, is_like)

    def _place_without(self, rng: np.random.Generator, shot: Shot, box: Box4) -> Box4 | None:
        """A box of the same size whose live crop does not show the object; None if the frame is too small."""
        whole = box_in_frame(box, shot.width, shot.height)
        if whole is None:
            return None
        reach = _SAFETY * Crop.around(whole, shot.width, shot.height, self._settings.live_times).side / 2
        for _ in range(_MOST_TRIES):
            middle = rng.uniform(0, 1, 2) * [shot.width, shot.height]
            if ((middle + reach <= box[:2]) | (middle - reach >= box[2:])).any():
                half = (box[2:] - box[:2]) / 2
                return np.concatenate([middle - half, middle + half])
        return None


def _patch(seen: _Seen) -> NDArray[np.uint8]:
    x1, y1, x2, y2 = (int(value) for value in seen.box)
    return seen.photo[y1 : y2 + 1, x1 : x2 + 1]


def _plain(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One pixel of the photo's mean colour."""
    return np.asarray(np.round(photo.mean(axis=(0, 1))), np.uint8)[None, None]
