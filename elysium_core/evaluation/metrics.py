"""Curves of one-pass evaluation (OPE): pure functions on arrays, no files and no protocols.

Boxes are ``x, y, w, h`` in pixels of the original frame. The "+1 pixel" corners of
some toolkits (``x + w - 1``) give the same overlap and the same centre distance in
this form: both ones cancel, so there is no switch for them.

The scorer released with the Elysium paper treats boxes in its own way, defects included
(:func:`reference_errors`, for protocol ``elysium-ref`` alone). It scores the *text*: truth
and prediction are both boxes of whole hundredths, scaled to pixels, and then every one of
x, y, w, h is limited to 1..100 px, a limit that was meant for hundredths. Boxes are matched
by order, so a frame without an answer moves all later answers one frame forward and the end
is filled with zeros. It computes in single precision.

Shape legend: N frames, T thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elysium_core.geometry import pairwise_iou

Floats = NDArray[np.float64]

Singles = NDArray[np.float32]

_LEVELS = 100

MISS_OVERLAP = -1.0
"""Overlap of a frame that must fail every threshold, also ``>= 0``."""


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> Floats:
    """Turn left, top, width, height into left, top, right, bottom; shape (N, 4)."""
    boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: ArrayLike) -> Floats:
    """Turn left, top, right, bottom into left, top, width, height; shape (N, 4)."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def overlaps(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> Floats:
    """Intersection over union, frame by frame.

    Args:
        predicted_xywh: Shape (N, 4); a NaN row is a frame without an answer.
        truth_xywh: Shape (N, 4).

    Returns:
        Shape (N,), 0..1; 0 without an answer.

    Example:
        >>> overlaps([[0, 0, 10, 10]], [[5, 0, 10, 10]]).round(4).tolist()
        [0.3333]
    """
    return pairwise_iou(xywh_to_xyxy(predicted_xywh), xywh_to_xyxy(truth_xywh))


def center_errors(predicted_xywh: ArrayLike, truth_xywh: ArrayLike, *, normalised: bool = False) -> Floats:
    """Distance between the centres, frame by frame.

    Args:
        predicted_xywh: Shape (N, 4); a NaN row is a frame without an answer.
        truth_xywh: Shape (N, 4).
        normalised: Divide the distance along x by the true width and along y by the true height.

    Returns:
        Shape (N,) in px, or without unit if ``normalised``; infinite without an answer
        and where a true size of 0 leaves the quotient undefined.

    Example:
        >>> center_errors([[3, 4, 10, 10]], [[0, 0, 10, 10]]).tolist()
        [5.0]
    """
    predicted = np.asarray(predicted_xywh, dtype=np.float64).reshape(-1, 4)
    truth = np.asarray(truth_xywh, dtype=np.float64).reshape(-1, 4)
    offset = (predicted[:, :2] + predicted[:, 2:] / 2) - (truth[:, :2] + truth[:, 2:] / 2)
    if normalised:
        with np.errstate(divide="ignore", invalid="ignore"):
            offset = offset / truth[:, 2:]
    return np.nan_to_num(np.hypot(offset[:, 0], offset[:, 1]), nan=np.inf, posinf=np.inf)


def success_curve(overlap: Floats, thresholds: Floats, *, inclusive: bool = False) -> Floats:
    """Share of frames whose overlap exceeds each threshold.

    Args:
        overlap: Shape (N,), N >= 1.
        thresholds: Shape (T,).
        inclusive: Compare with >= instead of >.

    Returns:
        Shape (T,), 0..1.
    """
    reached = overlap[:, None] >= thresholds if inclusive else overlap[:, None] > thresholds
    return np.asarray(reached.mean(axis=0), dtype=np.float64)


def precision_curve(errors: Floats, thresholds: Floats) -> Floats:
    """Share of frames whose error is at most each threshold; shapes as in :func:`success_curve`."""
    return np.asarray((errors[:, None] <= thresholds).mean(axis=0), dtype=np.float64)


def area_under(curve: Floats) -> float:
    """Area under a curve by the trapezoid rule, its axis scaled to 0..1."""
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def repeat_previous_for_empty(boxes_xywh: Floats) -> Floats:
    """Copy the box of the frame before into every frame whose box has no area.

    A NaN row (no answer) stays NaN: a missing answer is a failure, never a repetition.
    """
    boxes = boxes_xywh.copy()
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    for frame_index in np.flatnonzero(empty):
        if frame_index > 0:
            boxes[frame_index] = boxes[frame_index - 1]
    return boxes


