"""Where a box of an image is in space, from a depth image of the same view. Pure functions on arrays; imports no ROS.

Most boxes hold more than their object: background in the corners, something thin in front, pixels without depth. So
the object is taken to be the nearest surface that fills a good part of the box, with more weight on its middle, and
what continues it without a gap. If no surface fills enough of the box, there is no position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.geometry import Box

# Pixels looked at on each side of a box; those of a larger box are thinned out.
_SAMPLES = 48
# Width of the bell of weights over a box, in halves of the box: an edge has a seventh of the weight of the middle.
_BELL = 0.5
# Depths within this ratio are one surface.
_LAYER = 1.1
# A surface counts from this share of the weight of the box, and of the heaviest surface, on.
_LEAST_OF_BOX, _LEAST_OF_HEAVIEST = 0.2, 0.4
# Depths continue a surface up to a gap of this share of the depth, but at least of so much [m].
_GAP, _LEAST_GAP_M = 0.02, 0.015
# A column or row belongs to the object if it holds this share of the pixels of its fullest one.
_FULL = 0.15
# Fewer pixels than this are not measured.
_LEAST_PIXELS = 6


@dataclass(frozen=True, slots=True)
class Pinhole:
    """A camera without distortion.

    Attributes:
        fx: Focal length in x, as a fraction of the image's width, > 0.
        fy: Focal length in y, as a fraction of the image's height, > 0.
        cx: Optical axis, as a fraction of the image's width from its left edge.
        cy: Optical axis, as a fraction of the image's height from its top edge.
    """

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True, slots=True)
class Position:
    """An object in the optical frame of its camera: x right, y down, z forward.

    Attributes:
        center: Centre of the surface that is seen, ``(x, y, z)`` [m], z > 0.
        size: Extent of that surface along the axes, ``(x, y, z)`` [m], >= 0.
        support: Share of the weight of the box that is on this surface, 0..1.
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    support: float


def find_position(depth: NDArray[Any], metres: float, box: Box, camera: Pinhole) -> Position | None:
    """Measure what a box shows.

    Args:
        depth: Depth along the optical axis, integers or floats, shape (height, width), of the view that the box is in,
            at any resolution. Zero, negative and non-finite values are holes.
        metres: Metres a unit of ``depth``, > 0.
        box: The box.
        camera: The camera of that view.

    Returns:
        The position, or None if too little of the box has a depth, or its depths belong to no one surface.
    """
    height, width = depth.shape
    rows, columns = _places(box.y1, box.y2, height), _places(box.x1, box.x2, width)
    patch = depth[rows[0] : rows[-1] + 1 : _step(rows), columns[0] : columns[-1] + 1 : _step(columns)]
    patch = np.asarray(patch, dtype=np.float32) * np.float32(metres)
    valid = np.isfinite(patch) & (patch > 0)
    if np.count_nonzero(valid) < _LEAST_PIXELS:
        return None
    weights = np.outer(_bell(rows, box.y1, box.y2, height), _bell(columns, box.x1, box.x2, width))
    depths, order = patch[valid], np.argsort(patch[valid])
    ordered = depths[order]
    extent_m = min(box.width / camera.fx, box.height / camera.fy)
    layer = _object_layer(ordered, weights[valid][order], float(weights.sum()), extent_m)
    if layer is None:
        return None
    near, far = layer
    surface = valid & (patch >= near) & (patch <= far)
    return _measure(patch, surface, weights, (rows / height, columns / width), camera)


def _places(low: float, high: float, size: int) -> NDArray[np.int64]:
    """Return the pixels between two fractions of a side, at least one, thinned out evenly."""
    first = min(int(low * size), size - 1)
    last = max(first, min(round(high * size), size) - 1)
    return np.arange(first, last + 1, max(1, -(-(last + 1 - first) // _SAMPLES)))


def _step(places: NDArray[np.int64]) -> int:
    return int(places[1] - places[0]) if len(places) > 1 else 1


def _bell(places: NDArray[np.int64], low: float, high: float, size: int) -> NDArray[np.float64]:
    # A box narrower than a pixel has a bell as wide as one, or the pixel would have no weight.
    middle, half = (low + high) / 2 * size, max(0.5, (high - low) / 2 * size)
    bell: NDArray[np.float64] = np.exp(-0.5 * np.square((places + 0.5 - middle) / (half * _BELL)))
    return bell


def _object_layer(
    depths: NDArray[np.float32], weights: NDArray[np.float64], whole: float, extent: float
) -> tuple[float, float] | None:
    """Return the nearest and farthest depth of the object [m]; None if no surface is heavy enough.

    Args:
        depths: All depths, ascending [m].
        weights: Their weights.
        whole: Weight of the box, holes included.
        extent: The shorter side of the box at a depth of 1 m [m]; an object is taken to be about as deep as that.
    """
    sums = np.concatenate(([0.0], np.cumsum(weights)))
    ends = np.searchsorted(depths, depths * np.float32(_LAYER), side="right")
    layers = sums[ends] - sums[:-1]
    heaviest = float(layers.max())
    if heaviest < _LEAST_OF_BOX * whole:
        return None
    first = int(np.argmax(layers >= max(_LEAST_OF_BOX * whole, _LEAST_OF_HEAVIEST * heaviest)))
    # The layer that begins there may end in the middle of the surface; the heaviest one that begins in it does not.
    begin = first + int(np.argmax(layers[first : int(ends[first])]))
    end = int(ends[begin])
    middle = float(depths[np.searchsorted(sums, (sums[begin] + sums[end]) / 2) - 1])
    gap_m, reach_m = max(_LEAST_GAP_M, _GAP * middle), max(extent * middle, (_LAYER - 1) * middle)
    breaks = np.flatnonzero(np.diff(depths) > gap_m)
    before, after = breaks[breaks < begin], breaks[breaks >= end - 1]
    low = int(before[-1]) + 1 if len(before) else 0
    high = int(after[0]) if len(after) else len(depths) - 1
    return max(float(depths[low]), middle - reach_m), min(float(depths[high]), middle + reach_m)


def _measure(
    patch: NDArray[np.float32],
    surface: NDArray[np.bool_],
    weights: NDArray[np.float64],
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    camera: Pinhole,
) -> Position | None:
    """Return centre and size of the pixels of a surface; ``places`` are their rows and columns as fractions."""
    depths, support = patch[surface], float(weights[surface].sum() / weights.sum())
    if len(depths) < _LEAST_PIXELS:
        return None
    low, middle, high = (float(value) for value in np.percentile(depths, (5, 50, 95)))
    top, bottom = _span(surface.sum(axis=1), places[0])
    left, right = _span(surface.sum(axis=0), places[1])
    x1, x2 = ((value - camera.cx) / camera.fx * middle for value in (left, right))
    y1, y2 = ((value - camera.cy) / camera.fy * middle for value in (top, bottom))
    return Position(((x1 + x2) / 2, (y1 + y2) / 2, middle), (x2 - x1, y2 - y1, high - low), support)


def _span(counts: NDArray[np.int64], places: NDArray[np.float64]) -> tuple[float, float]:
    """Return the edges of the places that hold enough pixels."""
    full = places[counts >= _FULL * counts.max()]
    step = float(places[1] - places[0]) if len(places) > 1 else 0.0
    return float(full[0]), float(full[-1]) + step
