"""Zoom: parts of a frame at full resolution, for things that are small in it.

A model sees every picture at the same few pixels. What is small in a frame is large in a view around it, cut out of
the frame (:class:`ZoomView`). Words are looked for through views by :class:`ZoomSearch`, targets are followed through
views by :class:`ZoomFollow`. The paper explains its weak results on small objects by the low resolution of the vision
encoder; this is the remedy.
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
"""Side of a view around a box, over the longer side of that box: room for what moves, and for what is around it."""
_LEAST_SIDE_PX = 32
# A view that shows little less than the frame is not worth another look.
_LEAST_GAIN = 1.1
# As a fraction of the view; a box of a text protocol has steps of .01.
_EDGE = 0.02
_TILINGS = ((2, 0.6), (3, 0.4))


@dataclass(frozen=True, slots=True)
class ZoomView:
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
    def around(cls, box: Box, frame_width: int, frame_height: int) -> ZoomView:
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


def zoomed_pictures(images: Sequence[NDArray[np.uint8]], box: Box) -> tuple[list[NDArray[np.uint8]], Box]:
    """Show the place around a box in place of whole pictures, if that shows it larger.

    Args:
        images: RGB uint8 (H, W, 3), one or more, of any sizes.
        box: In the first of them; the others show the same place.

    Returns:
        The pictures to show, and the box in the first of them.
    """
    views = [ZoomView.around(box, image.shape[1], image.shape[0]) for image in images]
    inside = views[0].from_frame(box)
    if inside is None or not views[0].is_worth_it:
        return list(images), box
    return [view.crop(image) for view, image in zip(views, images, strict=True)], inside


def tilings(frame_width: int, frame_height: int) -> list[list[ZoomView]]:
    """Views that cover a frame together and overlap, in rows: 2 x 2 large ones, then 3 x 3 smaller ones."""
    return [_tiling(frame_width, frame_height, count, share) for count, share in _TILINGS]


def _tiling(frame_width: int, frame_height: int, count: int, share: float) -> list[ZoomView]:
    width, height = math.ceil(frame_width * share), math.ceil(frame_height * share)
    lefts = [round((frame_width - width) * n / (count - 1)) for n in range(count)]
    tops = [round((frame_height - height) * n / (count - 1)) for n in range(count)]
    return [ZoomView(left, top, width, height, frame_width, frame_height) for top in tops for left in lefts]


SURE_SCORE = 0.5
"""What scores less in the whole frame has to be confirmed in a view around it, and is looked for in parts of the frame
too; what is found in a part has to reach this score there and in a view around it."""

Image = NDArray[np.uint8]
Encode = Callable[[Sequence[Image]], list[Seen]]
"""Encodes RGB uint8 images (H, W, 3)."""
Answers = dict[str, Grounding]
"""Answers by key; boxes are boxes of the frame, the text is about the view it was read from."""


class ZoomSearch:
    """Finds things by words in parts of frames.

    Args:
        runtime: The model.
        encode: Encodes images; by default the runtime does.
        counters: Where passes and tokens are counted.
    """

    def __init__(self, runtime: Runtime, encode: Encode | None = None, counters: EngineCounters | None = None) -> None:
        self._runtime = runtime
        self._encode = encode or runtime.encode_frames
        self._counters = counters
        self._turn = 0

    def finish(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """Look closer at what was found in a picture, and through smaller and smaller parts for what was not.

        Args:
            image: RGB uint8 (H, W, 3).
            found: What was found in the whole picture, by key.
            words: What was looked for, by key.

        Returns:
            The surest answer a key.
        """
        height, width = image.shape[:2]
        best = self._refine(image, found, words)
        for views in tilings(width, height):
            best |= self._scan(image, views, best, words)
        return best

    def go_on(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """As :meth:`finish` for one frame of a stream: of all parts of a frame, it looks through the next in turn."""
        height, width = image.shape[:2]
        views = [view for tiling in tilings(width, height) for view in tiling]
        best = self._refine(image, found, words)
        best |= self._scan(image, [views[self._turn % len(views)]], best, words)
        self._turn += 1
        return best

    def _refine(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """The surer of what was found and what a view around it shows; what is not sure has to be shown by the view."""
        closer = self._look_at(image, found, words)
        return {
            key: max(answer, closer.get(key, answer), key=_score) if _is_sure(answer) else closer.get(key, answer)
            for key, answer in found.items()
        }

    def _scan(self, image: Image, views: Sequence[ZoomView], best: Answers, words: Mapping[str, str]) -> Answers:
        """Look through parts of a picture for what is not sure yet.

        What is found in a part counts if a view around it shows it, too, and with the score
        it has there: each part without the thing is one more chance to be wrong.
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
        confirmed = self._look_at(image, found, words)
        return {key: answer for key, answer in confirmed.items() if _is_sure(answer)}

    def _look_at(self, image: Image, found: Mapping[str, Grounding], words: Mapping[str, str]) -> Answers:
        """What views around found boxes show; nothing about boxes that are large in the picture already."""
        height, width = image.shape[:2]
        boxes = {key: box for key, answer in found.items() if (box := answer.box) is not None}
        views = {key: ZoomView.around(box, width, height) for key, box in boxes.items()}
        views = {key: view for key, view in views.items() if view.is_worth_it}
        if not views:
            return {}
        answers: Answers = {}
        pictures = self._encode([view.crop(image) for view in views.values()])
        for (key, view), seen in zip(views.items(), pictures, strict=True):
            answers |= self._ask(seen, {key: words[key]}, view)
        return answers

    def _ask(self, seen: Seen, words: Mapping[str, str], view: ZoomView) -> Answers:
        """Where things are in a view; nothing where the view may show but a part of them."""
        answers = find_by_words(self._runtime, seen, words, counters=self._counters)
        return {key: _in_frame(answer, view) for key, answer in answers.items()}


