"""The gates between a noun chunk and a kept track (paper, section 3.2), as pure functions with the paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from elysium_core.curation.drift_gate import largest_jump
from elysium_core.errors import ConfigError
from elysium_core.geometry import Box
from elysium_core.io.sampling import even_positions

PLACES = ("first", "middle", "last")
"""The frames in which a detector looks for a chunk."""

NOT_FOUND = {place: f"not found in the {place} frame" for place in PLACES}
UNSURE = "tracker unsure"
DRIFT = "extreme drift"
DISAGREES = {place: f"track disagrees in the {place} frame" for place in PLACES[1:]}

REASONS = (*NOT_FOUND.values(), UNSURE, DRIFT, *DISAGREES.values())
"""Reasons for which a chunk that may name an object is rejected, in the order of the gates."""


@dataclass(frozen=True, slots=True)
class CurationRules:
    """Thresholds of the gates.

    Attributes:
        detection_score: A detected box counts if its score is higher, 0..1 (paper: 0.6).
        track_score: The tracker's score must be higher in every frame, 0..1 (paper: 0.8).
        largest_jump: Most that a box may be away from where a Kalman filter expects it, in lengths of the box; > 0.
            The paper names no number.
        least_iou: Least IoU of detected and tracked box in the middle and in the last frame, 0..1 (paper: 0.3).
        every: Each so manieth frame of a video is used, >= 1 (paper: every frame).
        most_frames: A video of which more frames would be used is not taken; >= 3.

    Raises:
        ConfigError: A value is out of range.
    """

    detection_score: float = 0.6
    track_score: float = 0.8
    largest_jump: float = 1.0
    least_iou: float = 0.3
    every: int = 1
    most_frames: int = 3000

    def __post_init__(self) -> None:
        for name in ("detection_score", "track_score", "least_iou"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} = {value!r} is not in 0..1")
        if not (math.isfinite(self.largest_jump) and self.largest_jump > 0):
            raise ConfigError(f"largest_jump = {self.largest_jump!r} is not a number above 0")
        if self.every < 1 or self.most_frames < len(PLACES):
            raise ConfigError(f"every = {self.every} and most_frames = {self.most_frames} need every >= 1, most >= 3")

    def as_dict(self) -> dict[str, float]:
        """Return the thresholds by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


@dataclass(frozen=True, slots=True)
class Detection:
    """A box that a detector has found.

    Attributes:
        box: Where.
        score: 0..1.
    """

    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The boxes of one object in all used frames of a video.

    Attributes:
        boxes: One a frame; None where the tracker has none.
        scores: One a frame, 0..1.
    """

    boxes: tuple[Box | None, ...]
    scores: tuple[float, ...]


def surest(found: Sequence[Detection], detection_score: float = 0.6) -> Detection | None:
    """Return the detection of the highest score, or None if no score is higher than the threshold."""
    best = max(found, key=lambda detection: detection.score, default=None)
    return best if best is not None and best.score > detection_score else None


def count_rivals(found: Sequence[Detection], best: Detection, most_iou: float = 0.5) -> int:
    """Return how many other objects the detector offers for the same words, whatever their scores.

    Args:
        found: All detections of the words in one frame.
        best: The one that was chosen.
        most_iou: A box that overlaps the chosen one more is the same object.
    """
    return sum(other.box.iou(best.box) <= most_iou for other in found)


def is_sure(trajectory: Trajectory, track_score: float = 0.8) -> bool:
    """Whether there is a box with a score higher than the threshold in every frame."""
    rows = zip(trajectory.boxes, trajectory.scores, strict=True)
    return bool(trajectory.boxes) and all(box is not None and score > track_score for box, score in rows)


def is_steady(trajectory: Trajectory, aspect: float = 1.0, most: float = 1.0) -> bool:
    """Whether no box is far from where a Kalman filter expects it after the boxes before it.

    Args:
        trajectory: One box in every frame.
        aspect: Width of the frame over its height.
        most: See :attr:`CurationRules.largest_jump`.
    """
    return largest_jump([box for box in trajectory.boxes if box is not None], aspect) <= most


def agrees(tracked: Box | None, detected: Box | None, least_iou: float = 0.3) -> bool:
    """Whether the tracked and the detected box of one frame are of one object by their IoU."""
    return tracked is not None and detected is not None and tracked.iou(detected) >= least_iou


def rejection(
    trajectory: Trajectory, detected: Sequence[Detection], rules: CurationRules, aspect: float = 1.0
) -> str | None:
    """Return the first gate that a trajectory does not pass, or None if it is kept.

    Args:
        trajectory: From the first detected box through all frames.
        detected: The detections in the first, middle and last frame.
        rules: The thresholds.
        aspect: Width of the frame over its height.
    """
    if not is_sure(trajectory, rules.track_score):
        return UNSURE
    if not is_steady(trajectory, aspect, rules.largest_jump):
        return DRIFT
    positions = place_positions(len(trajectory.boxes))
    for place, position, detection in zip(PLACES[1:], positions[1:], detected[1:], strict=True):
        if not agrees(trajectory.boxes[position], detection.box, rules.least_iou):
            return DISAGREES[place]
    return None


def place_positions(frames: int) -> tuple[int, int, int]:
    """Return the positions of the first, middle and last of a number of frames, at least 3: those that are sampled."""
    first, middle, last = even_positions(frames, len(PLACES))
    return first, middle, last
