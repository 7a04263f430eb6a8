"""Curves of one-pass evaluation (OPE): pure functions on arrays, no files and no protocols.

Boxes are ``x, y, w, h`` in pixels of the original frame. The "+1 pixel" corners of
some toolkits (``x + w - 1``) give the same overlap and the same centre distance in
this form: both ones cancel, so there is no switch for them.

Shape legend: N frames, T thresholds.

Work shared between the processes that ``torchrun`` starts; without it there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elysium_core.errors import ConfigError
from elysium_core.geometry import pairwise_iou

Floats = NDArray[np.float64]

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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: Number of this process, 0..world_size-1.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which picks its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK.

        Raises:
            ConfigError: They are no numbers, or do not fit together.
        """
        words = {name: os.environ.get(name, default) for name, default in _DEFAULTS.items()}
        try:
            rank, world_size, local_rank = (int(word) for word in words.values())
        except ValueError:
            rank, world_size, local_rank = -1, 0, 0
        if not 0 <= rank < world_size or local_rank < 0:
            shown = ", ".join(f"{name}={word}" for name, word in words.items())
            raise ConfigError(f"{shown} cannot be one of several processes; start them by torchrun or unset these")
        return cls(rank, world_size, local_rank)

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield every ``world_size``-th item, from number ``rank``; all ranks together see each once."""
        return (item for position, item in enumerate(items) if position % self.world_size == self.rank)

    def device(self, asked: str) -> str:
        """Return the device of this process: its own GPU where several processes leave it to us."""
        return f"cuda:{self.local_rank}" if asked in ("auto", "cuda") and self.world_size > 1 and _has_cuda() else asked


_DEFAULTS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
