"""Success and precision curves of one-pass evaluation (OPE), as pure functions on arrays.

Boxes are ``x, y, w, h`` in pixels of the original frame. Some toolkits compute corners
with "+1 pixel" (``x + w - 1``). In this form the ones cancel: overlap and centre distance
are the same, so there is no switch for it.

:func:`reference_errors` follows the scorer released with the Elysium paper, including its
defects (protocol ``elysium-ref`` only). That scorer works on the *text*: truth and prediction
are boxes in whole hundredths, scaled to pixels. It then limits x, y, w and h to 1..100 px,
a limit that was meant for hundredths. It matches boxes by order: a frame without an answer
moves all later answers one frame forward, and the end is filled with zeros. It computes in
single precision.

Shape legend: N frames, T thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elysium_core.geometry import pairwise_iou

Floats = NDArray[np.float64]

FrameSize = tuple[int, int] | Floats
"""Width and height of all frames [px], or of each frame: shape (N, 2)."""

Singles = NDArray[np.float32]

_LEVELS = 100

MISS_OVERLAP = -1.0
"""Overlap of a frame that must fail every threshold, including ``>= 0``."""


def xywh_to_xyxy(boxes_xywh: ArrayLike) -> Floats:
    """Convert left, top, width, height to left, top, right, bottom; shape (N, 4)."""
    boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: ArrayLike) -> Floats:
    """Convert left, top, right, bottom to left, top, width, height; shape (N, 4)."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def overlaps(predicted_xywh: ArrayLike, truth_xywh: ArrayLike) -> Floats:
    """Return the intersection over union of each frame.

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
    """Return the distance between the box centres of each frame.

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
    """Return the share of frames whose overlap exceeds each threshold.

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
    """Return the share of frames whose error is at most each threshold; shapes as in :func:`success_curve`."""
    return np.asarray((errors[:, None] <= thresholds).mean(axis=0), dtype=np.float64)


def area_under(curve: Floats) -> float:
    """Return the area under a curve by the trapezoid rule, with its axis scaled to 0..1."""
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def repeat_previous_for_empty(boxes_xywh: Floats) -> Floats:
    """Replace each box without area by the box of the previous frame.

    A NaN row (no answer) stays NaN, because a missing answer counts as a failure.
    """
    boxes = boxes_xywh.copy()
    empty = (boxes[:, 2:] <= 0).any(axis=1)
    for frame_index in np.flatnonzero(empty):
        if frame_index > 0:
            boxes[frame_index] = boxes[frame_index - 1]
    return boxes


def clamp_to_frame(boxes_xywh: Floats, frame_size: FrameSize) -> Floats:
    """Clamp boxes to the frame as the GOT-10k toolkit does: first the corner, then the size.

    The size is limited from the *clamped* corner. A box that starts left of the frame
    therefore keeps its width and moves right; it is not cut at the edge.

    Args:
        boxes_xywh: Shape (N, 4) [px].
        frame_size: See :data:`FrameSize`.
    """
    size = np.asarray(frame_size, dtype=np.float64)
    corner = np.clip(boxes_xywh[:, :2], 0, size)
    return np.concatenate([corner, np.clip(boxes_xywh[:, 2:], 0, size - corner)], axis=1)


def round_to_text(boxes_xywh: Floats, frame_size: FrameSize, levels: int = _LEVELS) -> Floats:
    """Round the boxes to the grid of text coordinates ``0..levels``.

    Args:
        boxes_xywh: Shape (N, 4) [px]; NaN rows stay NaN.
        frame_size: See :data:`FrameSize`.
        levels: Steps of the text grid along each side.

    Returns:
        Shape (N, 4) [px].
    """
    scale = np.tile(np.asarray(frame_size, dtype=np.float64), 2)
    return xyxy_to_xywh(_to_text(boxes_xywh, frame_size, levels) * (scale / levels))


def _to_text(boxes_xywh: Floats, frame_size: FrameSize, levels: int) -> Floats:
    """Return the whole numbers of the text: left, top, right, bottom in ``0..levels``; shape (N, 4)."""
    scale = np.tile(np.asarray(frame_size, dtype=np.float64), 2)
    # numpy and Python both round halves to even, as the reference's int(round(value * 100)) does.
    return np.asarray(np.round(xywh_to_xyxy(boxes_xywh) / scale * levels))


def reference_errors(
    predicted_xywh: Floats, truth_xywh: Floats, frame_size: FrameSize
) -> tuple[Floats, Floats, Floats]:
    """Return overlap, centre error [px] and normalised centre error as the released scorer computes them.

    Its boxes have single precision and its thresholds double precision, so an overlap of
    exactly 0.6 becomes 0.60000002 and passes "more than 0.6". With boxes in whole hundredths
    this happens often enough to change the scores.

    Args:
        predicted_xywh: Shape (N, 4) [px]; a NaN row is a frame without an answer.
        truth_xywh: Shape (N, 4) [px].
        frame_size: See :data:`FrameSize`.

    Returns:
        Three arrays of shape (N,).
    """
    answered = np.isfinite(predicted_xywh).all(axis=1)
    sizes = np.broadcast_to(np.asarray(frame_size, dtype=np.float64), (len(truth_xywh), 2))
    answers = _limited(predicted_xywh[answered], sizes[answered])
    # Boxes are matched by order; the zeros that fill the end come after the limit and stay zeros.
    by_order = np.zeros((len(truth_xywh), 4), dtype=np.float32)
    by_order[: len(answers)] = answers
    truth = _limited(np.nan_to_num(truth_xywh, nan=0.0), sizes)
    size: Singles = truth[:, 2:]
    found, true = _centres(by_order), _centres(truth)
    pixels, fractions = found - true, found / size - true / size
    return _overlaps(by_order, truth), _lengths(pixels), _lengths(fractions)


def _limited(boxes_xywh: Floats, sizes: Floats) -> Singles:
    """Return the boxes as text, scaled to pixels and then limited to 1..100; shape (N, 4)."""
    scale = np.tile(sizes, 2).astype(np.float32)
    text = _to_text(boxes_xywh, sizes, _LEVELS).astype(np.float32)
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