def clamp_to_frame(boxes_xywh: Floats, frame_size: tuple[int, int]) -> Floats:
    """Clamp as the GOT-10k toolkit does: the corner first, then the size from the *clipped* corner.

    A box that starts left of the frame therefore keeps its width and moves right; it
    is not cut at the frame's edge.

    Args:
        boxes_xywh: Shape (N, 4) [px].
        frame_size: Width and height of the frame [px].
    """
    size = np.asarray(frame_size, dtype=np.float64)
    corner = np.clip(boxes_xywh[:, :2], 0, size)
    return np.concatenate([corner, np.clip(boxes_xywh[:, 2:], 0, size - corner)], axis=1)


def round_to_text(boxes_xywh: Floats, frame_size: tuple[int, int], levels: int = _LEVELS) -> Floats:
    """Return the boxes as they come back from text with coordinates ``0..levels``.

    Args:
        boxes_xywh: Shape (N, 4) [px]; NaN rows stay NaN.
        frame_size: Width and height [px].
        levels: Steps of the text grid along each side.

    Returns:
        Shape (N, 4) [px].
    """
    scale = np.asarray([*frame_size, *frame_size], dtype=np.float64)
    return xyxy_to_xywh(_to_text(boxes_xywh, frame_size, levels) * (scale / levels))


def _to_text(boxes_xywh: Floats, frame_size: tuple[int, int], levels: int) -> Floats:
    """Return the whole numbers that stand in the text: left, top, right, bottom in ``0..levels``; shape (N, 4)."""
    scale = np.asarray([*frame_size, *frame_size], dtype=np.float64)
    # numpy and Python both round halves to even, as the reference's int(round(value * 100)) does.
    return np.asarray(np.round(xywh_to_xyxy(boxes_xywh) / scale * levels))


def reference_errors(
    predicted_xywh: Floats, truth_xywh: Floats, frame_size: tuple[int, int]
) -> tuple[Floats, Floats, Floats]:
    """Return overlap, centre error [px] and normalised centre error as the released scorer finds them.

    Its boxes are single and its thresholds double precision: an overlap of exactly 0.6
    becomes 0.60000002 and passes "more than 0.6". Boxes of whole hundredths meet the
    thresholds often enough for that to move its figures.

    Args:
        predicted_xywh: Shape (N, 4) [px]; a NaN row is a frame without an answer.
        truth_xywh: Shape (N, 4) [px].
        frame_size: Width and height [px].

    Returns:
        Three arrays of shape (N,).
    """
    answers = _limited(predicted_xywh[np.isfinite(predicted_xywh).all(axis=1)], frame_size)
    # Boxes are matched by order; the zeros that fill the end come after the limit and stay zeros.
    by_order = np.zeros((len(truth_xywh), 4), dtype=np.float32)
    by_order[: len(answers)] = answers
    truth = _limited(np.nan_to_num(truth_xywh, nan=0.0), frame_size)
    size: Singles = truth[:, 2:]
    found, true = _centres(by_order), _centres(truth)
    pixels, fractions = found - true, found / size - true / size
    return _overlaps(by_order, truth), _lengths(pixels), _lengths(fractions)


def _limited(boxes_xywh: Floats, frame_size: tuple[int, int]) -> Singles:
    """Return the boxes as text, scaled to pixels and then limited to 1..100; shape (N, 4)."""
    scale = np.asarray([*frame_size, *frame_size], dtype=np.float32)
    text = _to_text(boxes_xywh, frame_size, _LEVELS).astype(np.float32)
    corners = text * (scale / np.float32(_LEVELS))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).clip(1, 100)


def _centres(boxes: Singles) -> Singles:
    return np.asarray(boxes[:, :2] + np.float32(0.5) * (boxes[:, 2:] - 1), dtype=np.float32)


def _overlaps(predicted: Singles, truth: Singles) -> Floats:
    corner = np.maximum(predicted[:, :2], truth[:, :2])
    last = np.minimum(predicted[:, :2] + predicted[:, 2:] - 1, truth[:, :2] + truth[:, 2:] - 1)
    shared = (last - corner + 1).clip(0).prod(axis=1)
    overlap = shared / (predicted[:, 2:].prod(axis=1) + truth[:, 2:].prod(axis=1) - shared)
    return np.asarray(overlap, dtype=np.float64)


def _lengths(offsets: Singles) -> Floats:
    return np.asarray(np.sqrt((offsets**2).sum(axis=1)), dtype=np.float64)
