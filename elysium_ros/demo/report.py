"""Scores what was recorded and says whether it is good enough. Pure functions; knows no ROS."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from elysium_core.geometry import Box
from elysium_core.tracking.types import TrackState, TrackUpdate
from elysium_ros.demo.truth import TruthObject

_SHOWN_STATES = (TrackState.TRACKED, TrackState.UNCERTAIN, TrackState.LOST)


@dataclass(frozen=True, slots=True)
class TargetReport:
    """How one target was followed.

    Attributes:
        target_id: Its id.
        expression: The words it was asked for with.
        states: Frames in each state.
        mean_iou: Mean overlap with the truth, 0..1, over the answered frames in which the
            object can be seen; a frame without a box counts 0. None without truth.
        frozen_iou: The same for a box that stays where the truth was in the first of those frames.
        false_boxes: Frames with a box although the object cannot be seen.
    """

    target_id: str
    expression: str
    states: dict[str, int]
    mean_iou: float | None = None
    frozen_iou: float | None = None
    false_boxes: int = 0

    @property
    def failure(self) -> str:
        """Why this target was not followed well enough, empty if it was."""
        name = f"target {self.target_id} ({self.expression!r})" if self.expression else f"target {self.target_id}"
        if not self.states.get(TrackState.TRACKED.value):
            return f"{name} was never tracked"
        if self.mean_iou is not None and self.frozen_iou is not None and self.mean_iou <= self.frozen_iou:
            return (
                f"{name} has a mean IoU of {self.mean_iou:.3f} with the truth, "
                f"no better than a frozen first box with {self.frozen_iou:.3f}"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came out of a run.

    Attributes:
        sent: Frames sent by the camera.
        answered: Frames with an answer.
        dropped: Frames that the tracker received and skipped for a newer one.
        latency_p50_s: Stamp to answer, median [s]; None without answers.
        latency_p95_s: Stamp to answer, 95th percentile [s].
        targets: One per target that was asked for.
    """

    sent: int
    answered: int
    dropped: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    targets: list[TargetReport] = field(default_factory=list)

    @property
    def failure(self) -> str:
        """Why the run failed, in one sentence; empty if it did not."""
        if not self.targets:
            return "nothing was tracked: no target was accepted"
        return next((target.failure for target in self.targets if target.failure), "")

    def as_json(self) -> dict[str, Any]:
        """Return everything as data, with the verdict."""
        return {**asdict(self), "failure": self.failure}

    def as_table(self) -> str:
        """Return everything as a few lines of text."""
        lines = [f"frames    {self.sent} sent, {self.answered} answered, {self.dropped} dropped for a newer one"]
        if self.latency_p50_s is not None and self.latency_p95_s is not None:
            lines.append(f"latency   p50 {self.latency_p50_s * 1e3:.0f} ms, p95 {self.latency_p95_s * 1e3:.0f} ms")
        head = ["target", "expression", *(state.value.lower() for state in _SHOWN_STATES)]
        with_truth = any(target.mean_iou is not None for target in self.targets)
        rows = [head + (["mean IoU", "frozen first box"] if with_truth else [])]
        rows += [_row(target, with_truth) for target in self.targets]
        return "\n".join([*lines, "", *_columns(rows)])


def summarize_target(
    target_id: str, expression: str, updates: Iterable[TrackUpdate], truth: TruthObject | None
) -> TargetReport:
    """Score one target.

    Args:
        target_id: Its id.
        expression: The words it was asked for with.
        updates: All that was said about it, in the order of the frames.
        truth: The object that was meant, None if unknown.
    """
    updates = [update for update in updates if update.state is not TrackState.REMOVED]
    states = dict(Counter(update.state.value for update in updates))
    if truth is None:
        return TargetReport(target_id, expression, states)
    pairs = [(update.box, truth.box_at(update.frame_index)) for update in updates]
    visible = [(box, true_box) for box, true_box in pairs if true_box is not None]
    false_boxes = sum(box is not None for box, true_box in pairs if true_box is None)
    if not visible:
        return TargetReport(target_id, expression, states, 0.0, 0.0, false_boxes)
    first = visible[0][1]
    mean_iou = statistics.fmean(_overlap(box, true_box) for box, true_box in visible)
    frozen_iou = statistics.fmean(first.iou(true_box) for _, true_box in visible)
    return TargetReport(target_id, expression, states, mean_iou, frozen_iou, false_boxes)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile (linear between neighbours), None of nothing."""
    return float(np.percentile(values, percent)) if values else None


def _overlap(box: Box | None, true_box: Box) -> float:
    return 0.0 if box is None else box.iou(true_box)


def _row(target: TargetReport, with_truth: bool) -> list[str]:
    counts = [str(target.states.get(state.value, 0)) for state in _SHOWN_STATES]
    scores = [target.mean_iou, target.frozen_iou] if with_truth else []
    shown = ["-" if score is None else f"{score:.3f}" for score in scores]
    return [target.target_id, target.expression or "(a box)", *counts, *shown]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
