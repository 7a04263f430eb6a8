"""Motion of boxes: drawn with the statistics of LaSOT's test set, or read from labelled recordings.

Shapes: N tracks, T frames. Boxes are x1, y1, x2, y2 as fractions of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]

UNCHANGED = MappingProxyType(
    {(100, 30): 0.42, (100, 10): 0.21, (100, 2): 0.07, (1000, 30): 0.15, (1000, 10): 0.07, (1000, 2): 0.03}
)
"""Of pairs of frames in LaSOT's test set, the share in which none of the four numbers of the true box changes, by grid
(steps over the frame) and rate [Hz]; 11,200 pairs each. What a drawn motion is fitted to."""

_RATE_HZ = 30


@dataclass(frozen=True, slots=True)
class Motion:
    """A motion of boxes at 30 Hz. The defaults are fitted to :data:`UNCHANGED`.

    Attributes:
        speed: Median over tracks of the typical motion of the centre from frame to frame [fractions of the frame].
        spread: Standard deviation of its logarithm over tracks.
        still: Share of the time in which a track stands still.
        still_frames: Mean length of such a time [frames].
        smoothness: Correlation of a step with the one before.
        zoom: Relative change of the sides, as a multiple of ``speed``.
    """

    speed: float = 0.0043
    spread: float = 1.64
    still: float = 0.112
    still_frames: float = 2.1
    smoothness: float = 0.7
    zoom: float = 0.4

    def draw(self, tracks: int, frames: int, seed: int = 0) -> Boxes:
        """Draw tracks (N, T, 4)."""
        rng = np.random.default_rng(seed)
        speed = np.exp(rng.normal(np.log(self.speed), self.spread, tracks))
        log_size = np.log(np.exp(rng.normal(np.log([0.25, 0.3]), 0.5, (tracks, 2))).clip(0.03, 0.9))
        center = np.exp(log_size) / 2 + rng.random((tracks, 2)) * (1 - np.exp(log_size))
        velocity, rests = rng.normal(size=(tracks, 4)), rng.random(tracks) < self.still
        end_rest = 1 / self.still_frames
        begin_rest = end_rest * self.still / (1 - self.still)
        boxes = np.empty((tracks, frames, 4))
        for frame in range(frames):
            half = np.exp(log_size) / 2
            boxes[:, frame] = np.concatenate([center - half, center + half], 1)
            noise = rng.normal(size=(tracks, 4))
            velocity = self.smoothness * velocity + np.sqrt(1 - self.smoothness**2) * noise
            step = np.where(rests, 0.0, speed)[:, None]
            log_size = (log_size + self.zoom * step * velocity[:, 2:]).clip(np.log(0.02), np.log(0.95))
            half = np.exp(log_size) / 2
            moved = center + step * velocity[:, :2]
            center = moved.clip(half, 1 - half)
            velocity[:, :2] *= np.where(center == moved, 1, -1)  # tracks turn around at the edges of the frame
            change = rng.random(tracks)
            rests = np.where(rests, change > end_rest, change < begin_rest)
        return boxes.clip(0, 1)


def unchanged_share(boxes: Boxes, steps: int, rate_hz: int = _RATE_HZ) -> float:
    """Share of pairs of frames of tracks (N, T, 4) at 30 Hz in which no number changes; see :data:`UNCHANGED`."""
    numbers = np.round(boxes[:, :: _RATE_HZ // rate_hz] * steps)
    return float((numbers[:, 1:] == numbers[:, :-1]).all(-1).mean())


def read_tracks(folder: Path) -> Iterator[tuple[str, Boxes]]:
    """Yield name and true boxes (T, 4) of recordings in the layout ``folder`` (docs/evaluation.md).

    Frames without a box, or with one that lies outside the frame, are left out.
    """
    from elysium_core.data.readers.catalog import get_tracking_benchmark

    for recording in get_tracking_benchmark("folder").read(folder, "", None):
        frame = next(iter(recording.frames))
        width, height = recording.frame_size or (frame.width, frame.height)
        x, y, w, h = (np.asarray(recording.boxes_xywh_px) / [width, height, width, height]).T
        boxes = np.stack([x, y, x + w, y + h], 1).clip(0, 1)
        good = np.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        yield recording.name, boxes[good]
