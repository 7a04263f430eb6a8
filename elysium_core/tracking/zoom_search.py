"""Zoom search: expressions are found in parts of a frame at full resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from elysium_core.engine.engine import EngineCounters
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.zoom import Encode, Image, ZoomView, tilings
from elysium_core.types import Grounding

SURE_SCORE = 0.5
"""Score from which an answer is sure.

An answer about the whole frame with a lower score must be confirmed in a view around its box, and the object is also
searched for in parts of the frame. An answer about a part must reach this score there and in a view around its box.
"""

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
