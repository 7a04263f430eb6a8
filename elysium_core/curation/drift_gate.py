"""How far a trajectory departs from smooth motion, by a Kalman filter of constant velocity (OpenCV's)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from elysium_core.geometry import Box

# Noise of the filter, in lengths of the first box and in logarithms of sizes, a frame. A box of a tracker trembles by
# some percent of its size; velocities may change by as much from frame to frame.
_TREMBLE, _PUSH, _UNKNOWN = 0.05, 0.05, 1.0


def largest_jump(boxes: Sequence[Box], aspect: float = 1.0) -> float:
    """Return the largest distance between a box and the one that a Kalman filter expects from the boxes before it.

    The distance is that of the centres, in lengths of the box (the root of its area), or the change of the logarithm of
    its width or height, whichever is larger: 1 = the centre is a whole box away, or the width has grown by a factor of
    2.7.

    Args:
        boxes: In order of time.
        aspect: Width of the frame over its height; without it, motion along x would count too little in wide frames.

    Returns:
        0 or more; 0 for a single box.
    """
    if not boxes:
        return 0.0
    rows = np.array([_measured(box, aspect) for box in boxes])
    # In lengths of the first box, so that the noise of the filter fits objects of every size.
    rows[:, :2] /= math.exp(rows[0, 2:].mean())
    kalman = _filter(rows[0])
    worst = 0.0
    for row in rows[1:]:
        expected = kalman.predict()[:4, 0]
        length = math.exp((row[2:] - rows[0, 2:]).mean())
        moved = float(np.hypot(*(row[:2] - expected[:2]))) / length
        worst = max(worst, moved, float(np.abs(row[2:] - expected[2:]).max()))
        kalman.correct(row[:, None])
    return worst


def _measured(box: Box, aspect: float) -> tuple[float, float, float, float]:
    """Centre in heights of the frame, and logarithms of width and height."""
    x, y = box.center
    return x * aspect, y, math.log(box.width * aspect), math.log(box.height)


def _filter(first: np.ndarray[tuple[int], np.dtype[np.float64]]) -> cv2.KalmanFilter:
    kalman = cv2.KalmanFilter(8, 4, 0, cv2.CV_64F)
    still, none = np.eye(4), np.zeros((4, 4))
    kalman.transitionMatrix = np.block([[still, still], [none, still]])
    kalman.measurementMatrix = np.hstack([still, none])
    kalman.processNoiseCov = np.diag([_TREMBLE**2] * 4 + [_PUSH**2] * 4)
    kalman.measurementNoiseCov = np.eye(4) * _TREMBLE**2
    kalman.errorCovPost = np.diag([_TREMBLE**2] * 4 + [_UNKNOWN**2] * 4)
    kalman.statePost = np.concatenate([first, np.zeros(4)])[:, None]
    return kalman