def _in_frame(answer: Grounding, view: ZoomView) -> Grounding:
    """An answer about a view as one about its frame."""
    if answer.box is None:
        return answer
    if view.cuts(answer.box):
        return Grounding(None, 0.0, answer.text, "only a part of it is in the view")
    return replace(answer, box=view.to_frame(answer.box))


def _is_sure(answer: Grounding) -> bool:
    return answer.score >= SURE_SCORE


def _score(answer: Grounding) -> float:
    return answer.score


_FRAMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    """A view of a frame in which a target's box is known.

    Attributes:
        image: The view.
        box: The target's box in it.
        words: The target's words, empty if it has none.
    """

    image: Image
    box: Box
    words: str


class ZoomFollow:
    """Follows several targets through anchor windows of views instead of frames.

    Each view is around the place where the target was last surely seen. Targets share
    no views, so each costs an encoded picture and a pass of the language model.

    Args:
        runtime: The model.
        encode: Encodes images.
        counters: Where passes and tokens are counted.
    """

    def __init__(self, runtime: Runtime, encode: Encode, counters: EngineCounters) -> None:
        self._runtime, self._encode, self._counters = runtime, encode, counters
        self._openings: dict[str, _Opening] = {}
        self._windows: dict[str, Window] = {}

    def __contains__(self, target_id: str) -> bool:
        return target_id in self._openings

    def open(self, target_id: str, frame: Frame, box: Box, words: str) -> None:
        """Follow a target from a frame in which its box is known; replaces what was followed before."""
        view = ZoomView.around(box, frame.width, frame.height)
        inside = view.from_frame(box)
        if inside is not None:
            self._openings[target_id] = _Opening(view.crop(frame.image), inside, words)
            self._windows.pop(target_id, None)

    def forget(self, target_id: str) -> None:
        """Stop following a target."""
        self._openings.pop(target_id, None)
        self._windows.pop(target_id, None)

    def clear(self) -> None:
        """Stop following all targets."""
        self._openings.clear()
        self._windows.clear()

    def restart(self) -> None:
        """Forget what the model keeps, after a failure of it; the targets stay."""
        self._windows.clear()

    def look(self, frame: Frame, places: Mapping[str, Box]) -> dict[str, Grounding]:
        """Look at the places where targets were last seen.

        Args:
            frame: The live frame.
            places: Boxes by target id.

        Returns:
            What is seen of each target that is followed, and that a view shows larger than the frame.
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
            name: _look(self._windows[name], name, view, live, places[name])
            for (name, view), live in zip(views.items(), pictures[: len(views)], strict=True)
        }

    def _new_window(self, name: str, seen: Seen) -> Window:
        opening = self._openings[name]
        words = {name: opening.words} if opening.words else {}
        return Window(self._runtime, seen, {name: opening.box}, words, _FRAMES, self._counters)


def _look(window: Window, name: str, view: ZoomView, live: Seen, place: Box) -> Grounding:
    """Ask where a target is in a view; ``place``: its last box in the frame."""
    guess = view.from_frame(place)
    seen = window.look(live, {} if guess is None else {name: guess})[name]
    return seen if seen.box is None else Grounding(view.to_frame(seen.box), seen.score)
