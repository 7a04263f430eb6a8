"""Depth images of scenes with known geometry: a target before a wall, on a floor, behind a pole, with holes and noise.

Rays are cut with planes, spheres, boxes and upright cylinders, so every pixel's depth and owner are exact; then the
faults of a stereo camera are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from elysium_core.geometry import Box
from elysium_ros.perception.depth import Pinhole

WIDTH, HEIGHT = 640, 480
CAMERA = Pinhole(fx=0.85, fy=0.85 * WIDTH / HEIGHT, cx=0.5, cy=0.5)
"""About 61 degrees wide."""

Array = NDArray[np.float64]


def rays(width: int = WIDTH, height: int = HEIGHT) -> tuple[Array, Array]:
    """Return x and y of each pixel's ray at a depth of 1 m, shape (height, width)."""
    x = ((np.arange(width) + 0.5) / width - CAMERA.cx) / CAMERA.fx
    y = ((np.arange(height) + 0.5) / height - CAMERA.cy) / CAMERA.fy
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


@dataclass(frozen=True, slots=True)
class Cuboid:
    """A box along the axes: centre and size, ``(x, y, z)`` [m]. Walls and floors are flat ones."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]

    def depth(self, x: Array, y: Array) -> Array:
        """Return the depth of each ray [m], infinite where it misses."""
        near, far = np.zeros(x.shape), np.full(x.shape, np.inf)
        for ray, middle, extent in zip((x, y, np.ones_like(x)), self.center, self.size, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                ends = (middle - extent / 2) / ray, (middle + extent / 2) / ray
            near, far = np.fmax(near, np.fmin(*ends)), np.fmin(far, np.fmax(*ends))
        return np.where((far >= near) & (near > 0), near, np.inf)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A ball, or an egg along the axes: centre and size, ``(x, y, z)`` [m]."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]

    def depth(self, x: Array, y: Array) -> Array:
        """Return the depth of each ray [m], infinite where it misses."""
        halves = [extent / 2 for extent in self.size]
        ray = [x / halves[0], y / halves[1], np.full(x.shape, 1 / halves[2])]
        middle = [value / half for value, half in zip(self.center, halves, strict=True)]
        a = sum(part * part for part in ray)
        b = sum(part * value for part, value in zip(ray, middle, strict=True))
        root = b * b - a * (sum(value * value for value in middle) - 1)
        return np.where(root >= 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


Shape = Cuboid | Ellipsoid


@dataclass(frozen=True, slots=True)
class Scene:
    """A target and what is around it.

    Attributes:
        target: The parts of the target.
        others: Everything else.
        holes: Share of the pixels that have no depth.
        target_holes: Share of the target's own pixels that have none (glass, black leather).
        noise: Standard deviation of the depth at 1 m [m]; it grows with the square of the depth.
    """

    target: Sequence[Shape]
    others: Sequence[Shape] = field(default=())
    holes: float = 0.1
    target_holes: float = 0.0
    noise: float = 0.002

    def render(self, random: np.random.Generator) -> View:
        """Return the view of the camera at the origin.

        Args:
            random: Source of noise and holes.
        """
        x, y = rays()
        own = np.minimum.reduce([shape.depth(x, y) for shape in self.target])
        other = np.minimum.reduce([np.full(x.shape, np.inf), *(shape.depth(x, y) for shape in self.others)])
        exact, mask = np.minimum(own, other), own < other
        seen = exact + random.normal(0, 1, exact.shape) * self.noise * np.square(np.minimum(exact, 100.0))
        lost = random.random(exact.shape) < np.where(mask, np.maximum(self.holes, self.target_holes), self.holes)
        seen[lost | ~np.isfinite(exact)] = 0
        return View(np.rint(seen * 1000).clip(0, 65_535).astype(np.uint16), exact, mask)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A depth image and the truth about it.

    Attributes:
        depth_mm: What the camera gives [mm], 0 = hole, uint16, shape (height, width).
        exact: The depth of each pixel [m].
        mask: Pixels of the target that are seen.
    """

    depth_mm: NDArray[np.uint16]
    exact: Array
    mask: NDArray[np.bool_]

    @property
    def box(self) -> Box:
        """The box around the target's visible pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return Box(left / WIDTH, top / HEIGHT, right / WIDTH, bottom / HEIGHT)

    def truth(self) -> tuple[Array, Array]:
        """Return centre and size [m] of what is seen of the target: its mean depth, and the extent of its box there."""
        depth, box = float(self.exact[self.mask].mean()), self.box
        x1, x2 = ((value - CAMERA.cx) / CAMERA.fx * depth for value in (box.x1, box.x2))
        y1, y2 = ((value - CAMERA.cy) / CAMERA.fy * depth for value in (box.y1, box.y2))
        low, high = np.percentile(self.exact[self.mask], (5, 95))
        return np.array([(x1 + x2) / 2, (y1 + y2) / 2, depth]), np.array([x2 - x1, y2 - y1, high - low])


def loosened(box: Box, random: np.random.Generator, share: float) -> Box:
    """Return a box whose edges are off by up to a share of its sides, as a model's are."""
    shift = random.uniform(-share, share, 4) * [box.width, box.height, box.width, box.height]
    edges = np.clip(np.array([box.x1, box.y1, box.x2, box.y2]) + shift, 0.0, 1.0)
    return Box(*(float(edge) for edge in edges))


