"""Zoom tracking: targets are tracked in parts of a frame around them, at full resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elysium_core.engine.engine import EngineCounters
from elysium_core.families.base import Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.window import Window
from elysium_core.tracking.zoom import Encode, Image, ZoomView
from elysium_core.types import Grounding

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
