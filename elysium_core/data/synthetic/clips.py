"""Generated clips with true boxes: the data that elysium-nano is trained and tested on.

:class:`ClipGenerator` draws one clip after another; a :class:`ClipSource` draws clips by their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.assets import (
    SYSTEM_PHOTO_FOLDERS,
    Sprite,
    load_backgrounds,
    load_dyed_sprite,
    load_sprites,
    trainable_names,
)
from elysium_core.data.synthetic.compositing import apply_camera, draw_backgrounds, render_clip
from elysium_core.data.synthetic.scene import SceneConfig, draw_motion
from elysium_core.errors import ConfigError

# An object is a fair target if this share of it is visible in the first frame, and in every other one.
_MIN_VISIBLE_FIRST = 0.55
_MIN_VISIBLE = 0.25
# Below this share an object counts as gone.
_GONE = 0.02
# Share of twins that differ in colour; the others differ in size or place only.
_TWIN_DYE_SHARE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticClip:
    """A generated clip. N objects, T frames, S the frame's side [px].

    Attributes:
        images: (T, S, S, 3) uint8 RGB.
        names: N names without article; twins have the same name.
        name_index: (N,) int64, index of each name in the generator's vocabulary.
        boxes: (N, T, 4) float32, x1 y1 x2 y2 as fractions of the frame.
        visible: (N, T) float32, visible share of the object.
        owner: (T, S, S) int8, object on top of each pixel, -1 for background.
        colors: (N,) int64, index of each object's colour word in
            :data:`elysium_core.data.synthetic.colors.COLORS`, or NO_COLOR.
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
        """Indices of the objects that are visible enough in all frames to be asked for."""
        fair = (self.visible[:, 0] >= _MIN_VISIBLE_FIRST) & (self.visible.min(axis=1) >= _MIN_VISIBLE)
        return [int(n) for n in np.flatnonzero(fair)]

    @property
    def vanishing(self) -> list[int]:
        """Indices of the objects that are clearly visible at first and gone in some later frame."""
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
        """Colours that a sprite of the vocabulary may be dyed in."""
        return self._sprites[list(self.vocabulary).index(name)].dyes

    def reseed(self, *entropy: int) -> None:
        """Seed the random generator again: the next clip depends on these numbers only."""
        self._rng = np.random.default_rng(entropy)

    def draw(self, frames: int, objects: int, gap: tuple[float, float]) -> SyntheticClip:
        """Draw one clip.

        Args:
            frames: Number of frames T, >= 1.
            objects: Number of objects N, 1..vocabulary; only twins have the same name.
            gap: Range of the time between frames [time units]; in one unit an object moves
                by about 0.06 of the frame in each direction.
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
        """Return the sprites of a clip; ``chosen`` is changed where one becomes the twin of another."""
        rng, config = self._rng, self.config
        # No random number is drawn for a feature that is off, so that the frozen test set never changes.
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


_MOST_OBJECTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A clip with a name and its targets.

    Attributes:
        name: Unique in its data set, such as ``test-0007``.
        clip: Frames and true boxes.
        targets: Indices of the objects that may be asked for.
    """

    name: str
    clip: SyntheticClip
    targets: tuple[int, ...]


class ClipSource(Protocol):
    """A data set whose clips are drawn when they are needed."""

    @property
    def name(self) -> str:
        """Name of the split; file names begin with it."""
        ...

    def clip_name(self, index: int) -> str:
        """Name of clip ``index``."""
        ...

    def draw(self, index: int) -> Sample:
        """Draw clip ``index``; it is the same every time and in any order."""
        ...


@dataclass(frozen=True)
class TrainingClips:
    """Clips with names and backgrounds that may be trained on.

    Attributes:
        frames: Frames a clip, >= 1.
        seed: Seed of all randomness.
        objects: Fewest and most objects a clip.
        gap: Range of the time between frames [time units], see :class:`SceneConfig`.
        side_px: Side of the frames [px].
        photo_folders: Folders of background photos.
        names: Size of the vocabulary: the first N of :func:`trainable_names`.
        twin_share: Share of clips of several objects in which two have the same name.
        dye_share: Share of objects that are dyed in a colour.

    Raises:
        ConfigError: A value is out of range.
    """

    frames: int = 4
    seed: int = 0
    objects: tuple[int, int] = (1, 4)
    gap: tuple[float, float] = (0.5, 2.5)
    side_px: int = 128
    photo_folders: tuple[Path, ...] = SYSTEM_PHOTO_FOLDERS
    names: int = 261
    twin_share: float = 0.3
    dye_share: float = 0.25
    name: str = field(default="train", init=False)

    def __post_init__(self) -> None:
        fewest, most = self.objects
        if not 1 <= fewest <= most <= _MOST_OBJECTS:
            raise ConfigError(f"objects need 1 <= fewest <= most <= {_MOST_OBJECTS}, not {fewest} and {most}")
        if not 0 <= self.gap[0] <= self.gap[1]:
            raise ConfigError(f"a gap needs 0 <= shortest <= longest, not {self.gap[0]:g} and {self.gap[1]:g}")
        known = len(trainable_names())
        if not most < self.names <= known:
            raise ConfigError(f"names = {self.names} is not in {most + 1}..{known}")
        for what, share in (("twin_share", self.twin_share), ("dye_share", self.dye_share)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{what} = {share:g} is not in 0..1")
        if self.frames < 1 or self.seed < 0:
            raise ConfigError(f"frames = {self.frames} and seed = {self.seed} need frames >= 1 and seed >= 0")

    def clip_name(self, index: int) -> str:
        """Name of clip ``index``."""
        return f"{self.name}-{index:06d}"

    def draw(self, index: int) -> Sample:
        """Draw clip ``index``; see :class:`ClipSource`."""
        fewest, most = self.objects
        objects = int(np.random.default_rng([self.seed, index]).integers(fewest, most + 1))
        self._generator.reseed(self.seed, index, 1)
        clip = self._generator.draw_with_target(self.frames, objects, self.gap)
        return Sample(self.clip_name(index), clip, tuple(clip.targets))

    @cached_property
    def _generator(self) -> ClipGenerator:
        photos = load_backgrounds("train", self.photo_folders)
        scene = SceneConfig(side_px=self.side_px, twin_share=self.twin_share, dye_share=self.dye_share)
        return ClipGenerator(trainable_names()[: self.names], photos, self.seed, scene)
