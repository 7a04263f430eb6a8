"""Boxes and their arithmetic.

A :class:`Box` is always ``x1, y1, x2, y2``, normalised to the frame (0..1), with x to the right and
y down. Edges are real numbers: the width is ``x2 - x1``, without "+1 pixel". Boxes in pixels are
converted by :meth:`Box.from_px` and :meth:`Box.to_px`, where they enter or leave the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elysium_core.errors import BoxError

# Rounding may move an edge this far outside the frame; such an edge is clamped without an error.
_EDGE_TOLERANCE = 1e-6
_LONGEST_BOX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box, normalised to its frame.

    Attributes:
        x1: Left edge, 0..1 of the frame's width.
        y1: Top edge, 0..1 of the frame's height.
        x2: Right edge, greater than ``x1``.
        y2: Bottom edge, greater than ``y1``.

    Raises:
        BoxError: A coordinate is not finite, lies outside 0..1, or the box is
            reversed or empty.

    Example:
        >>> Box(0.1, 0.2, 0.5, 0.6).area
        0.16
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        values = [float(v) for v in (self.x1, self.y1, self.x2, self.y2)]
        if not all(math.isfinite(v) for v in values):
            raise BoxError(f"box {_show(values)} has a coordinate that is not finite")
        low, high = min(values), max(values)
        if low < -_EDGE_TOLERANCE or high > 1 + _EDGE_TOLERANCE:
            raise BoxError(
                f"box {_show(values)} lies outside the frame; coordinates are fractions 0..1 "
                "of width and height (pixels: Box.from_px in Python)"
            )
        values = [min(1.0, max(0.0, v)) for v in values]
        # The area of two tiny sides can be rounded to 0; the IoU of such a box with itself would be undefined.
        if values[2] <= values[0] or values[3] <= values[1] or (values[2] - values[0]) * (values[3] - values[1]) <= 0:
            raise BoxError(f"box {_show(values)} is reversed or empty; it needs x1 < x2 and y1 < y2")
        for name, value in zip(("x1", "y1", "x2", "y2"), values, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def from_px(cls, x1: float, y1: float, x2: float, y2: float, width: int, height: int, *, clip: bool = False) -> Box:
        """Build a box from pixel edges.

        Args:
            x1: Left edge [px].
            y1: Top edge [px].
            x2: Right edge [px], exclusive.
            y2: Bottom edge [px], exclusive.
            width: Frame width [px], > 0.
            height: Frame height [px], > 0.
            clip: Cut a box that is partly outside down to the frame.

        Raises:
            BoxError: As for the constructor; outside boxes too unless ``clip``.
        """
        if width <= 0 or height <= 0:
            raise BoxError(f"a frame of {width}x{height} px cannot hold a box")
        values = [float(x1) / width, float(y1) / height, float(x2) / width, float(y2) / height]
        if clip and all(math.isfinite(v) for v in values):
            values = [min(1.0, max(0.0, v)) for v in values]
        elif min(values) < -_EDGE_TOLERANCE or max(values) > 1 + _EDGE_TOLERANCE:
            raise BoxError(f"box {_show([x1, y1, x2, y2])} px lies outside the {width}x{height} px frame")
        return cls(*values)

    @classmethod
    def from_xywh_px(cls, x: float, y: float, w: float, h: float, width: int, height: int) -> Box:
        """Build a box from left, top, width, height in pixels, cut to the frame.

        Raises:
            BoxError: The part inside the frame is empty.
        """
        return cls.from_px(x, y, x + w, y + h, width, height, clip=True)

    def to_px(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return ``(x1, y1, x2, y2)`` in pixels of a ``width`` x ``height`` frame."""
        return self.x1 * width, self.y1 * height, self.x2 * width, self.y2 * height

    @property
    def width(self) -> float:
        """Width as a fraction of the frame's width, in (0, 1]."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height as a fraction of the frame's height, in (0, 1]."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Area as a fraction of the frame's area, in (0, 1]."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """Centre ``(x, y)``, normalised."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def iou(self, other: Box) -> float:
        """Intersection over union with another box of the same frame, 0..1."""
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        if width <= 0 or height <= 0:
            return 0.0
        intersection = width * height
        return intersection / (self.area + other.area - intersection)

    def as_list(self) -> list[float]:
        """Return ``[x1, y1, x2, y2]``, normalised."""
        return [self.x1, self.y1, self.x2, self.y2]

    def __iter__(self) -> Iterator[float]:
        return iter((self.x1, self.y1, self.x2, self.y2))


def parse_box(text: str, width: int, height: int) -> Box:
    """Read a box from text: ``"0.1,0.2,0.5,0.6"``, ``"64,48,320,240"``, ``"0px,0px,9px,9px"``.

    Values are fractions of the frame unless all four are greater than 1 or all
    four end in ``px``.

    Args:
        text: Four numbers separated by commas.
        width: Frame width [px].
        height: Frame height [px].

    Raises:
        BoxError: Not four numbers, or not a valid box.
    """
    parts = [part.strip() for part in text[:_LONGEST_BOX_TEXT].split(",")]
    pixels = all(part.endswith("px") for part in parts)
    try:
        values = [float(part.removesuffix("px")) for part in parts]
    except ValueError:
        values = []
    mixed = not pixels and any(part.endswith("px") for part in parts)
    if len(values) != 4 or mixed or len(text) > _LONGEST_BOX_TEXT:
        raise BoxError(f"cannot read a box from {text[:80]!r}; write X1,Y1,X2,Y2, all as fractions 0..1 or all in px")
    x1, y1, x2, y2 = values
    if pixels or all(v > 1 for v in values):
        return Box.from_px(x1, y1, x2, y2, width, height)
    if any(v > 1 for v in values):
        raise BoxError(
            f"box {_show(values)} has a value over 1, so it is not in fractions of the frame; "
            "for pixels end all four in px: 0px,0px,64px,48px"
        )
    return Box(x1, y1, x2, y2)


def pairwise_iou(boxes_a_xyxy: ArrayLike, boxes_b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """IoU of two equally long lists of boxes, row by row, without "+1".

    Args:
        boxes_a_xyxy: Shape (N, 4), any common unit.
        boxes_b_xyxy: Shape (N, 4).

    Returns:
        Shape (N,), 0..1; a reversed, empty or NaN box scores 0.

    Raises:
        ValueError: The lists differ in length.
    """
    a = np.asarray(boxes_a_xyxy, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(boxes_b_xyxy, dtype=np.float64).reshape(-1, 4)
    if a.shape != b.shape:
        raise ValueError(f"pairwise IoU needs equally many boxes, not {len(a)} and {len(b)}")
    # Reversed, infinite and NaN boxes score 0; numpy must not warn about them.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        size = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        intersection = np.clip(size, 0, None).prod(axis=1)
        area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(axis=1)
        area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1)
        union = area_a + area_b - intersection
        iou = np.where(union > 0, intersection / union, 0.0)
    return np.nan_to_num(iou, nan=0.0)


def _show(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
