"""Motion of things through a clip. Nothing is drawn here.

Shapes: T frames. Lengths are in pixels of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutouts import Cutout
from elysium_core.data.photos.scene_parts import lay
from elysium_core.data.photos.shot import Placed

# The middle of an object stays this far from the frame's edges, in its own sides.
_MARGIN = 0.6
_GROWTH, _TURN = 0.2, 0.15
_BEND_PERIODS = (1.0, 3.0)
# Of the whole clip: when an event happens, and how long an object is away.
_EVENT_TIMES = (0.4, 0.6)
_AWAY = (0.25, 0.4)
_GONE_TIMES = (0.3, 0.6)
# Beyond the edge by this many sides an object is surely not to be seen.
_OUTSIDE = 1.2


class ClipEvent(str, Enum):
    """What happens to the object of a clip."""

    NONE = "nothing"
    COVERED = "covered"
    LEAVES = "leaves and comes back"
    GONE = "gone"


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """How a cut-out moves.

    Attributes:
        cutout: The cut-out.
        centers: (T, 2) its middle.
        sizes: (T,) root of the area of its box.
        angles: (T,) its rotation [rad].
        bend: Nodes of its strongest bend; None = none.
        bends: (T,) share of that bend, -1..1.
        shown: (T,) whether it is drawn.
    """

    cutout: Cutout
    centers: NDArray[np.float64]
    sizes: NDArray[np.float64]
    angles: NDArray[np.float64]
    bend: NDArray[np.float64] | None
    bends: NDArray[np.float64]
    shown: NDArray[np.bool_]

    def at(self, frame: int) -> Placed:
        """The cut-out as it lies in a frame."""
        x, y = self.centers[frame]
        matrix = lay(self.cutout, x, y, float(self.sizes[frame]), float(self.angles[frame]))
        bend = None if self.bend is None else self.bend * self.bends[frame]
        return Placed(self.cutout, matrix, bend)


def draw_track(
    rng: np.random.Generator,
    cutout: Cutout,
    frames: int,
    frame_sides: tuple[int, int],
    size: float,
    speed: float,
    bend: NDArray[np.float64] | None = None,
) -> Track:
    """Draw a smooth motion inside the frame.

    Args:
        rng: Source of randomness.
        cutout: What moves.
        frames: T.
        frame_sides: Width and height of the frame.
        size: Usual size of the thing.
        speed: Standard deviation of its velocity along each axis [sides of the object a frame].
        bend: Nodes of its strongest bend, see :func:`draw_thin_plate`.
    """
    times, sides = np.arange(frames), np.array(frame_sides, np.float64)
    low = np.minimum(_MARGIN * size, sides / 2 - 1)
    start = rng.uniform(low, sides - low)
    velocity = rng.normal(0, speed * size, 2)
    wobble, period = rng.uniform(0, 0.5 * size, 2), rng.uniform(20, 60, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    swing = np.sin(2 * np.pi * times[:, None] / period + phase) - np.sin(phase)
    centers = _reflected(start + velocity * times[:, None] + wobble * swing, low, sides - low)
    slow = 2 * np.pi * times / rng.uniform(60, 160)
    sizes = size * np.exp(rng.normal(0, _GROWTH) * np.sin(slow + rng.uniform(0, 2 * np.pi)))
    angles = rng.normal(0, _TURN) * np.sin(slow * rng.uniform(0.5, 2)) + rng.normal(0, _TURN / 2)
    bends = np.sin(2 * np.pi * rng.uniform(*_BEND_PERIODS) * times / max(frames, 1))
    return Track(cutout, centers, sizes, angles, bend, bends, np.ones(frames, bool))


def leaving(rng: np.random.Generator, track: Track, frame_sides: tuple[int, int]) -> Track:
    """The same motion, but the thing leaves over the nearest side of the frame and comes back."""
    frames = len(track.centers)
    middle, away = rng.uniform(*_EVENT_TIMES) * frames, rng.uniform(*_AWAY) * frames
    # Away for the middle half of the time, on its way for the rest.
    way = np.clip(2 * (1 - np.abs(np.arange(frames) - middle) / (away / 2)), 0, 1)
    ease = way * way * (3 - 2 * way)
    x, y = track.centers[int(middle)]
    width, height = frame_sides
    reach = _OUTSIDE * float(track.sizes.max())
    ways = np.array([[-x - reach, 0], [width - x + reach, 0], [0, -y - reach], [0, height - y + reach]])
    nearest = ways[int(np.abs(ways).sum(axis=1).argmin())]
    target = track.centers[int(middle)] + nearest
    axis = int(np.abs(nearest).argmax())
    centers = track.centers.copy()
    centers[:, axis] += ease * (target[axis] - centers[:, axis])
    return replace(track, centers=centers)


def vanishing(rng: np.random.Generator, track: Track) -> Track:
    """The same motion, but the thing is gone from some frame on."""
    frames = len(track.centers)
    first_gone = int(rng.uniform(*_GONE_TIMES) * frames)
    return replace(track, shown=np.arange(frames) < first_gone)


def crossing(rng: np.random.Generator, track: Track, cutout: Cutout) -> Track:
    """A motion of something larger that passes in front of a thing and covers it for a while."""
    frames = len(track.centers)
    middle = rng.uniform(*_EVENT_TIMES) * frames
    angle, size = rng.uniform(0, 2 * np.pi), 1.6 * float(track.sizes.max())
    speed = rng.uniform(0.04, 0.09) * size
    way = (np.arange(frames) - middle)[:, None] * speed * np.array([np.cos(angle), np.sin(angle)])
    zeros = np.zeros(frames)
    return Track(cutout, track.centers + way, np.full(frames, size), zeros, None, zeros, np.ones(frames, bool))


def _reflected(value: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fold any number into low..high, as a ball bounces between two walls."""
    span = np.maximum(high - low, 1e-6)
    folded = np.mod(value - low, 2 * span)
    return np.asarray(low + np.where(folded > span, 2 * span - folded, folded))
