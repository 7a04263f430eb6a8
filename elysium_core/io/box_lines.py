"""Boxes as lines in space, for 3D viewers: on a plane in front of a calibrated camera."""

from __future__ import annotations

from collections.abc import Sequence

from elysium_core.geometry import Box

MARKER_LIFETIME_NS = 1_000_000_000
"""Outlines fade out by themselves when their sender or the camera stops."""

LINE_WIDTH_M, LINE_WIDTH_PX = 0.01, 2.0
TEXT_HEIGHT_M = 0.08


def corners(x1: float, y1: float, x2: float, y2: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle as a closed line, clockwise from the top left; the last one is the first."""
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]


def is_calibrated(matrix: Sequence[float], width: int, height: int) -> bool:
    """Return whether a calibration says where pixels look.

    Args:
        matrix: The nine numbers ``k`` of ``sensor_msgs/CameraInfo``, row by row.
        width: Width of the calibrated images [px].
        height: Height of the calibrated images [px].
    """
    return bool(width > 0 and height > 0 and matrix[0] != 0 and matrix[4] != 0)


def outline_on_plane(
    box: Box, matrix: Sequence[float], width: int, height: int, distance_m: float
) -> list[tuple[float, float]]:
    """Return the outline of a box on a plane in front of the camera, a closed line of x (right) and y (down) [m].

    Args:
        box: The box. It is in fractions of the image, so the image may be a scaled one of what was calibrated.
        matrix: See :func:`is_calibrated`.
        width: Width of the calibrated images [px].
        height: Height of the calibrated images [px].
        distance_m: Distance of the plane [m], > 0.
    """
    x1, y1, x2, y2 = box.to_px(width, height)
    left, right = (float((x - matrix[2]) / matrix[0] * distance_m) for x in (x1, x2))
    top, bottom = (float((y - matrix[5]) / matrix[4] * distance_m) for y in (y1, y2))
    return corners(left, top, right, bottom)
