"""Geometry of what a picture may go through between two looks: exact for pixels and for points alike.

A :class:`View` maps a picture onto an output. Pixels are sampled through its inverse, points are mapped forward, so
that a box is true after any chain of moves. Points are in pixels with edges as real numbers: the centre of the first
pixel is at 0.5. Homographies are 3 x 3 and map column vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
"""A homography, (3, 3)."""

# Thin plates are bent at 4 x 4 points and stored at 17 x 17 nodes.
_CONTROLS, _NODES = 4, 17
_MOST_SIGMA = 2.0
_ROUNDS = 8
# Sampling at single points skips pixels when a picture is shrunk by more than this.
_MOST_STEP, _SHRUNK_STEP = 1.6, 1.2


def translation(x: float, y: float) -> Matrix:
    """Move by (x, y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> Matrix:
    """Stretch along both axes."""
    return np.diag([x, y, 1.0])


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """The same change with (x, y) as its fixed point."""
    return translation(x, y) @ matrix @ translation(-x, -y)


def rotation(radians: float) -> Matrix:
    """Turn about the origin, clockwise on the screen."""
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)


def tilt(x: float, y: float) -> Matrix:
    """Perspective: things shrink by the factor ``1 + x * px`` to the right, ``1 + y * px`` downwards."""
    return np.array([[1, 0, 0], [0, 1, 0], [x, y, 1]], np.float64)


def project(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points (N, 2)."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def corners(width: float, height: float) -> NDArray[np.float64]:
    """The four corners of a picture, (4, 2)."""
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box around points (N, 2): x1, y1, x2, y2."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _thin_plate_basis() -> NDArray[np.float64]:
    """Displacement at every node for a unit displacement at every control point, (nodes, controls)."""
    line = np.linspace(0, 1, _CONTROLS)
    controls = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    line = np.linspace(0, 1, _NODES)
    nodes = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)

    def kernel(a: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = ((a[:, None] - controls[None]) ** 2).sum(-1)
        return np.asarray(np.where(squared > 0, squared * np.log(np.maximum(squared, 1e-12)), 0))

    count = len(controls)
    affine = np.column_stack([np.ones(count), controls])
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(controls)
    system[:count, count:], system[count:, :count] = affine, affine.T
    solved = np.linalg.solve(system, np.eye(count + 3)[:, :count])
    return np.asarray(np.column_stack([kernel(nodes), np.ones(len(nodes)), nodes]) @ solved)


_BASIS = _thin_plate_basis()


def draw_thin_plate(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Draw a smooth warp.

    Args:
        rng: Source of randomness.
        strength: Standard deviation of the displacement at its control points, as a fraction of the warped area's
            sides; up to 0.08 or so, beyond which a picture would fold over.

    Returns:
        (2, 17, 17): displacement in x and y at nodes over the unit square, as fractions of the sides.
    """
    moves = np.clip(rng.normal(0, 1, (_CONTROLS**2, 2)), -_MOST_SIGMA, _MOST_SIGMA) * strength
    return np.asarray((_BASIS @ moves).T.reshape(2, _NODES, _NODES))


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """A smooth warp of a part of the output. Between its nodes it is linear; outside the part it goes on unchanged.

    Attributes:
        nodes: As :func:`draw_thin_plate` returns them.
        left: Left edge of the part [px].
        top: Its top edge.
        width: Its width.
        height: Its height.
    """

    nodes: NDArray[np.float64]
    left: float
    top: float
    width: float
    height: float

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacement [px] of points (N, 2) of the output."""
        along_x = _weights((points[:, 0] - self.left) / self.width)
        along_y = _weights((points[:, 1] - self.top) / self.height)
        moved = ((along_y @ self.nodes) * along_x).sum(-1)  # (2, N)
        return np.asarray(moved.T * [self.width, self.height])

    def on_grid(self, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> tuple[Matrix, Matrix]:
        """Displacement [px] in x and in y of every point of a grid, (len(ys), len(xs)) each."""
        along_x = _weights((xs - self.left) / self.width)
        along_y = _weights((ys - self.top) / self.height)
        dx = along_y @ self.nodes[0] @ along_x.T * self.width
        dy = along_y @ self.nodes[1] @ along_x.T * self.height
        return dx, dy

    @property
    def reach(self) -> float:
        """Largest displacement [px]."""
        return float(np.abs(self.nodes).max()) * max(self.width, self.height)


def _weights(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear weights of the nodes for places 0..1 along one axis, (N, nodes)."""
    at = np.clip(places, 0, 1) * (_NODES - 1)
    return np.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(_NODES)), 0), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How a picture lies in an output.

    Attributes:
        matrix: Picture [px] to output [px], before the bend.
        bend: A warp of the output; None = none.
    """

    matrix: Matrix
    bend: Bend | None = None

    def forward(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points (N, 2) of the picture to the output [px]."""
        straight = project(self.matrix, points)
        if self.bend is None:
            return straight
        # A pixel q of the output shows what would be at q + bend(q): q is found by repeated substitution.
        found = straight
        for _ in range(_ROUNDS):
            found = straight - self.bend.at(found)
        return found

    def sources(self, region: tuple[int, int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Where in the picture [px] each pixel of a region (x1, y1, x2, y2) of the output comes from: x and y."""
        xs = np.arange(region[0], region[2], dtype=np.float64) + 0.5
        ys = np.arange(region[1], region[3], dtype=np.float64) + 0.5
        x, y = np.broadcast_arrays(xs[None, :], ys[:, None])
        if self.bend is not None:
            dx, dy = self.bend.on_grid(xs, ys)
            x, y = x + dx, y + dy
        inverse = np.linalg.inv(self.matrix)
        below = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
        from_x = (inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]) / below
        from_y = (inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]) / below
        return from_x.astype(np.float32), from_y.astype(np.float32)

    def step(self, region: tuple[int, int, int, int]) -> float:
        """Pixels of the picture for each pixel of the output, in the middle of a region."""
        x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
        points = np.array([[x, y], [x + 1, y], [x, y + 1]], np.float64)
        around = project(np.asarray(np.linalg.inv(self.matrix), np.float64), points)
        (a, b), (c, d) = around[1] - around[0], around[2] - around[0]
        return float(np.sqrt(abs(a * d - b * c)))


def sample(
    picture: NDArray[np.uint8], view: View, region: tuple[int, int, int, int], border: int = cv2.BORDER_REFLECT_101
) -> NDArray[np.uint8]:
    """Draw a region of the output that a picture is mapped onto.

    Args:
        picture: uint8 (H, W, C).
        view: How it lies in the output.
        region: x1, y1, x2, y2 of the output, whole pixels, not empty.
        border: OpenCV's constant for what is outside the picture; ``cv2.BORDER_CONSTANT`` is 0.

    Returns:
        uint8 (y2 - y1, x2 - x1, C).
    """
    step = view.step(region)
    height, width = picture.shape[:2]
    if _MOST_STEP < step < min(height, width):
        size = max(1, round(width * _SHRUNK_STEP / step)), max(1, round(height * _SHRUNK_STEP / step))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        view = View(view.matrix @ scaling(width / size[0], height / size[1]), view.bend)
    from_x, from_y = view.sources(region)
    drawn = cv2.remap(picture, from_x - 0.5, from_y - 0.5, cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(drawn, np.uint8)
