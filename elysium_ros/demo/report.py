"""Reads the true boxes of the demo recording, and scores the recorded tracks against them. Imports no ROS.

The recording is ``recording.mp4``, the true boxes are in ``truth.json`` beside it.

``truth.json`` holds ``{"fps", "width", "height", "objects": [{"name", "expression", "boxes"}]}``; ``boxes`` has one
entry a frame, ``[x1, y1, x2, y2]`` normalised to the frame, or null where the object cannot be seen. The first
objects are the ones that the demo asks for.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from elysium_core.errors import DataError, ElysiumError
from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate

VIDEO_NAME = "recording.mp4"
TRUTH_NAME = "truth.json"


@dataclass(frozen=True, slots=True)
class TruthObject:
    """One object of a recording.

    Attributes:
        name: For the reader.
        expression: Words that name this object and no other of the recording; empty for the first one if it is given
            by its box.
        boxes: Where it is in each frame, None where it cannot be seen.
    """

    name: str
    expression: str
    boxes: tuple[Box | None, ...]

    def box_at(self, frame_index: int) -> Box | None:
        """Return where the object is, None where it cannot be seen or the recording is over."""
        return self.boxes[frame_index] if 0 <= frame_index < len(self.boxes) else None


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about a recording.

    Attributes:
        frame_count: Number of frames.
        objects: The objects, those to be asked for first.
    """

    frame_count: int
    objects: tuple[TruthObject, ...]


def read_truth(path: str | PathLike[str]) -> Truth:
    """Read a truth file.

    Raises:
        DataError: It is missing, or not of the form that the module's text describes.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text("utf-8"))
        objects = tuple(_object(item) for item in data["objects"])
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ElysiumError) as error:
        raise DataError(f"{str(path)!r} is not a truth file: {type(error).__name__} {error}") from error
    counts = {len(item.boxes) for item in objects}
    if len(counts) != 1:
        raise DataError(f"{str(path)!r} needs objects with one box a frame each, not with {sorted(counts)} boxes")
    return Truth(counts.pop(), objects)


def _object(item: dict[str, Any]) -> TruthObject:
    boxes = tuple(None if box is None else Box(*box) for box in item["boxes"])
    return TruthObject(str(item["name"]), str(item["expression"]), boxes)


# Scores closer than this are equal but for rounding.
_TIE = 1e-4
_WHOLE_FRAME = Box(0.0, 0.0, 1.0, 1.0)
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
        whole_iou: The same for a box round the whole frame.
        wrong_iou: Mean overlap of the target's boxes with the other object that they overlap most.
        wrong_name: Expression of that object.
        false_boxes: Frames with a box although the object cannot be seen.
    """

    target_id: str
    expression: str
    states: dict[str, int]
    mean_iou: float | None = None
    frozen_iou: float = 0.0
    whole_iou: float = 0.0
    wrong_iou: float = 0.0
    wrong_name: str = ""
    false_boxes: int = 0

    @property
    def failure(self) -> str:
        """Why this target was not followed well enough, empty if it was."""
        name = f"target {self.target_id} ({self.expression!r})" if self.expression else f"target {self.target_id}"
        if not self.states.get(TrackState.TRACKED.value):
            return f"{name} was never tracked"
        if self.mean_iou is None:
            return ""
        if self.wrong_iou > self.mean_iou + _TIE:
            overlaps = f"mean IoU {self.wrong_iou:.3f} with that and {self.mean_iou:.3f} with what was asked for"
            return f"{name} lies on {self.wrong_name!r}: {overlaps}"
        baselines = {"a frozen first box": self.frozen_iou, "the whole frame": self.whole_iou}
        best, best_iou = max(baselines.items(), key=lambda item: item[1])
        if self.mean_iou <= best_iou + _TIE:
            score = f"a mean IoU of {self.mean_iou:.3f} with the truth"
            return f"{name} has {score}, no better than {best} with {best_iou:.3f}"
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
    def lost(self) -> int:
        """Frames that were neither answered nor dropped for a newer one: they got lost between two processes."""
        return max(0, self.sent - self.answered - self.dropped)

    @property
    def failure(self) -> str:
        """Why the run failed, in one sentence; empty if it did not."""
        if not self.targets:
            return "nothing was tracked: no target was accepted"
        return next((target.failure for target in self.targets if target.failure), "")

    def as_json(self) -> dict[str, Any]:
        """Return everything as data, with the verdict."""
        return {**asdict(self), "lost": self.lost, "failure": self.failure}

    def as_table(self) -> str:
        """Return everything as a few lines of text."""
        counts = f"{self.answered} answered, {self.dropped} dropped for a newer one, {self.lost} lost in transport"
        lines = [f"frames    {self.sent} sent, {counts}"]
        if self.latency_p50_s is not None and self.latency_p95_s is not None:
            lines.append(f"latency   p50 {self.latency_p50_s * 1e3:.0f} ms, p95 {self.latency_p95_s * 1e3:.0f} ms")
        head = ["target", "expression", *(state.value.lower() for state in _SHOWN_STATES)]
        with_truth = any(target.mean_iou is not None for target in self.targets)
        rows = [head + (["mean IoU", "frozen first box", "whole frame", "wrong object"] if with_truth else [])]
        rows += [_row(target, with_truth) for target in self.targets]
        return "\n".join([*lines, "", *_columns(rows)])


