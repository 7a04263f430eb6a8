"""Clips by number: where generated data sets come from, one clip at a time and in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from elysium_core.data.synthetic.assets import SYSTEM_PHOTO_FOLDERS, load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.errors import ConfigError

_MOST_OBJECTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A clip with a name.

    Attributes:
        name: Unique in its data set, such as ``test-0007``.
        clip: Pictures and truth.
        targets: Indices of the objects that may fairly be asked for.
    """

    name: str
    clip: SyntheticClip
    targets: tuple[int, ...]


class ClipSource(Protocol):
    """A data set that is drawn, not stored."""

    @property
    def name(self) -> str:
        """Name of the split; file names begin with it."""
        ...

    def clip_name(self, index: int) -> str:
        """Name of clip ``index``."""
        ...

    def draw(self, index: int) -> Sample:
        """Draw clip ``index``, the same one however often and in whatever order it is asked for."""
        ...


@dataclass(frozen=True)
class TrainingClips:
    """Clips with the names and backgrounds that may be trained on.

    Attributes:
        frames: Frames a clip, >= 1.
        seed: Seed of everything.
        objects: Fewest and most objects a clip.
        gap: Range of the time between frames [time units], see :class:`SceneConfig`.
        side_px: Side of the frames [px].
        photo_folders: Where background photos are searched.
        names: Size of the vocabulary, the first so many of :func:`trainable_names`.
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
