"""Cutting an object out of a photo with GrabCut, and telling good cut-outs from bad ones.

No mask is known, so a cut-out is judged by its shape alone: it fills its box, is one piece, ends at edges of the photo
and is not just the box itself. What fails is thrown away; there are more photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.geometry import Box


class Rejected(str, Enum):
    """Why no cut-out was made of an object."""

    UNREADABLE = "photo unreadable"
    SMALL = "object too small"
    FAILED = "no separable foreground"
    SHARE = "fills too little or too much of its box"
    PIECES = "several pieces"
    EXTENT = "does not reach the sides of its box"
    BOX = "ends at the box, not at the object"
    EDGES = "does not end at edges of the photo"
    RAGGED = "ragged outline"


@dataclass(frozen=True, slots=True)
class CutSettings:
    """How objects are cut out, and what is kept.

    Attributes:
        work_px: Longer side of the part of the photo that is worked on.
        out_px: Longer side of a cut-out, at most.
        margin: Background around the box that the colours of the background are learnt from, of its sides.
        iterations: Iterations of GrabCut.
        least_side_px: Shorter side of the box in the photo.
        share: Fewest and most of its box that an object may fill.
        least_largest_piece: Share of the largest piece of all foreground.
        least_extent: IoU of the foreground's box and the given box, where that is a true box.
        least_loose_extent: The same where the given box is only the middle of the picture.
        most_on_box: Share of the box's outline that may be foreground.
        most_rectangular: Share of its own box that an object may fill: what fills more is a picture in a picture.
        least_edge: Gradient along the outline over the mean gradient of the part.
        most_ragged: Length of the outline over that of a circle of the same area.
    """

    work_px: int = 120
    out_px: int = 112
    margin: float = 0.25
    iterations: int = 3
    least_side_px: int = 24
    share: tuple[float, float] = (0.25, 0.9)
    least_largest_piece: float = 0.85
    least_extent: float = 0.7
    least_loose_extent: float = 0.25
    most_on_box: float = 0.4
    most_rectangular: float = 0.95
    least_edge: float = 1.25
    most_ragged: float = 2.6


def cut_out(
    image: NDArray[np.uint8], box: Box, settings: CutSettings, *, is_true_box: bool
) -> NDArray[np.uint8] | Rejected:
    """Cut the object in a box out of a photo. The result depends on the arguments alone.

    Args:
        image: RGB uint8 (H, W, 3).
        box: The object.
        settings: Sizes and limits.
        is_true_box: The box was annotated; otherwise it is only the middle of the picture.

    Returns:
        RGBA uint8 (h, w, 4), cut to the object; or why there is none.
    """
    part, inner = _part_around(image, box, settings)
    if min(inner[2], inner[3]) < settings.least_side_px:
        return Rejected.SMALL
    part, inner = _scaled(part, inner, settings.work_px)
    mask = _foreground(part, inner, settings.iterations)
    if mask is None:
        return Rejected.FAILED
    solid, reason = _largest_piece(mask, inner, settings)
    if reason is None:
        reason = _why_bad(part, solid, inner, settings, is_true_box)
    return reason if reason is not None else _with_alpha(part, solid, settings.out_px)


_Rect = tuple[int, int, int, int]
"""Left, top, width, height [px]."""


def _part_around(image: NDArray[np.uint8], box: Box, settings: CutSettings) -> tuple[NDArray[np.uint8], _Rect]:
    """The box with a margin, and the box in it."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box.to_px(width, height)
    dx, dy = settings.margin * (x2 - x1), settings.margin * (y2 - y1)
    left, top = max(0, int(x1 - dx)), max(0, int(y1 - dy))
    right, bottom = min(width, int(np.ceil(x2 + dx))), min(height, int(np.ceil(y2 + dy)))
    inner = (round(x1) - left, round(y1) - top, round(x2 - x1), round(y2 - y1))
    return image[top:bottom, left:right], inner


def _scaled(part: NDArray[np.uint8], inner: _Rect, work_px: int) -> tuple[NDArray[np.uint8], _Rect]:
    scale = work_px / max(part.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(part), inner
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    x, y, w, h = (round(value * scale) for value in inner)
    return small, (x, y, min(w, size[0] - x), min(h, size[1] - y))


def _foreground(part: NDArray[np.uint8], inner: _Rect, iterations: int) -> NDArray[np.uint8] | None:
    mask = np.zeros(part.shape[:2], np.uint8)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    # GrabCut draws random numbers of OpenCV; without this a cut-out would depend on those before it.
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(part, mask, inner, background, foreground, iterations, cv2.GC_INIT_WITH_RECT)
    except cv2.error:
        return None  # for example a box that leaves no background
    found = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)


def _largest_piece(
    mask: NDArray[np.uint8], inner: _Rect, settings: CutSettings
) -> tuple[NDArray[np.uint8], Rejected | None]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask, Rejected.FAILED
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = int(areas.argmax())
    share = areas[largest] / (inner[2] * inner[3])
    if not settings.share[0] <= share <= settings.share[1]:
        return mask, Rejected.SHARE
    if areas[largest] < settings.least_largest_piece * areas.sum():
        return mask, Rejected.PIECES
    piece = (labels == largest + 1).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(piece, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.uint8), None


def _why_bad(
    part: NDArray[np.uint8], solid: NDArray[np.uint8], inner: _Rect, settings: CutSettings, is_true_box: bool
) -> Rejected | None:
    x, y, w, h = inner
    _, _, bw, bh = cv2.boundingRect(solid)
    least = settings.least_extent if is_true_box else settings.least_loose_extent
    if bw * bh < least * w * h:
        return Rejected.EXTENT
    inside = solid[y : y + h, x : x + w]
    ring = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if ring.mean() > settings.most_on_box or solid.sum() > settings.most_rectangular * bw * bh:
        return Rejected.BOX
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    circle = 2 * np.sqrt(np.pi * float(solid.sum()))
    if cv2.arcLength(outline, True) > settings.most_ragged * circle:
        return Rejected.RAGGED
    gray = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    gradient = cv2.dilate(gradient, np.ones((3, 3), np.uint8))
    along = gradient[outline[:, 0, 1], outline[:, 0, 0]].mean()
    return Rejected.EDGES if along < settings.least_edge * gradient.mean() else None


def _with_alpha(part: NDArray[np.uint8], solid: NDArray[np.uint8], out_px: int) -> NDArray[np.uint8]:
    """Soft edges, cut to the object, brought to its final size."""
    soft = cv2.GaussianBlur(solid * 255, (3, 3), 0)
    # Half of an edge pixel's colour is background; a slightly smaller mask shows less of it.
    alpha = np.clip((soft.astype(np.int32) - 96) * 255 // 159, 0, 255).astype(np.uint8)
    x, y, w, h = cv2.boundingRect((alpha > 0).astype(np.uint8))
    rgba = np.dstack([part, alpha])[y : y + h, x : x + w]
    scale = out_px / max(h, w)
    if scale < 1:
        size = max(1, round(w * scale)), max(1, round(h * scale))
        rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(rgba, np.uint8)
