"""Zoom: search and tracking of small objects in parts of a frame at full resolution.

The vision encoder resizes every image to the same small resolution; the paper explains its weak results on small
objects by this. An object that is small in a frame is large in a *view*, a part of the frame around it
(:class:`ZoomView`). Expressions are found in views by :mod:`elysium_core.tracking.zoom_search`, and targets are tracked
in them by :mod:`elysium_core.tracking.zoom_follow`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BoxError
from elysium_core.families.base import Seen
from elysium_core.geometry import Box

Image = NDArray[np.uint8]
Encode = Callable[[Sequence[Image]], list[Seen]]
"""Encodes RGB uint8 images (H, W, 3)."""

_TIMES_THE_TARGET = 3.0
"""Side of a view around a box, relative to the longer side of the box: it leaves room for motion and surroundings."""
_LEAST_SIDE_PX = 32
# Views with a smaller gain are not used: they show almost the whole frame.
_LEAST_GAIN = 1.1
# Distance from an edge below which a box is cut by it, as a fraction of the view. Box text has steps of 0.01.
_EDGE = 0.02
# (views in each direction, side of a view as a fraction of the frame).
_TILINGS = ((2, 0.6), (3, 0.4))


@dataclass(frozen=True, slots=True)
class ZoomView:
    """A rectangular part of a frame.

    Attributes:
        x: Left edge [px].
        y: Top edge [px].
        width: Width [px].
        height: Height [px].
        frame_width: Width of the frame [px].
        frame_height: Height of the frame [px].
    """

    x: int
    y: int
    width: int
    height: int
    frame_width: int
    frame_height: int

    @classmethod
    def around(cls, box: Box, frame_width: int, frame_height: int, times: float = _TIMES_THE_TARGET) -> ZoomView:
        """A square view around a box, so many times as long as its longer side, cut and moved to fit into the frame."""
        longest = max(box.width * frame_width, box.height * frame_height)
        side = max(_LEAST_SIDE_PX, round(times * longest))
        width, height = min(side, frame_width), min(side, frame_height)
        x, y = box.center[0] * frame_width - width / 2, box.center[1] * frame_height - height / 2
        left, top = min(max(round(x), 0), frame_width - width), min(max(round(y), 0), frame_height - height)
        return cls(left, top, width, height, frame_width, frame_height)

    @property
    def gain(self) -> float:
        """Magnification relative to the frame, >= 1: geometric mean of both directions."""
        return math.sqrt(self.frame_width * self.frame_height / (self.width * self.height))

    @property
    def is_worth_it(self) -> bool:
        """Whether the magnification is large enough to be useful."""
        return self.gain >= _LEAST_GAIN

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy of the pixels (height, width, 3) of this view from an image (frame_height, frame_width, 3)."""
        return np.ascontiguousarray(image[self.y : self.y + self.height, self.x : self.x + self.width])

    def to_frame(self, box: Box) -> Box:
        """Convert a box of this view to a box of the frame."""
        return Box(
            (self.x + box.x1 * self.width) / self.frame_width,
            (self.y + box.y1 * self.height) / self.frame_height,
            (self.x + box.x2 * self.width) / self.frame_width,
            (self.y + box.y2 * self.height) / self.frame_height,
        )

    def from_frame(self, box: Box) -> Box | None:
        """Convert a box of the frame to a box of this view, cut to the view; None if the box is outside."""
        x1, y1, x2, y2 = box.to_px(self.frame_width, self.frame_height)
        values = (
            (x1 - self.x) / self.width,
            (y1 - self.y) / self.height,
            (x2 - self.x) / self.width,
            (y2 - self.y) / self.height,
        )
        try:
            return Box(*(min(1.0, max(0.0, value)) for value in values))
        except BoxError:
            return None

    def cuts(self, box: Box) -> bool:
        """Whether a box of this view touches an edge inside the frame: it may be only a part of an object."""
        return (
            (box.x1 < _EDGE and self.x > 0)
            or (box.y1 < _EDGE and self.y > 0)
            or (box.x2 > 1 - _EDGE and self.x + self.width < self.frame_width)
            or (box.y2 > 1 - _EDGE and self.y + self.height < self.frame_height)
        )


def zoomed_pictures(images: Sequence[NDArray[np.uint8]], box: Box) -> tuple[list[NDArray[np.uint8]], Box]:
    """Cut the part around a box out of images, if this makes the box noticeably larger.

    Args:
        images: One or more RGB uint8 images (H, W, 3) of any sizes. The same place is cut out of all.
        box: A box in the first image.

    Returns:
        The parts, or the unchanged images, and the box in the first of them.
    """
    views = [ZoomView.around(box, image.shape[1], image.shape[0]) for image in images]
    inside = views[0].from_frame(box)
    if inside is None or not views[0].is_worth_it:
        return list(images), box
    return [view.crop(image) for view, image in zip(views, images, strict=True)], inside


def tilings(frame_width: int, frame_height: int) -> list[list[ZoomView]]:
    """Two tilings of a frame by overlapping views, row by row: 2 x 2 large views, and 3 x 3 smaller ones."""
    return [_tiling(frame_width, frame_height, count, share) for count, share in _TILINGS]


def _tiling(frame_width: int, frame_height: int, count: int, share: float) -> list[ZoomView]:
    width, height = math.ceil(frame_width * share), math.ceil(frame_height * share)
    lefts = [round((frame_width - width) * n / (count - 1)) for n in range(count)]
    tops = [round((frame_height - height) * n / (count - 1)) for n in range(count)]
    return [ZoomView(left, top, width, height, frame_width, frame_height) for top in tops for left in lefts]
