"""Scores tracking results by a protocol, for single recordings and whole benchmarks, and defines the baselines.

The baselines need no model and show how to read a score. ``perfect`` is the truth and must
reach the maximum of the protocol. ``frozen`` repeats the first true box: a model near it has
not shown that it tracks. ``centre`` is a fixed box in the middle. ``rounded`` is the truth in
steps of 1/100 of the frame, the best that a model can write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.evaluation.metrics import (
    MISS_OVERLAP,
    Floats,
    area_under,
    center_errors,
    clamp_to_frame,
    overlaps,
    precision_curve,
    reference_errors,
    repeat_previous_for_empty,
    round_to_text,
    success_curve,
)
from elysium_core.evaluation.protocols import FirstFrame, Protocol, Summary, Verdict
from elysium_core.evaluation.results import TrackResult

_HIT_ERROR = -1.0


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one recording or of a benchmark, all 0..1; None for scores that the protocol does not define.

    Attributes:
        auc: Summary of the success curve by the protocol.
        norm_precision: Summary of the normalised precision curve by the protocol.
        precision: Summary of the precision curve by the protocol.
        average_overlap: Mean overlap; failures count 0.
        success_50: Share of frames with overlap > 0.5.
        success_75: Share of frames with overlap > 0.75.
        norm_precision_mean: Mean of the normalised precision curve over 0..0.5, which some
            toolkits call P_norm.
        success: The success curve over the protocol's overlap thresholds.
        precision_px: The precision curve over its pixel thresholds.
        precision_norm: The precision curve over its normalised thresholds.
        frames: Frames in the denominator.
    """

    auc: float | None
    norm_precision: float | None
    precision: float | None
    average_overlap: float
    success_50: float
    success_75: float
    norm_precision_mean: float | None
    success: Floats
    precision_px: Floats
    precision_norm: Floats
    frames: int


@dataclass(frozen=True, slots=True)
class _FrameErrors:
    """Shapes (M,) each: overlap, centre error [px], normalised centre error of the counted frames."""

    overlap: Floats
    center_px: Floats
    center_norm: Floats


def score_recording(result: TrackResult, protocol: Protocol) -> Scores | None:
    """Score one recording; None if the protocol leaves it out of the mean."""
    if protocol.skip_unanswered and result.unanswered == result.frame_count:
        return None
    errors = _frame_errors(result, protocol)
    if len(errors.overlap) == 0:
        return None
    overlap = errors.overlap
    basics = np.asarray([np.clip(overlap, 0, None).mean(), (overlap > 0.5).mean(), (overlap > 0.75).mean()])
    return _summarise(
        protocol,
        basics,
        success_curve(overlap, protocol.overlap_thresholds, inclusive=protocol.inclusive),
        precision_curve(errors.center_px, protocol.pixel_thresholds),
        precision_curve(errors.center_norm, protocol.norm_thresholds),
        len(overlap),
    )


def score_benchmark(
    results: Sequence[TrackResult], protocol: Protocol, missing: Mapping[str, int] | None = None
) -> Scores | None:
    """Score all recordings of a run together.

    Args:
        results: The results.
        protocol: The protocol.
        missing: Recordings without a result, with their number of frames; each scores 0,
            unless the protocol skips recordings without an answer.

    Returns:
        The figures, or None when nothing can be scored (no result, or truth of first boxes only).
    """
    scored = [score_recording(result, protocol) for result in results if not result.first_box_only]
    present = [scores for scores in scored if scores is not None]
    if not present:
        return None
    absent_frames = [] if protocol.skip_unanswered else list((missing or {}).values())
    frames = np.asarray([scores.frames for scores in present] + absent_frames, dtype=np.float64)
    weights = frames if protocol.pool_frames else np.ones_like(frames)
    # Recordings without a result count with zeros.
    weights = weights[: len(present)] / weights.sum()
    basics = [(s.average_overlap, s.success_50, s.success_75) for s in present]
    return _summarise(
        protocol,
        weights @ np.asarray(basics),
        weights @ np.stack([s.success for s in present]),
        weights @ np.stack([s.precision_px for s in present]),
        weights @ np.stack([s.precision_norm for s in present]),
        int(frames.sum()),
    )


def _summarise(
    protocol: Protocol, basics: Floats, success: Floats, precision_px: Floats, precision_norm: Floats, frames: int
) -> Scores:
    # Every summary is linear in its curve, so the summary of the mean curve is the mean of the summaries.
    return Scores(
        auc=_one_number(success, protocol.auc),
        norm_precision=_one_number(precision_norm, protocol.norm_precision),
        precision=_one_number(precision_px, protocol.precision),
        average_overlap=float(basics[0]),
        success_50=float(basics[1]),
        success_75=float(basics[2]),
        norm_precision_mean=None if protocol.norm_precision is Summary.NONE else float(precision_norm.mean()),
        success=success,
        precision_px=precision_px,
        precision_norm=precision_norm,
        frames=frames,
    )


