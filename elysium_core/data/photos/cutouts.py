"""Cut-outs ready for drawing: objects cut out of photos, and the sprites that ship with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutout_cache import CutoutCache
from elysium_core.data.photos.photo_records import is_held_out
from elysium_core.data.synthetic.assets import load_sprites, trainable_names
from elysium_core.errors import DataError

SOLID_ALPHA = 64
"""A pixel is part of an object from this alpha on."""

_LEAST_SIDE_PX = 12
_LEAST_SOLID_PX = 120
_THUMBNAIL_PX = 8
# Mean difference of two thumbnails below which two cut-outs may show the same thing.
_LIKE = 14.0
_MOST_TRIES = 8
_MOST_DRAWS = 100
# A colour that is turned by less than this may be the same thing in other light [degrees].
_LEAST_HUE_TURN = 60.0
_LEAST_COLORFULNESS = 90


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """An object without background.

    Attributes:
        name: What it is; one name may have many cut-outs.
        key: Where it is from; two cut-outs of one photo have the same key.
        pixels: RGBA uint8 (H, W, 4), colour multiplied by alpha.
        hull: (K, 2) convex outline of its solid pixels [px].
        solid_px: Number of solid pixels.
    """

    name: str
    key: str
    pixels: NDArray[np.uint8]
    hull: NDArray[np.float64]
    solid_px: int

    @property
    def width(self) -> int:
        """Width [px]."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height [px]."""
        return int(self.pixels.shape[0])


def make_cutout(name: str, key: str, premultiplied: NDArray[np.uint8]) -> Cutout | None:
    """Trim a picture to its solid pixels and find their outline.

    Args:
        name: What it shows.
        key: Where it is from.
        premultiplied: RGBA uint8 (H, W, 4), colour multiplied by alpha.

    Returns:
        The cut-out; None if hardly anything is solid.
    """
    solid = premultiplied[..., 3] > SOLID_ALPHA
    ys, xs = np.nonzero(solid)
    if len(ys) < _LEAST_SOLID_PX:
        return None
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    if min(bottom - top, right - left) < _LEAST_SIDE_PX:
        return None
    pixels = np.ascontiguousarray(premultiplied[top:bottom, left:right])
    return Cutout(name, key, pixels, _hull(solid[top:bottom, left:right]), len(ys))


