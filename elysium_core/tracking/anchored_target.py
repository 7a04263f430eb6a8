"""A target that is followed in crops: where its next crop is, and how an answer moves it.

The live crop is around the target's last box. It grows while answers are not sure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.families.base import Anchor
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.crop import Crop
from elysium_core.types import Grounding

LIVE_TIMES = 2.0
"""Side of a live crop over that of the anchor crop of the same box."""

# While a target is not sure its live crop grows, so that what moves fast is not missed.
_GROWTH = 1.1
_WIDEST = 1.6
# How fast the size follows a sure answer: sizes change slowly, and a step of box text is 4 % of a target's side.
_SIZE_RATE = 0.4
# The live crop also follows an answer that is not sure, down to this share of the threshold: a target that turns or is
# half hidden goes on moving.
_FOLLOWED_FROM = 0.5
# Live crops of a target that is lost, each of them in its turn: their length over that of a usual one.
_SEARCH_TIMES = (1.0, 2.0, 4.0)
# After so many answers that were not sure, a sure one must be confirmed; and so must one that overlaps less than this
# with the last box.
_CHECKED_AFTER = 2
_JUMP_IOU = 0.3
# From this score on, a live picture takes the place of the one that the way leads back to: things change.
_HOME_FROM = 0.8


@dataclass(slots=True)
class AnchoredTarget:
    """A target that has an anchor.

    Attributes:
        anchor: Made where it was given or found.
        home: A live picture in which its place is known well, and its box there.
        box: Its last box that was followed.
        wide: Length of its live crop over that of a usual one.
        turn: Number of times it was looked for while it was lost.
        doubts: Answers since the last sure one.
    """

    anchor: Anchor
    home: tuple[NDArray[np.uint8], Box]
    box: Box
    wide: float = 1.0
    turn: int = 0
    doubts: int = 0

    def live_crop(self, frame: Frame) -> Crop:
        """The crop around its last box."""
        return Crop.around(self.box, frame.width, frame.height, LIVE_TIMES * self.wide)

    def search_crop(self, frame: Frame) -> Crop:
        """The crop in which it is looked for while it is lost; each call gives the next one of three sizes."""
        times = _SEARCH_TIMES[self.turn % len(_SEARCH_TIMES)]
        self.turn += 1
        return Crop.around(self.box, frame.width, frame.height, LIVE_TIMES * self.wide * times)

    def must_be_checked(self, answer: Grounding) -> bool:
        """Whether an answer may be about something else: it comes after doubts, or its box is far from the last one."""
        is_jump = answer.box is not None and answer.box.iou(self.box) < _JUMP_IOU
        return is_jump or self.doubts >= _CHECKED_AFTER

    def remember(self, picture: NDArray[np.uint8], box: Box | None, score: float) -> None:
        """Keep a live picture as the one that ways lead back to, if its answer is very sure.

        Args:
            picture: The live picture.
            box: The target in it; None if the answer has no box.
            score: Score of the answer.
        """
        if box is not None and score >= _HOME_FROM:
            self.home = picture, box

    def follow(self, answer: Grounding, sure_from: float) -> Grounding:
        """Move to the box of an answer, unless its score is too low; the size follows slowly.

        Args:
            answer: Its box is a box of the frame.
            sure_from: Score from which an answer is sure.

        Returns:
            The answer with the box to which the target has moved.
        """
        box = answer.box
        if box is None or answer.score < sure_from * _FOLLOWED_FROM:
            return self.stay(answer)
        rate = _SIZE_RATE
        if answer.score >= sure_from:
            self.wide, self.turn, self.doubts = max(1.0, self.wide / _GROWTH), 0, 0
        else:
            rate *= answer.score / sure_from
            self.doubts += 1
        self.box = _resized(self.box, box, rate)
        return replace(answer, box=self.box)

    def stay(self, answer: Grounding) -> Grounding:
        """Doubt an answer: it is returned as it is, and the next live crop is larger."""
        self.wide = min(_WIDEST, self.wide * _GROWTH)
        self.doubts += 1
        return answer

    def found_at(self, box: Box) -> None:
        """Go on from where it was found while it was lost."""
        self.box, self.wide = box, 1.0


def _resized(last: Box, new: Box, rate: float) -> Box:
    """The place of a new box with a size between that of the last box (rate 0) and its own (1), cut to the frame."""
    width = last.width + rate * (new.width - last.width)
    height = last.height + rate * (new.height - last.height)
    x, y = new.center
    left, top = max(0.0, x - width / 2), max(0.0, y - height / 2)
    return Box(left, top, min(1.0, x + width / 2), min(1.0, y + height / 2))
