"""Trackers that need no model: what a score means is seen only beside them.

``perfect`` must reach the protocol's ceiling, or the scorer is wrong. ``frozen``
repeats the first true box: a model near it has shown nothing. ``centre`` ignores
even that. ``rounded`` is the truth as a model can write it at best, in steps of
1/100 of the frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from elysium_core.evaluation.metrics import Floats
from elysium_core.evaluation.reference import round_to_text
from elysium_core.evaluation.results import TrackResult


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
