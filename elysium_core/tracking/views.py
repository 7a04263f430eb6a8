"""Views: parts of a frame that are shown to the model in place of the whole.

A model sees every picture at the same few pixels. What is small in a frame is large in
a view around it, cut out of the frame at its full resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BoxError
from elysium_core.geometry import Box

_TIMES_THE_TARGET = 3.0
"""Side of a view around a box, over the longer side of that box: room for what moves, and for what is around it."""
_LEAST_SIDE_PX = 32
# A view that shows little less than the frame is not worth another look.
_LEAST_GAIN = 1.1
# As a fraction of the view; a box of a text protocol has steps of .01.
_EDGE = 0.02
_TILINGS = ((2, 0.6), (3, 0.4))


@dataclass(frozen=True, slots=True)
class View:
    """A rectangle of a frame, all in pixels.

    Attributes:
        x: Its left edge.
        y: Its top edge.
        width: Its width.
        height: Its height.
        frame_width: Width of the frame.
        frame_height: Height of the frame.
    """

    x: int
    y: int
    width: int
    height: int
    frame_width: int
    frame_height: int

    @classmethod
    def around(cls, box: Box, frame_width: int, frame_height: int) -> View:
        """A square three times as long as a box is, around it; cut and moved to lie inside the frame."""
        longest = max(box.width * frame_width, box.height * frame_height)
        side = max(_LEAST_SIDE_PX, round(_TIMES_THE_TARGET * longest))
        width, height = min(side, frame_width), min(side, frame_height)
        x, y = box.center[0] * frame_width - width / 2, box.center[1] * frame_height - height / 2
        left, top = min(max(round(x), 0), frame_width - width), min(max(round(y), 0), frame_height - height)
        return cls(left, top, width, height, frame_width, frame_height)

    @property
    def gain(self) -> float:
        """How much larger it shows things than the frame does: mean of both directions, >= 1."""
        return math.sqrt(self.frame_width * self.frame_height / (self.width * self.height))

    @property
    def is_worth_it(self) -> bool:
        """Whether it shows things noticeably larger than the frame does."""
        return self.gain >= _LEAST_GAIN

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Its pixels: a copy of (height, width, 3) of an image (frame_height, frame_width, 3)."""
        return np.ascontiguousarray(image[self.y : self.y + self.height, self.x : self.x + self.width])

    def to_frame(self, box: Box) -> Box:
        """A box of this view as a box of the frame."""
        return Box(
            (self.x + box.x1 * self.width) / self.frame_width,
            (self.y + box.y1 * self.height) / self.frame_height,
            (self.x + box.x2 * self.width) / self.frame_width,
            (self.y + box.y2 * self.height) / self.frame_height,
        )

    def from_frame(self, box: Box) -> Box | None:
        """The part of a box of the frame that this view shows; None if it shows none of it."""
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
        """Whether a box of this view ends at an edge behind which the frame goes on: it may be half of something."""
        return (
            (box.x1 < _EDGE and self.x > 0)
            or (box.y1 < _EDGE and self.y > 0)
            or (box.x2 > 1 - _EDGE and self.x + self.width < self.frame_width)
            or (box.y2 > 1 - _EDGE and self.y + self.height < self.frame_height)
        )


def closer_pictures(images: Sequence[NDArray[np.uint8]], box: Box) -> tuple[list[NDArray[np.uint8]], Box]:
    """Show the place around a box in place of whole pictures, if that shows it larger.

    Args:
        images: RGB uint8 (H, W, 3), one or more, of any sizes.
        box: In the first of them; the others show the same place.

    Returns:
        The pictures to show, and the box in the first of them.
    """
    views = [View.around(box, image.shape[1], image.shape[0]) for image in images]
    inside = views[0].from_frame(box)
    if inside is None or not views[0].is_worth_it:
        return list(images), box
    return [view.crop(image) for view, image in zip(views, images, strict=True)], inside


def tilings(frame_width: int, frame_height: int) -> list[list[View]]:
    """Views that cover a frame together and overlap, in rows: 2 x 2 large ones, then 3 x 3 smaller ones."""
    return [_tiling(frame_width, frame_height, count, share) for count, share in _TILINGS]


def _tiling(frame_width: int, frame_height: int, count: int, share: float) -> list[View]:
    width, height = math.ceil(frame_width * share), math.ceil(frame_height * share)
    lefts = [round((frame_width - width) * n / (count - 1)) for n in range(count)]
    tops = [round((frame_height - height) * n / (count - 1)) for n in range(count)]
    return [View(left, top, width, height, frame_width, frame_height) for top in tops for left in lefts]
