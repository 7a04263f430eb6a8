"""Zoom: search and tracking of small objects in parts of a frame at full resolution.

The vision encoder resizes every image to the same small resolution; the paper explains its weak results on small
objects by this. An object that is small in a frame is large in a *view*, a part of the frame around it
(:class:`ZoomView`). :class:`ZoomSearch` finds expressions in views, and :class:`ZoomFollow` tracks targets in views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.engine.engine import EngineCounters
from elysium_core.errors import BoxError
from elysium_core.families.base import Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.window import Window
from elysium_core.types import Grounding

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
    def around(cls, box: Box, frame_width: int, frame_height: int) -> ZoomView:
        """A square view around a box, three times as long as its longer side, cut and moved to fit into the frame."""
        longest = max(box.width * frame_width, box.height * frame_height)
        side = max(_LEAST_SIDE_PX, round(_TIMES_THE_TARGET * longest))
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


SURE_SCORE = 0.5
"""Score from which an answer is sure.

An answer about the whole frame with a lower score must be confirmed in a view around its box, and the object is also
searched for in parts of the frame. An answer about a part must reach this score there and in a view around its box.
"""

Image = NDArray[np.uint8]
Encode = Callable[[Sequence[Image]], list[Seen]]
"""Encodes RGB uint8 images (H, W, 3)."""
Answers = dict[str, Grounding]
"""Answers by key. Boxes refer to the frame; the text is the answer about the view."""


class ZoomSearch:
    """Finds expressions in parts of frames.

    Args:
        runtime: The model.
        encode: Encodes images; by default :meth:`elysium_core.runtime.Runtime.encode_frames`.
        counters: Counts passes and tokens.
    """

    def __init__(self, runtime: Runtime, encode: Encode | None = None, counters: EngineCounters | None = None) -> None:
        self._runtime = runtime
        self._encode = encode or runtime.encode_frames
        self._counters = counters
        self._turn = 0

    def finish(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """Improve the answers about an image: check what was found, and search for the rest in ever smaller parts.

        Args:
            image: RGB uint8 (H, W, 3).
            found: Answers about the whole image, by key.
            words: Expressions, by key.

        Returns:
            The answer with the highest score for each key.
        """
        height, width = image.shape[:2]
        best = self._refine(image, found, words)
        for views in tilings(width, height):
            best |= self._scan(image, views, best, words)
        return best

    def go_on(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """Like :meth:`finish`, but for one frame of a stream: each call searches only the next one of all parts."""
        height, width = image.shape[:2]
        views = [view for tiling in tilings(width, height) for view in tiling]
        best = self._refine(image, found, words)
        best |= self._scan(image, [views[self._turn % len(views)]], best, words)
        self._turn += 1
        return best

    def _refine(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """Ask again in a view around each found box.

        The new answer replaces one that is not sure. Of a sure answer and the new one, the higher score counts.
        """
        closer = self._ask_around(image, found, words)
        return {
            key: max(answer, closer.get(key, answer), key=_score) if _is_sure(answer) else closer.get(key, answer)
            for key, answer in found.items()
        }

    def _scan(self, image: Image, views: Sequence[ZoomView], best: Answers, words: Mapping[str, str]) -> Answers:
        """Search parts of an image for the expressions without a sure answer.

        A result counts only if a view around its box confirms it, with the score of that view:
        every part without the object is another chance of a false detection.
        """
        unsure = {key: words[key] for key, answer in best.items() if not _is_sure(answer)}
        if not unsure:
            return {}
        found: Answers = {}
        pictures = self._encode([view.crop(image) for view in views])
        for view, seen in zip(views, pictures, strict=True):
            for key, answer in self._ask(seen, unsure, view).items():
                if _is_sure(answer) and _score(answer) >= _score(found.get(key, answer)):
                    found[key] = answer
        confirmed = self._ask_around(image, found, words)
        return {key: answer for key, answer in confirmed.items() if _is_sure(answer)}

    def _ask_around(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """Answers about views around the found boxes; none for boxes that are large in the image already."""
        height, width = image.shape[:2]
        boxes = {key: box for key, answer in found.items() if (box := answer.box) is not None}
        views = {key: ZoomView.around(box, width, height) for key, box in boxes.items()}
        views = {key: view for key, view in views.items() if view.is_worth_it}
        if not views:
            return {}
        answers: Answers = {}
        pictures = self._encode([view.crop(image) for view in views.values()])
        for (key, view), seen in zip(views.items(), pictures, strict=True):
            answers |= self._ask(seen, {key: words[key]}, view, boxes[key])
        return answers

    def _ask(self, seen: Seen, words: Mapping[str, str], view: ZoomView, place: Box | None = None) -> Answers:
        """Find expressions in a view, near a box of the frame if one is given.

        There is no box where the view may show only a part of the object.
        """
        inside = None if place is None else view.from_frame(place)
        near = {} if inside is None else dict.fromkeys(words, inside)
        answers = find_by_words(self._runtime, seen, words, counters=self._counters, near=near)
        return {key: _in_frame(answer, view) for key, answer in answers.items()}


def _in_frame(answer: Grounding, view: ZoomView) -> Grounding:
    """Convert an answer about a view to one about its frame."""
    if answer.box is None:
        return answer
    if view.cuts(answer.box):
        return Grounding(None, 0.0, answer.text, "only a part of the object is in the view")
    return replace(answer, box=view.to_frame(answer.box))


def _is_sure(answer: Grounding) -> bool:
    return answer.score >= SURE_SCORE


def _score(answer: Grounding) -> float:
    return answer.score


# The first frame and the live one: an anchor window.
_FRAMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    """A view in which the box of a target is known.

    Attributes:
        image: Pixels of the view, RGB uint8 (H, W, 3).
        box: Box of the target in the view.
        words: Expression of the target, empty if it has none.
    """

    image: Image
    box: Box
    words: str


class ZoomFollow:
    """Tracks several targets in anchor windows of views instead of frames.

    Each view is around the last certain box of a target. Targets share no views, so each target
    costs one encoded image and one pass of the language model.

    Args:
        runtime: The model.
        encode: Encodes images.
        counters: Counts passes and tokens.
    """

    def __init__(self, runtime: Runtime, encode: Encode, counters: EngineCounters) -> None:
        self._runtime, self._encode, self._counters = runtime, encode, counters
        self._openings: dict[str, _Opening] = {}
        self._windows: dict[str, Window] = {}

    def __contains__(self, target_id: str) -> bool:
        return target_id in self._openings

    def open(self, target_id: str, frame: Frame, box: Box, words: str) -> None:
        """Start to track a target from a frame in which its box is known; replaces an earlier start."""
        view = ZoomView.around(box, frame.width, frame.height)
        inside = view.from_frame(box)
        if inside is not None:
            self._openings[target_id] = _Opening(view.crop(frame.image), inside, words)
            self._windows.pop(target_id, None)

    def forget(self, target_id: str) -> None:
        """Stop tracking a target."""
        self._openings.pop(target_id, None)
        self._windows.pop(target_id, None)

    def clear(self) -> None:
        """Stop tracking all targets."""
        self._openings.clear()
        self._windows.clear()

    def restart(self) -> None:
        """Drop all windows after a failure of the model; the targets and their first views stay."""
        self._windows.clear()

    def look(self, frame: Frame, places: Mapping[str, Box]) -> dict[str, Grounding]:
        """Find targets in views around their last boxes.

        Args:
            frame: The live frame.
            places: Last boxes by target id.

        Returns:
            One observation for each tracked target whose view is a useful magnification.
        """
        views = {name: ZoomView.around(box, frame.width, frame.height) for name, box in places.items() if name in self}
        views = {name: view for name, view in views.items() if view.is_worth_it}
        if not views:
            return {}
        fresh = [name for name in views if name not in self._windows]
        openings = [self._openings[name].image for name in fresh]
        pictures = self._encode([*(view.crop(frame.image) for view in views.values()), *openings])
        for name, opening in zip(fresh, pictures[len(views) :], strict=True):
            self._windows[name] = self._new_window(name, opening)
        return {
            name: _find_in_view(self._windows[name], name, view, live, places[name])
            for (name, view), live in zip(views.items(), pictures[: len(views)], strict=True)
        }

    def _new_window(self, name: str, seen: Seen) -> Window:
        opening = self._openings[name]
        words = {name: opening.words} if opening.words else {}
        return Window(self._runtime, seen, {name: opening.box}, words, _FRAMES, self._counters)


def _find_in_view(window: Window, name: str, view: ZoomView, live: Seen, place: Box) -> Grounding:
    """Find a target in a view. ``place`` is its last box in the frame."""
    guess = view.from_frame(place)
    seen = window.look(live, {} if guess is None else {name: guess})[name]
    return seen if seen.box is None else Grounding(view.to_frame(seen.box), seen.score)