def _hull(solid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Convex outline of solid pixels as areas: the corners of the first and last one of each row."""
    rows = np.flatnonzero(solid.any(axis=1))
    first = solid[rows].argmax(axis=1)
    last = solid.shape[1] - solid[rows, ::-1].argmax(axis=1)
    ends = [np.stack([x, y], -1) for x in (first, last) for y in (rows, rows + 1)]
    hull = cv2.convexHull(np.concatenate(ends).astype(np.int32))
    return np.asarray(hull[:, 0], np.float64)


def mirrored(cutout: Cutout) -> Cutout:
    """The mirror image."""
    hull = cutout.hull * [-1, 1] + [cutout.width, 0]
    return replace(cutout, pixels=np.ascontiguousarray(cutout.pixels[:, ::-1]), hull=hull)


def recolored(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """The same thing in another colour, too different to be the same in other light."""
    hsv = cv2.cvtColor(np.ascontiguousarray(cutout.pixels[..., :3]), cv2.COLOR_RGB2HSV_FULL).astype(np.int16)
    turn = rng.uniform(_LEAST_HUE_TURN, 360 - _LEAST_HUE_TURN) * 256 / 360
    hsv[..., 0] = (hsv[..., 0] + round(turn)) % 256
    # Grey and black things show no hue: they are dyed.
    solid = cutout.pixels[..., 3] > SOLID_ALPHA
    if np.median(hsv[..., 1][solid]) < _LEAST_COLORFULNESS:
        hsv[..., 0] = round(turn)
        hsv[..., 1] = 140 + hsv[..., 1] // 2
        hsv[..., 2] = np.minimum(70 + hsv[..., 2] * 3 // 4, cutout.pixels[..., 3])
    rgb = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB_FULL)
    return replace(cutout, pixels=np.dstack([rgb, cutout.pixels[..., 3]]))


def look_the_same(first: Cutout, second: Cutout) -> bool:
    """Whether two cut-outs may show one thing: data sets hold some photos twice."""
    return pictures_look_the_same(first.pixels, second.pixels)


def pictures_look_the_same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two pictures (H, W, C) of any sizes may show one thing, also where one is the mirror image."""
    small = _thumbnail(second)
    difference = min(np.abs(_thumbnail(first) - side).mean() for side in (small, small[:, ::-1]))
    return bool(difference < _LIKE)


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = cv2.resize(picture, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


class CutoutLibrary:
    """Cut-outs of a cache, and sprites.

    Args:
        cache: Cut-outs of photos; None = only sprites.
        sprites: Sprites and other pictures in memory; by default those of the package that may be trained on.
        stored: Which cut-outs of the cache; None = all.

    Raises:
        DataError: There is no cut-out at all.
    """

    def __init__(
        self,
        cache: CutoutCache | None = None,
        sprites: Sequence[Cutout] | None = None,
        stored: Sequence[int] | None = None,
    ) -> None:
        self._cache = cache
        everything = range(len(cache)) if cache is not None else ()
        self._stored = list(everything if stored is None else stored)
        self._sprites = list(packaged_sprites() if sprites is None else sprites)
        if not len(self):
            raise DataError("there is no cut-out; make some of PASCAL VOC or Caltech-101, see docs/data.md")

    def part(self, *, held_out: bool) -> CutoutLibrary:
        """The cut-outs of photos that are kept for validation, or of those that are trained on; sprites likewise.

        Raises:
            DataError: There is none.
        """
        stored = [i for i in self._stored if is_held_out(self._photo_of(i)) is held_out]
        sprites = [sprite for sprite in self._sprites if is_held_out(sprite.key) is held_out]
        return CutoutLibrary(self._cache, sprites, stored)

    def __len__(self) -> int:
        return len(self._stored) + len(self._sprites)

    def draw(self, rng: np.random.Generator, sprite_share: float) -> Cutout:
        """Draw a cut-out; mirrored in half of all cases.

        Args:
            rng: Source of randomness.
            sprite_share: Share of sprites, 0..1, where there are both.
        """
        for _ in range(_MOST_DRAWS):
            if self._stored and (not self._sprites or rng.random() >= sprite_share):
                found = self._load(self._stored[int(rng.integers(len(self._stored)))])
            else:
                found = self._sprites[int(rng.integers(len(self._sprites)))]
            if found is not None:
                return mirrored(found) if rng.random() < 0.5 else found
        raise DataError(f"{_MOST_DRAWS} cut-outs in a row are too small; make them again from larger photos")

    def draw_named(self, rng: np.random.Generator, name: str, other_than: Cutout | None = None) -> Cutout | None:
        """Draw a cut-out of a photo by its name.

        Args:
            rng: Source of randomness.
            name: What it has to show.
            other_than: It has to be of another photo and must not look the same as this one.

        Returns:
            The cut-out; None if none is found.
        """
        others = self._by_name.get(name, [])
        for _ in range(min(_MOST_TRIES, len(others))):
            index = others[int(rng.integers(len(others)))]
            if other_than is not None and self._photo_of(index) == other_than.key:
                continue
            found = self._load(index)
            if found is not None and (other_than is None or not look_the_same(found, other_than)):
                return mirrored(found) if rng.random() < 0.5 else found
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        names: dict[str, list[int]] = {}
        for index in self._stored:
            names.setdefault(self._require_cache().cutouts[index].name, []).append(index)
        return names

    def _load(self, index: int) -> Cutout | None:
        cache = self._require_cache()
        stored = cache.cutouts[index]
        rgba = cache.read(index)
        alpha = rgba[..., 3:].astype(np.uint16)
        rgba[..., :3] = (rgba[..., :3] * alpha + 127) // 255
        return make_cutout(stored.name, stored.photo, rgba)

    def _photo_of(self, index: int) -> str:
        return self._require_cache().cutouts[index].photo

    def _require_cache(self) -> CutoutCache:
        if self._cache is None:
            raise DataError("this library has no cut-outs of photos")
        return self._cache


def packaged_sprites() -> list[Cutout]:
    """The sprites of the package that may be trained on."""
    names = trainable_names()
    made = (make_cutout(sprite.name, f"sprite/{sprite.name}", sprite.levels[0]) for sprite in load_sprites(names))
    return [cutout for cutout in made if cutout is not None]
