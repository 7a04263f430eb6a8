"""Scenes in which cut-outs move over a photo that moves, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from elysium_core.data.photos.cutouts import Cutout, CutoutLibrary
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.scene_parts import (
    Absence,
    LikeKind,
    Scene,
    SceneKind,
    draw_bend,
    draw_change,
    draw_look_alike,
    draw_occluder,
    lay,
)
from elysium_core.data.photos.shot import Placed, Shot
from elysium_core.data.photos.warps import Matrix, about, project, rotation, scaling, translation

FRAME_PX = 320
"""Side of the frame of a scene [px]; objects are measured in it."""

_LARGEST_ZOOM = 0.6
_PAN_PX, _PAN_SCALE, _PAN_DEGREES = 16.0, 0.07, 2.0
# Middle of an object in the frame.
_PLACES = (40.0, 280.0)
# Distance of another thing from the object, in sides of the object.
_DISTANCES = (0.9, 2.4)
_TWIN_DISTANCES = (1.3, 2.2)


def cover(rng: np.random.Generator, width: int, height: int, frame_width: int, frame_height: int) -> Matrix:
    """Lay a photo over a whole frame, enlarged by up to 1.8 and at a random place.

    Args:
        rng: Source of randomness.
        width: Width of the photo [px].
        height: Its height.
        frame_width: Width of the frame [px].
        frame_height: Its height.
    """
    scale = max(frame_width / width, frame_height / height) * np.exp(rng.uniform(0, _LARGEST_ZOOM))
    x, y = rng.uniform(0, 1, 2) * [frame_width - width * scale, frame_height - height * scale]
    return translation(x, y) @ scaling(scale, scale)


class CutoutScenes:
    """Draws scenes of cut-outs.

    Args:
        photos: Backgrounds.
        library: Cut-outs.
        settings: Shares and ranges.
    """

    def __init__(self, photos: PhotoSet, library: CutoutLibrary, settings: PairSettings) -> None:
        self._photos, self._library, self._settings = photos, library, settings

    def draw(self, rng: np.random.Generator, absence: Absence) -> Scene:
        """Draw a scene.

        Args:
            rng: Source of randomness.
            absence: Whether and how the object is missing in the second shot; not OTHER_SCENE.
        """
        settings = self._settings
        target = self._library.draw(rng, settings.sprite_share)
        size = float(np.exp(rng.uniform(*np.log(settings.object_px))))
        x, y = rng.uniform(*_PLACES, 2)
        radians, stretch = np.deg2rad(rng.normal(0, settings.turn)), np.exp(rng.normal(0, settings.stretch))
        matrix = lay(target, x, y, size, radians, stretch)
        moved = draw_change(rng, settings, x, y, size) @ matrix
        pairs, kinds = self._others(rng, target, matrix, moved, size)
        first = [before for before, _ in pairs]
        second = [after for _, after in pairs]
        first_target = len(first)
        first.append(Placed(target, matrix))
        place = Placed(target, moved).box()
        second_target: int | None = None
        if absence is Absence.NONE:
            second_target = len(second)
            second.append(Placed(target, moved, draw_bend(rng, settings, settings.bend)))
        elif absence is Absence.LOOK_ALIKE:
            other, kind = draw_look_alike(rng, self._library, target)
            kinds.add(kind)
            second.append(Placed(other, _swapped(moved, target, other), None, is_like=True))
        if rng.random() < settings.occluder_share:
            second.append(draw_occluder(rng, self._library, settings, place))
        before, after = self._backgrounds(rng)
        return Scene(
            SceneKind.CUTOUT,
            absence,
            replace(before, placed=tuple(first), target=first_target),
            replace(after, placed=tuple(second), target=second_target),
            place,
            keep_color=LikeKind.RECOLORED in kinds,
            is_near=LikeKind.TWIN in kinds,
        )

    def _others(
        self, rng: np.random.Generator, target: Cutout, matrix: Matrix, moved: Matrix, size: float
    ) -> tuple[list[tuple[Placed, Placed]], set[LikeKind]]:
        """Distractors, each in both shots, and in what way they look like the object."""
        settings = self._settings
        pairs: list[tuple[Placed, Placed]] = []
        kinds: set[LikeKind] = set()
        middle = np.array([[target.width / 2, target.height / 2]])
        (center,), (after,) = project(matrix, middle), project(moved, middle)
        for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
            kind = None
            if rng.random() < settings.distractor_like_share:
                other, kind = draw_look_alike(rng, self._library, target, settings.twin_share)
                kinds.add(kind)
            else:
                other = self._library.draw(rng, settings.sprite_share)
            is_twin = kind is LikeKind.TWIN
            own_size = size if is_twin else size * np.exp(rng.normal(0, 0.3))
            x, y = center + _offset(rng, size, is_twin=is_twin)
            own = lay(other, x, y, own_size, np.deg2rad(rng.normal(0, settings.turn)))
            own_moved = draw_change(rng, settings, x, y, own_size) @ own
            if is_twin:  # it must not come between the object and its last place
                x, y = after + _offset(rng, size, is_twin=True)
                own_moved = lay(other, x, y, own_size)
            bend = None if is_twin else draw_bend(rng, settings, settings.bend)
            is_like = kind is not None
            pairs.append((Placed(other, own, None, is_like), Placed(other, own_moved, bend, is_like)))
        return pairs, kinds

    def _backgrounds(self, rng: np.random.Generator) -> tuple[Shot, Shot]:
        """One photo in two positions, or two photos."""
        _, photo = self._photos.draw(rng)
        matrix = cover(rng, photo.shape[1], photo.shape[0], FRAME_PX, FRAME_PX)
        first = Shot(photo, matrix, FRAME_PX, FRAME_PX)
        if rng.random() < self._settings.same_background_share:
            turn, scale = np.deg2rad(rng.normal(0, _PAN_DEGREES)), np.exp(rng.normal(0, _PAN_SCALE))
            change = about(rotation(turn) @ scaling(scale, scale), FRAME_PX / 2, FRAME_PX / 2)
            moved = translation(*rng.normal(0, _PAN_PX, 2)) @ change @ matrix
            return first, Shot(photo, moved, FRAME_PX, FRAME_PX)
        _, other = self._photos.draw(rng)
        return first, Shot(other, cover(rng, other.shape[1], other.shape[0], FRAME_PX, FRAME_PX), FRAME_PX, FRAME_PX)


def _offset(rng: np.random.Generator, size: float, *, is_twin: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*(_TWIN_DISTANCES if is_twin else _DISTANCES))
    return size * distance * np.array([np.cos(angle), np.sin(angle)])


def _swapped(matrix: Matrix, old: Cutout, new: Cutout) -> Matrix:
    """Lay another cut-out where one lies, as large as it is."""
    scale = float(np.sqrt(old.width * old.height / (new.width * new.height)))
    middle = translation(old.width / 2, old.height / 2) @ scaling(scale, scale)
    return matrix @ middle @ translation(-new.width / 2, -new.height / 2)