def summarize_target(
    target_id: str,
    expression: str,
    updates: Iterable[TrackUpdate],
    truth: TruthObject | None,
    others: Sequence[TruthObject] = (),
) -> TargetReport:
    """Score one target.

    Args:
        target_id: Its id.
        expression: The words it was asked for with.
        updates: All that was said about it, in the order of the frames.
        truth: The object that was meant, None if unknown.
        others: The other objects of the recording.
    """
    updates = [update for update in updates if update.state is not TrackState.REMOVED]
    states = dict(Counter(update.state.value for update in updates))
    if truth is None:
        return TargetReport(target_id, expression, states)
    seen = [update for update in updates if truth.box_at(update.frame_index) is not None]
    boxes = [truth.box_at(update.frame_index) for update in seen]
    answers = [update.box for update in seen]
    elsewhere = {item.expression or item.name: [item.box_at(update.frame_index) for update in seen] for item in others}
    wrong = {name: _mean_iou(answers, places) for name, places in elsewhere.items()}
    wrong_name = max(wrong, key=lambda name: wrong[name], default="")
    return TargetReport(
        target_id,
        expression,
        states,
        mean_iou=_mean_iou(answers, boxes),
        frozen_iou=_mean_iou(boxes[:1] * len(boxes), boxes),
        whole_iou=_mean_iou([_WHOLE_FRAME] * len(boxes), boxes),
        wrong_iou=wrong.get(wrong_name, 0.0),
        wrong_name=wrong_name,
        false_boxes=sum(update.box is not None for update in updates) - sum(box is not None for box in answers),
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile (linear between neighbours), None of nothing."""
    return float(np.percentile(values, percent)) if values else None


def _mean_iou(boxes: Sequence[Box | None], true_boxes: Sequence[Box | None]) -> float:
    """Mean IoU of pairs; a pair with a box missing counts 0, and no pair at all is 0."""
    pairs = zip(boxes, true_boxes, strict=True)
    overlaps = [0.0 if box is None or true_box is None else box.iou(true_box) for box, true_box in pairs]
    return statistics.fmean(overlaps) if overlaps else 0.0


def _row(target: TargetReport, with_truth: bool) -> list[str]:
    counts = [str(target.states.get(state.value, 0)) for state in _SHOWN_STATES]
    row = [target.target_id, target.expression or "(a box)", *counts]
    if not with_truth or target.mean_iou is None:
        return row
    return row + [f"{v:.3f}" for v in (target.mean_iou, target.frozen_iou, target.whole_iou, target.wrong_iou)]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
