"""Square crops around an object: how following and its training cut them, and boxes in them.

A crop may reach over the edges of its frame; what is outside has the frame's mean colour. The anchor crop shows the
object with as much again around it, the live crop is twice as long, so at 64 and 128 px both show it equally large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BoxError
from elysium_core.geometry import Box

_LEAST_SIDE_PX = 4.0
# A very long object still has some surroundings at its ends.
_LEAST_MARGIN = 1.2
# Sampling at single points skips pixels when a picture is shrunk by more than this.
_MOST_SHRINK = 2.2
_SHRUNK_TO = 1.5


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a frame, in pixels of the frame.

    Attributes:
        x: Left edge; negative outside the frame.
        y: Top edge.
        side: Length of its sides.
        frame_width: Width of the frame.
        frame_height: Height of the frame.
    """

    x: float
    y: float
    side: float
    frame_width: int
    frame_height: int

    @classmethod
    def around(cls, box: Box, frame_width: int, frame_height: int, times: float = 1.0) -> Crop:
        """The anchor crop of a box: twice as long as a square box is, and a little more for a long one.

        Args:
            box: The object.
            frame_width: Width of the frame [px].
            frame_height: Height of the frame [px].
            times: Longer by this factor; 2 for a live crop.
        """
        width, height = box.width * frame_width, box.height * frame_height
        around = (width + height) / 2
        side = math.sqrt((width + around) * (height + around))
        side = times * max(_LEAST_SIDE_PX, side, _LEAST_MARGIN * max(width, height))
        x, y = box.center[0] * frame_width - side / 2, box.center[1] * frame_height - side / 2
        return cls(x, y, side, frame_width, frame_height)

    def cut(self, image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
        """Cut it out of an image and bring it to a size.

        Args:
            image: RGB uint8 (frame_height, frame_width, 3).
            side_px: Side of the result [px].

        Returns:
            RGB uint8 (side_px, side_px, 3).
        """
        fill = [float(value) for value in cv2.mean(image)[:3]]
        if self.side > _MOST_SHRINK * side_px:
            return self._shrunk(image, side_px, fill)
        return self._sampled(image, side_px, fill)

    def _shrunk(self, image: NDArray[np.uint8], side_px: int, fill: list[float]) -> NDArray[np.uint8]:
        """Only the part inside the frame is averaged down, then sampled."""
        left, top = max(0, math.floor(self.x)), max(0, math.floor(self.y))
        right = min(self.frame_width, math.ceil(self.x + self.side))
        bottom = min(self.frame_height, math.ceil(self.y + self.side))
        if right <= left or bottom <= top:
            return np.full((side_px, side_px, 3), np.round(fill), np.uint8)
        scale = side_px * _SHRUNK_TO / self.side
        size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        part = np.asarray(cv2.resize(image[top:bottom, left:right], size, interpolation=cv2.INTER_AREA), np.uint8)
        sx, sy = size[0] / (right - left), size[1] / (bottom - top)
        out = side_px / self.side
        matrix = np.array([[out / sx, 0, (left - self.x) * out], [0, out / sy, (top - self.y) * out]], np.float64)
        return _warp(part, matrix, side_px, fill)

    def _sampled(self, image: NDArray[np.uint8], side_px: int, fill: list[float]) -> NDArray[np.uint8]:
        out = side_px / self.side
        return _warp(image, np.array([[out, 0, -self.x * out], [0, out, -self.y * out]], np.float64), side_px, fill)

    def inside(self, box: Box) -> Box | None:
        """The part of a box of the frame that this crop shows, in fractions of the crop; None if it shows none."""
        x1, y1, x2, y2 = box.to_px(self.frame_width, self.frame_height)
        values = ((x1 - self.x), (y1 - self.y), (x2 - self.x), (y2 - self.y))
        try:
            return Box(*(min(1.0, max(0.0, value / self.side)) for value in values))
        except BoxError:
            return None

    def to_frame(self, box: Box) -> Box | None:
        """A box of this crop as a box of the frame, cut to the frame; None if it lies outside."""
        x1, y1 = self.x + box.x1 * self.side, self.y + box.y1 * self.side
        x2, y2 = self.x + box.x2 * self.side, self.y + box.y2 * self.side
        try:
            return Box.from_px(x1, y1, x2, y2, self.frame_width, self.frame_height, clip=True)
        except BoxError:
            return None


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], side_px: int, fill: list[float]) -> NDArray[np.uint8]:
    """Sample an image; ``matrix`` maps pixel edges, OpenCV's maps pixel centres."""
    a, b = matrix[0, 0], matrix[1, 1]
    shift = np.array([[0, 0, (a - 1) / 2], [0, 0, (b - 1) / 2]])
    warped = cv2.warpAffine(
        image,
        matrix + shift,
        (side_px, side_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.asarray(warped, dtype=np.uint8)
