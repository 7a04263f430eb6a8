"""The released scorer's way with boxes, defects included; used by protocol ``elysium-ref`` only.

It scores the *text*: truth and prediction are both boxes of whole hundredths, scaled
to pixels, and then every one of x, y, w, h is limited to 1..100 px, a limit that was
meant for hundredths. Boxes are matched by order, so a frame without an answer moves
all later answers one frame forward and the end is filled with zeros. It computes in
single precision.

Trackers that need no model: what a score means is seen only beside them.

``perfect`` must reach the protocol's ceiling, or the scorer is wrong. ``frozen``
repeats the first true box: a model near it has shown nothing. ``centre`` ignores
even that. ``rounded`` is the truth as a model can write it at best, in steps of
1/100 of the frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from elysium_core.evaluation.metrics import Floats, xywh_to_xyxy, xyxy_to_xywh
from elysium_core.evaluation.results import TrackResult

_LEVELS = 100

Singles = NDArray[np.float32]


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


def perfect(result: TrackResult) -> Floats:
    """Answer with the truth; shape (N, 4) [px], as for all baselines."""
    return result.truth_xywh_px.copy()


def frozen(result: TrackResult) -> Floats:
    """Answer with the first true box for ever."""
    first = result.truth_xywh_px[np.argmax(result.has_truth)]
    return np.tile(first, (result.frame_count, 1))


def centre(result: TrackResult) -> Floats:
    """Answer with a box of half the frame's width and height in its middle."""
    width, height = result.frame_size
    return np.tile([width / 4, height / 4, width / 2, height / 2], (result.frame_count, 1))


def rounded(result: TrackResult) -> Floats:
    """Answer with the truth rounded to the model's text, 0..100."""
    return round_to_text(result.truth_xywh_px, result.frame_size)


BASELINES: dict[str, Callable[[TrackResult], Floats]] = {
    "perfect": perfect,
    "rounded": rounded,
    "frozen": frozen,
    "centre": centre,
}
"""Every baseline by name, best first."""


def run_baseline(name: str, results: list[TrackResult]) -> list[TrackResult]:
    """Answer every recording by a baseline instead of by the tracker that was run."""
    baseline = BASELINES[name]
    return [result.with_predictions(baseline(result)) for result in results]