def wall(depth: float) -> Cuboid:
    """Return a wall across the view at a depth [m]."""
    return Cuboid((0.0, 0.0, depth + 0.5), (200.0, 200.0, 1.0))


def floor(below: float) -> Cuboid:
    """Return a floor so far below the camera [m]."""
    return Cuboid((0.0, below + 0.5, 0.0), (200.0, 1.0, 200.0))


def scenes(z: float, x: float) -> dict[str, Scene]:
    """Return one scene of each kind, by name.

    Args:
        z: Depth of the target's middle [m].
        x: Its place to the right of the axis [m].
    """
    person = (
        Cuboid((x, 0.55, z), (0.45, 1.1, 0.25)),
        Ellipsoid((x, -0.15, z), (0.22, 0.3, 0.22)),
    )
    ball = Ellipsoid((x, 0.0, z), (0.24, 0.24, 0.24))
    chair = tuple(Cuboid((x + side, 0.35, z + back), (0.05, 0.5, 0.05)) for side in (-0.2, 0.2) for back in (-0.2, 0.2))
    chair = (*chair, Cuboid((x, 0.1, z), (0.45, 0.05, 0.45)), Cuboid((x, -0.15, z + 0.2), (0.45, 0.45, 0.05)))
    mug = Cuboid((x, 0.0, z), (0.1, 0.12, 0.1))
    return {
        "ball, wall far behind": Scene((ball,), (wall(z + 3.0),)),
        "ball, wall 0.4 m behind": Scene((ball,), (wall(z + 0.4),)),
        "person on a floor": Scene(person, (floor(1.1), wall(z + 2.0))),
        "mug on a table": Scene((mug,), (Cuboid((x, 0.06 + 0.02, z), (1.2, 0.04, 0.8)), wall(z + 1.5))),
        "chair, mostly gaps": Scene(chair, (floor(0.6), wall(z + 2.0))),
        "ball behind a pole": Scene((ball,), (Cuboid((x, 0.0, 0.6 * z), (0.02, 4.0, 0.02)), wall(z + 2.0))),
        "person half behind a wall": Scene(
            person, (Cuboid((0.75 * x + 0.5, 0.0, 0.75 * z), (1.0, 4.0, 0.1)), wall(z + 2.0))
        ),
        "ball, half of it holes": Scene((ball,), (wall(z + 2.0),), target_holes=0.5),
        "ball of glass, all holes": Scene((ball,), (wall(z + 2.0),), target_holes=1.0),
    }
