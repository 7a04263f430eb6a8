"""Generated clips with exact truth: the data that elysium-nano is trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.assets import Sprite, load_backgrounds, load_dyed_sprite, load_sprites, trainable_names
from elysium_core.data.synthetic.backgrounds import apply_camera, draw_backgrounds
from elysium_core.data.synthetic.render import render_clip
from elysium_core.data.synthetic.scene import SceneConfig, draw_motion

# An object is a fair target if this share of it can be seen in the first frame, and in every other.
_MIN_VISIBLE_FIRST = 0.55
_MIN_VISIBLE = 0.25
# Below this nobody could say where it is.
_GONE = 0.02
# Twins mostly differ in colour; the others only in size or place.
_TWIN_DYE_SHARE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticClip:
    """A generated clip. N objects, T frames, S the frame's side [px].

    Attributes:
        images: (T, S, S, 3) uint8 RGB.
        names: N names without article; two are the same where the scene has twins.
        name_index: (N,) int64, position of each name in the generator's vocabulary.
        boxes: (N, T, 4) float32, x1 y1 x2 y2 as fractions of the frame.
        visible: (N, T) float32, share of the object that can be seen.
        owner: (T, S, S) int8, object on top of each pixel, -1 for background.
        colors: (N,) int64, the colour word of each object, an index of
            :data:`elysium_core.data.synthetic.colors.COLORS` or NO_COLOR.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    name_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]
    owner: NDArray[np.int8]
    colors: NDArray[np.int64]

    @property
    def targets(self) -> list[int]:
        """Indices of the objects that can fairly be asked for (seen well enough throughout)."""
        fair = (self.visible[:, 0] >= _MIN_VISIBLE_FIRST) & (self.visible.min(axis=1) >= _MIN_VISIBLE)
        return [int(n) for n in np.flatnonzero(fair)]

    @property
    def vanishing(self) -> list[int]:
        """Indices of the objects that are well seen at first and gone in some later frame."""
        gone = self.visible < _GONE
        clear = gone | (self.visible >= _MIN_VISIBLE)
        return [int(n) for n in np.flatnonzero((self.visible[:, 0] >= _MIN_VISIBLE_FIRST) & gone.any(1) & clear.all(1))]


@dataclass(slots=True)
class ClipGenerator:
    """Draws clips; the same seed gives the same clips, byte for byte.

    Attributes:
        vocabulary: Names of the sprites to draw from.
        photos: Background photos, RGB uint8.
        seed: Seed of all randomness.
        config: Ranges of the scenes.
    """

    vocabulary: Sequence[str]
    photos: Sequence[NDArray[np.uint8]]
    seed: int
    config: SceneConfig = field(default_factory=SceneConfig)
    _sprites: list[Sprite] = field(init=False)
    _dyed: dict[tuple[int, int], Sprite] = field(init=False, default_factory=dict)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._sprites = load_sprites(self.vocabulary)
        self._rng = np.random.default_rng(self.seed)

    @classmethod
    def for_split(cls, split: str, names: int, seed: int, config: SceneConfig | None = None) -> ClipGenerator:
        """Make the generator of ``train`` or ``test`` clips with the first ``names`` trainable names."""
        return cls(trainable_names()[:names], load_backgrounds(split), seed, config or SceneConfig())

    def dyes(self, name: str) -> tuple[int, ...]:
        """Colours in which a sprite of the vocabulary may be dyed."""
        return self._sprites[list(self.vocabulary).index(name)].dyes

    def reseed(self, *entropy: int) -> None:
        """Start the randomness afresh: what is drawn next depends on these numbers alone."""
        self._rng = np.random.default_rng(entropy)

    def draw(self, frames: int, objects: int, gap: tuple[float, float]) -> SyntheticClip:
        """Draw one clip.

        Args:
            frames: Number of frames T, >= 1.
            objects: Number of objects N, 1..vocabulary; their names differ, but for twins.
            gap: Range of the time between frames [time units]; an object moves about
                0.06 of the frame in each direction a unit.
        """
        rng, side = self._rng, self.config.side_px
        times = np.concatenate([[0.0], np.cumsum(rng.uniform(*gap, frames - 1))])
        chosen = rng.choice(len(self._sprites), objects, replace=False)
        cast = self._cast(chosen)
        motion = draw_motion(rng, self.config, objects, times)
        canvas = draw_backgrounds(rng, self.photos, side, times, self.config.procedural_share)
        drawn = render_clip(canvas, cast, motion)
        images = apply_camera(rng, drawn.images)
        names = tuple(self.vocabulary[i] for i in chosen)
        colors = np.array([sprite.color for sprite in cast], np.int64)
        return SyntheticClip(images, names, chosen.astype(np.int64), drawn.boxes, drawn.visible, drawn.owner, colors)

    def _cast(self, chosen: NDArray[np.int64]) -> list[Sprite]:
        """The sprites of a clip; ``chosen`` is changed where one becomes the twin of another."""
        rng, config = self._rng, self.config
        # No random number is drawn for what is switched off: the frozen test set stays as it is.
        twins: set[int] = set()
        if config.twin_share and len(chosen) > 1 and rng.random() < config.twin_share:
            first, second = (int(n) for n in rng.choice(len(chosen), 2, replace=False))
            chosen[second] = chosen[first]
            twins = {first, second}
        cast = [self._sprites[i] for i in chosen]
        if not config.dye_share:
            return cast
        for n, sprite in enumerate(cast):
            share = _TWIN_DYE_SHARE if n in twins else config.dye_share
            if sprite.dyes and rng.random() < share:
                cast[n] = self._dye(int(chosen[n]), int(rng.choice(sprite.dyes)))
        return cast

    def _dye(self, index: int, color: int) -> Sprite:
        if (index, color) not in self._dyed:
            self._dyed[index, color] = load_dyed_sprite(self.vocabulary[index], color)
        return self._dyed[index, color]

    def draw_with_target(self, frames: int, objects: int, gap: tuple[float, float]) -> SyntheticClip:
        """Draw clips until one has at least one fair target."""
        while True:
            clip = self.draw(frames, objects, gap)
            if clip.targets:
                return clip
