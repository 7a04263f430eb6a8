"""Pairs of stills for following an object: an anchor crop, a live crop, and where the object is in each.

They are made of photos alone. In half of them cut-outs move over a photo among others; in the others the second
picture is a changed view of the first. What a pair is depends on the seed, its number, the photos and the settings
alone, whichever process draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutout_scene import CutoutScenes
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.photo_scene import PhotoScenes
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.photometry import draw_camera
from elysium_core.data.photos.scene_parts import Absence, Scene, SceneKind
from elysium_core.data.photos.shot import Box4, Shot, box_in_frame, into_crop, render, without_likes
from elysium_core.errors import DataError
from elysium_core.io.crop import Crop

MOST_LIKES = 3
"""Boxes of look-alikes that a pair holds at most."""

_MOST_TRIES = 200
# After so many failures the absence or kind that was drawn is given up for one that always exists.
_PATIENCE = 10
# An anchor whose middle varies less than this shows nothing [gray levels].
_LEAST_CONTRAST = 9.0
# A picture whose contrast is not clearly above its noise is taken again.
_LEAST_TAKEN_CONTRAST = 1.5
_MOST_SHOTS = 4
# As a fraction of the live crop.
_LEAST_SIDE = 0.04
_MOST_BOX_NOISE = 0.1
# Of an object that has left the scene, so much may still be inside the live crop.
_MOST_LEFT = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class StillPair:
    """One pair. A: side of the anchor crop, L: side of the live crop [px].

    Attributes:
        anchor: (A, A, 3) uint8 RGB.
        live: (L, L, 3) uint8 RGB.
        anchor_box: (4,) float32, the given box in the anchor crop, x1 y1 x2 y2 in 0..1; it may be slightly off.
        live_box: (4,) float32, the true box in the live crop, cut to it; zeros if the object is absent.
        is_present: Whether the object is in the live crop.
        like_boxes: (3, 4) float32, boxes of look-alikes in the live crop; rows of zeros where there are fewer.
        kind: Where the object is from.
        absence: Why it is absent, or that it is present.
    """

    anchor: NDArray[np.uint8]
    live: NDArray[np.uint8]
    anchor_box: NDArray[np.float32]
    live_box: NDArray[np.float32]
    is_present: bool
    like_boxes: NDArray[np.float32]
    kind: SceneKind
    absence: Absence


class PairGenerator:
    """Draws pairs of stills.

    Args:
        photos: Backgrounds, regions and annotated objects.
        cutouts: Cut-outs; by default the sprites of the package alone.
        settings: Shares, sizes and ranges.
    """

    def __init__(
        self, photos: PhotoSet, cutouts: CutoutLibrary | None = None, settings: PairSettings | None = None
    ) -> None:
        self.settings = settings or PairSettings()
        library = cutouts or CutoutLibrary()
        self._cutout_scenes = CutoutScenes(photos, library, self.settings)
        self._photo_scenes = PhotoScenes(photos, library, self.settings)

    def draw(self, seed: int, index: int) -> StillPair:
        """Draw pair ``index``; it is the same every time and in any order.

        Args:
            seed: Seed of all pairs, >= 0.
            index: Number of the pair, >= 0.

        Raises:
            DataError: Nothing usable is found, for example because all photos are plain.
        """
        rng = np.random.default_rng([seed, index])
        kind, absence = self._draw_kind(rng), self._draw_absence(rng)
        for attempt in range(_MOST_TRIES):
            if attempt == _PATIENCE and absence is not Absence.NONE:
                absence = Absence.OTHER_SCENE
            if attempt == 4 * _PATIENCE:
                kind = SceneKind.CUTOUT
            pair = self._attempt(rng, kind, absence)
            if pair is not None:
                return pair
        raise DataError(
            f"no pair was found in {_MOST_TRIES} tries: the photos are plain or their objects too small "
            "(objects need 14 px, photos some texture)"
        )

    def _draw_kind(self, rng: np.random.Generator) -> SceneKind:
        settings, chance = self.settings, rng.random()
        if chance < settings.cutout_share:
            return SceneKind.CUTOUT
        is_true = chance < settings.cutout_share + settings.true_box_share and self._photo_scenes.has_true_boxes
        return SceneKind.TRUE_BOX if is_true else SceneKind.REGION

    def _draw_absence(self, rng: np.random.Generator) -> Absence:
        settings = self.settings
        is_absent, chance = rng.random() < settings.absent_share, rng.random()
        if not is_absent:
            return Absence.NONE
        if chance < settings.look_alike_share:
            return Absence.LOOK_ALIKE
        return Absence.GONE if chance < settings.look_alike_share + settings.gone_share else Absence.OTHER_SCENE

    def _attempt(self, rng: np.random.Generator, kind: SceneKind, absence: Absence) -> StillPair | None:
        scene = self._scene(rng, kind, absence)
        if scene is None:
            return None
        anchor = self._anchor(rng, scene.first)
        live = self._live(rng, scene)
        if anchor is None or live is None:
            return None
        anchor_pixels, anchor_box = anchor
        live_pixels, live_box, likes = live
        anchor_pixels = self._taken(rng, anchor_pixels, scene)
        live_pixels = self._taken(rng, live_pixels, scene)
        if rng.random() < 0.5:
            anchor_pixels, live_pixels = _flipped(anchor_pixels), _flipped(live_pixels)
            anchor_box, live_box, likes = _flipped_boxes(anchor_box), _flipped_boxes(live_box), _flipped_boxes(likes)
        present = scene.absence is Absence.NONE
        return StillPair(anchor_pixels, live_pixels, anchor_box, live_box, present, likes, scene.kind, scene.absence)

    def _taken(self, rng: np.random.Generator, pixels: NDArray[np.uint8], scene: Scene) -> NDArray[np.uint8]:
        """A picture as a camera takes it; one that shows nothing is taken again in other light."""
        settings, taken = self.settings.camera, pixels
        for _ in range(_MOST_SHOTS):
            camera = draw_camera(rng, settings, len(pixels), keep_color=scene.keep_color)
            taken = camera.apply(pixels, rng)
            if taken.std() > _LEAST_TAKEN_CONTRAST * (1 + camera.noise):
                break
        return taken

    def _scene(self, rng: np.random.Generator, kind: SceneKind, absence: Absence) -> Scene | None:
        if absence is Absence.OTHER_SCENE or not self._photo_scenes.can_be(kind, absence):
            first, other = self._plain_scene(rng, kind, Absence.NONE), self._plain_scene(rng, kind, Absence.NONE)
            if first is None or other is None:
                return None
            return Scene(kind, Absence.OTHER_SCENE, first.first, without_likes(other.second), other.place)
        return self._plain_scene(rng, kind, absence)

    def _plain_scene(self, rng: np.random.Generator, kind: SceneKind, absence: Absence) -> Scene | None:
        if kind is SceneKind.CUTOUT:
            return self._cutout_scenes.draw(rng, absence)
        return self._photo_scenes.draw(rng, kind, absence)

    def _anchor(self, rng: np.random.Generator, shot: Shot) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """The crop around the box that is given, and that box in it."""
        true = shot.target_box()
        given = None if true is None else box_in_frame(self._given(rng, true), shot.width, shot.height)
        if given is None:
            return None
        crop = Crop.around(given, shot.width, shot.height)
        side = self.settings.anchor_px
        pixels = render(shot, into_crop(crop, side), side, side).pixels
        box, quarter = crop.inside(given), side // 4
        if box is None or pixels[quarter:-quarter, quarter:-quarter].std(axis=(0, 1)).max() < _LEAST_CONTRAST:
            return None
        return pixels, np.array(box.as_list(), np.float32)

    def _given(self, rng: np.random.Generator, true: Box4) -> Box4:
        """The box as a person or detector gives it: a little off, sometimes too large."""
        settings = self.settings
        sides = np.tile(true[2:] - true[:2], 2)
        noise = np.clip(rng.normal(0, 1, 4) * settings.box_noise, -_MOST_BOX_NOISE, _MOST_BOX_NOISE)
        if rng.random() < settings.loose_share:
            noise += rng.uniform(0, settings.loose, 4) * [-1, -1, 1, 1]
        return true + noise * sides

    def _live(
        self, rng: np.random.Generator, scene: Scene
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]] | None:
        """The crop around the last place, the object's box in it (zeros: absent), and the boxes of look-alikes."""
        crop = self._live_crop(rng, scene)
        if crop is None:
            return None
        side = self.settings.live_px
        drawn = render(scene.second, into_crop(crop, side), side, side)
        likes = np.zeros((MOST_LIKES, 4), np.float32)
        for row, like in enumerate(_large_ones(drawn.like_boxes, side)[:MOST_LIKES]):
            likes[row] = like
        if scene.absence is Absence.OTHER_SCENE or drawn.box is None:
            is_missing = scene.absence is not Absence.NONE
            return (drawn.pixels, np.zeros(4, np.float32), likes) if is_missing else None
        if scene.absence is not Absence.NONE:
            is_gone = drawn.visible <= _MOST_LEFT
            return (drawn.pixels, np.zeros(4, np.float32), likes) if is_gone else None
        box = drawn.box / side
        if drawn.visible < self.settings.least_visible or (box[2:] - box[:2]).min() < _LEAST_SIDE:
            return None
        return drawn.pixels, box.astype(np.float32), likes

    def _live_crop(self, rng: np.random.Generator, scene: Scene) -> Crop | None:
        """The live crop of a tracker whose last box is a little off, or far off."""
        settings, shot = self.settings, scene.second
        last = box_in_frame(scene.place, shot.width, shot.height)
        if last is None:
            return None
        usual = Crop.around(last, shot.width, shot.height)
        steady = 0.5 if scene.is_near else 1.0
        side = settings.live_times * usual.side * np.exp(rng.normal(0, settings.crop_scale * steady))
        if not scene.is_near and rng.random() < settings.wide_share:
            side *= np.exp(rng.uniform(0, np.log(settings.wide)))
        if not scene.is_near and rng.random() < settings.far_share:
            offset = rng.uniform(-settings.far, settings.far, 2)
        else:
            offset = rng.normal(0, settings.off_center * steady, 2)
        x, y = np.array([usual.x, usual.y]) + usual.side / 2 + offset * usual.side - side / 2
        return Crop(float(x), float(y), float(side), shot.width, shot.height)


def _large_ones(boxes: list[Box4], side: int) -> list[Box4]:
    return [box / side for box in boxes if (box[2:] - box[:2]).min() >= _LEAST_SIDE * side]


def _flipped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[:, ::-1])


def _flipped_boxes(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mirror boxes (..., 4) from left to right; boxes of zeros stay."""
    flipped = np.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
    return np.asarray(np.where((boxes == 0).all(-1, keepdims=True), boxes, flipped), np.float32)
