"""Scenes of generated clips: sizes, positions and motion of the objects. Nothing is rendered here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ConfigError

MIN_SIDE_PX, MAX_SIDE_PX = 32, 960
"""Range of a frame's side [px]; the noise field that is added to frames is not larger."""


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """Ranges that scenes are drawn from; lengths are fractions of the frame's side.

    Attributes:
        side_px: Side of the square frames [px].
        min_side: Smallest sprite; below .16 the rounding of boxes to 0..100 alone costs much IoU.
        max_side: Largest sprite.
        speed: Standard deviation of each velocity component [frame sides per time unit].
        scale_rate: Standard deviation of the log-scale's rate [1 per time unit].
        spin: Standard deviation of the rotation rate [rad per time unit].
        tilt: Largest rotation in the first frame [rad].
        procedural_share: Share of clips on a procedural background, 0..1.
        vanish_share: Share of clips of several frames in which one object disappears for good.
        twin_share: Share of clips of several objects in which two have the same name.
        dye_share: Share of objects that are dyed in a colour; if it is not 0, more of the twins are dyed.
        aspects: Height over width of the simulated cameras, one drawn for each clip: a model
            sees every picture squashed to a square.
    """

    side_px: int = 128
    min_side: float = 0.16
    max_side: float = 0.5
    speed: float = 0.06
    scale_rate: float = 0.05
    spin: float = 0.06
    tilt: float = 0.35
    procedural_share: float = 0.25
    vanish_share: float = 0.0
    twin_share: float = 0.0
    dye_share: float = 0.0
    aspects: tuple[float, ...] = (1.0, 0.75, 0.5625)

    def __post_init__(self) -> None:
        if not 0 < self.min_side <= self.max_side <= 1:
            raise ConfigError(f"sprite sides need 0 < min <= max <= 1, not {self.min_side} and {self.max_side}")
        if not MIN_SIDE_PX <= self.side_px <= MAX_SIDE_PX:
            raise ConfigError(f"side_px = {self.side_px} is not in {MIN_SIDE_PX}..{MAX_SIDE_PX}")


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Positions and shapes of every object in every frame.

    Shapes: N objects, T frames.

    Attributes:
        center: (N, T, 2), fractions of the frame; reflected at the edges.
        side: (N, T), length of the sprite's longer side.
        angle: (N, T) [rad].
        stretch: (N,), width over height of the sprite, around 1.
        squash: Factor for the width of everything, see ``aspects``.
        present: (N, T) bool; an object that is not present is not rendered.
    """

    center: NDArray[np.float64]
    side: NDArray[np.float64]
    angle: NDArray[np.float64]
    stretch: NDArray[np.float64]
    squash: float
    present: NDArray[np.bool_]


def draw_motion(rng: np.random.Generator, config: SceneConfig, objects: int, times: NDArray[np.float64]) -> Motion:
    """Draw smooth motions.

    Args:
        rng: Source of all randomness.
        config: Ranges.
        objects: Number of objects, N.
        times: Shape (T,), ascending times of the frames [time units].
    """
    count = (objects, 1)
    side0 = np.exp(rng.uniform(np.log(config.min_side), np.log(config.max_side), count))
    start = rng.uniform(0.12, 0.88, (objects, 1, 2))
    velocity = rng.normal(0, config.speed, (objects, 1, 2))
    wobble = rng.uniform(0, 0.03, (objects, 1, 2))
    phase = rng.uniform(0, 2 * np.pi, (objects, 1, 2))
    time = times[None, :, None]
    center = start + velocity * time + wobble * (np.sin(0.5 * time + phase) - np.sin(phase))
    growth = np.log(side0) + rng.normal(0, config.scale_rate, count) * times[None, :]
    side = np.exp(_reflect(growth, np.log(config.min_side), np.log(config.max_side)))
    angle = rng.uniform(-config.tilt, config.tilt, count) + rng.normal(0, config.spin, count) * times[None, :]
    stretch = np.exp(rng.normal(0, 0.1, objects))
    squash = float(rng.choice(config.aspects))
    present = np.ones((objects, len(times)), bool)
    if len(times) > 1 and rng.random() < config.vanish_share:
        present[rng.integers(objects), rng.integers(1, len(times)) :] = False
    return Motion(_reflect(center, 0.06, 0.94), side, angle, stretch, squash, present)


def _reflect(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Fold any real number into low..high, as a ball bounces between two walls."""
    span = high - low
    if span <= 0:
        return np.full_like(value, low)
    folded = np.mod(value - low, 2 * span)
    return low + np.where(folded > span, 2 * span - folded, folded)