def _one_number(curve: Floats, summary: Summary) -> float | None:
    if summary is Summary.MEAN:
        return float(curve.mean())
    if summary is Summary.AREA:
        return area_under(curve)
    return float(curve[20]) if summary is Summary.AT_20 else None


def _frame_errors(result: TrackResult, protocol: Protocol) -> _FrameErrors:
    overlap, center_px, center_norm = _plain_errors(result, protocol)
    counted = np.ones(result.frame_count, dtype=bool)
    for frames, verdict in _special_frames(result, protocol):
        if verdict is Verdict.SCORE:
            continue
        overlap[frames] = MISS_OVERLAP
        center_px[frames] = _HIT_ERROR if verdict is Verdict.HIT else np.inf
        center_norm[frames] = _HIT_ERROR if verdict in (Verdict.HIT, Verdict.NORM_HIT) else np.inf
        if verdict is Verdict.DROP:
            counted[frames] = False
    if protocol.first_frame is FirstFrame.EXCLUDED and result.first_box_given:
        counted[0] = False
    return _FrameErrors(overlap[counted], center_px[counted], center_norm[counted])


def _plain_errors(result: TrackResult, protocol: Protocol) -> tuple[Floats, Floats, Floats]:
    """Return overlap, centre error [px] and normalised centre error, shape (N,) each, before the verdicts on frames."""
    if protocol.reference_text:
        return reference_errors(result.predicted_xywh_px, result.truth_xywh_px, result.sizes)
    predicted, truth = _prepare(result, protocol)
    return (
        overlaps(predicted, truth),
        center_errors(predicted, truth),
        center_errors(predicted, truth, normalised=True),
    )


def _prepare(result: TrackResult, protocol: Protocol) -> tuple[Floats, Floats]:
    """Return prediction and truth, shape (N, 4) each, after the rounding and clamping of the protocol."""
    predicted, truth = result.predicted_xywh_px.copy(), result.truth_xywh_px
    # MATLAB counts pixels from 1. The origin matters for rounding, but not for overlaps and errors.
    predicted[:, :2] += result.pixel_origin
    truth = truth + np.asarray([result.pixel_origin, result.pixel_origin, 0, 0])
    if protocol.repeat_empty:
        predicted = repeat_previous_for_empty(predicted)
    if protocol.first_frame is not FirstFrame.COUNTED and result.first_box_given:
        predicted[0] = truth[0]
    if protocol.round_boxes:
        predicted, truth = np.round(predicted), np.round(truth)
    if protocol.clamp_boxes:
        predicted, truth = clamp_to_frame(predicted, result.sizes), clamp_to_frame(truth, result.sizes)
    return predicted, truth


def _special_frames(result: TrackResult, protocol: Protocol) -> list[tuple[NDArray[np.bool_], Verdict]]:
    """Return pairs of frame mask and verdict; a later pair overrides an earlier one."""
    with np.errstate(invalid="ignore"):
        truth = result.truth_xywh_px
        empty = np.asarray((truth[:, 2:] <= 0).any(axis=1) | (truth[:, :2] <= -1).any(axis=1))
    return [
        (empty, protocol.empty_truth),
        (~result.has_truth, protocol.no_truth),
        (result.absent & result.has_truth, protocol.absent),
    ]


def perfect(result: TrackResult) -> Floats:
    """Answer with the truth; shape (N, 4) [px], as for all baselines."""
    return result.truth_xywh_px.copy()


def frozen(result: TrackResult) -> Floats:
    """Answer with the first true box in every frame."""
    first = result.truth_xywh_px[np.argmax(result.has_truth)]
    return np.tile(first, (result.frame_count, 1))


def centre(result: TrackResult) -> Floats:
    """Answer with a centred box of half the width and height of the frame."""
    sizes = np.broadcast_to(np.asarray(result.sizes, dtype=np.float64), (result.frame_count, 2))
    return np.concatenate([sizes / 4, sizes / 2], axis=1)


def rounded(result: TrackResult) -> Floats:
    """Answer with the truth rounded to text coordinates 0..100."""
    return round_to_text(result.truth_xywh_px, result.sizes)


BASELINES: dict[str, Callable[[TrackResult], Floats]] = {
    "perfect": perfect,
    "rounded": rounded,
    "frozen": frozen,
    "centre": centre,
}
"""Every baseline by name, best first."""


def run_baseline(name: str, results: list[TrackResult]) -> list[TrackResult]:
    """Return the results with the predictions of a baseline."""
    baseline = BASELINES[name]
    return [result.with_predictions(baseline(result)) for result in results]
