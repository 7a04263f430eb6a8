"""Following targets through close-ups: views around their last places, at the frame's full resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.inference.engine import EngineCounters
from elysium_core.inference.runtime import Runtime
from elysium_core.tracking.target import Observation
from elysium_core.tracking.views import View
from elysium_core.tracking.window import Window
from elysium_core.tracking.zoom import Encode, Image

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


class CloseUps:
    """A second look at each of several targets: an anchor window of views instead of frames.

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
        view = View.around(box, frame.width, frame.height)
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

    def look(self, frame: Frame, places: Mapping[str, Box]) -> dict[str, Observation]:
        """Look at the places where targets were last seen.

        Args:
            frame: The live frame.
            places: Boxes by target id.

        Returns:
            What is seen of each target that is followed, and that a view shows larger than the frame.
        """
        views = {name: View.around(box, frame.width, frame.height) for name, box in places.items() if name in self}
        views = {name: view for name, view in views.items() if view.is_worth_it}
        if not views:
            return {}
        fresh = [name for name in views if name not in self._windows]
        openings = [self._openings[name].image for name in fresh]
        tokens = self._encode([*(view.crop(frame.image) for view in views.values()), *openings])
        for name, opening in zip(fresh, tokens[len(views) :], strict=True):
            self._windows[name] = self._new_window(name, opening)
        return {
            name: _look(self._windows[name], name, view, live, places[name])
            for (name, view), live in zip(views.items(), tokens[: len(views)], strict=True)
        }

    def _new_window(self, name: str, tokens: Tensor) -> Window:
        opening = self._openings[name]
        words = {name: opening.words} if opening.words else {}
        return Window(self._runtime, tokens, {name: opening.box}, words, _FRAMES, self._counters)


def _look(window: Window, name: str, view: View, live: Tensor, place: Box) -> Observation:
    """Ask where a target is in a view; ``place``: its last box in the frame."""
    guess = view.from_frame(place)
    seen = window.look(live, {} if guess is None else {name: guess})[name]
    return seen if seen.box is None else Observation(view.to_frame(seen.box), seen.score)
