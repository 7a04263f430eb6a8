"""Finding things by words with closer looks: at what was found, and at parts of a frame where nothing was.

A closer look is one more picture for the model: a :class:`View` at the frame's full
resolution. The paper puts its weak results on small objects down to the resolution of
the vision encoder; this is the answer to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.inference.engine import EngineCounters
from elysium_core.inference.runtime import Runtime, ScoredAnswer
from elysium_core.tracking.grounding import ground_answers
from elysium_core.tracking.views import View, tilings

SURE_SCORE = 0.5
"""What scores less in the whole frame has to be confirmed by a closer look, and is also looked for in parts of the
frame; what is found there has to score it twice."""

Image = NDArray[np.uint8]
Encode = Callable[[Sequence[Image]], list[Tensor]]
"""Images (H, W, 3) -> visual tokens (K, D) of each."""
Answers = dict[str, ScoredAnswer]
"""Answers about one frame by key; boxes are boxes of the frame, the text is about the view it was read from."""


class CloserLooks:
    """Asks where things are in parts of frames.

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

    def finish(self, image: Image, found: Mapping[str, ScoredAnswer], words: Mapping[str, str]) -> Answers:
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

    def go_on(self, image: Image, found: Mapping[str, ScoredAnswer], words: Mapping[str, str]) -> Answers:
        """As :meth:`finish` for one frame of a stream: of all parts of a frame, it looks through the next in turn."""
        height, width = image.shape[:2]
        views = [view for tiling in tilings(width, height) for view in tiling]
        best = self._refine(image, found, words)
        best |= self._scan(image, [views[self._turn % len(views)]], best, words)
        self._turn += 1
        return best

    def _refine(self, image: Image, found: Mapping[str, ScoredAnswer], words: Mapping[str, str]) -> Answers:
        """The surer of what was found and what a view around it shows; what is not sure has to be shown by the view."""
        closer = self._look_at(image, found, words)
        return {
            key: max(answer, closer.get(key, answer), key=_score) if _is_sure(answer) else closer.get(key, answer)
            for key, answer in found.items()
        }

    def _scan(self, image: Image, views: Sequence[View], best: Answers, words: Mapping[str, str]) -> Answers:
        """Look through parts of a picture for what is not sure yet.

        What is found in a part counts if a view around it shows it, too, and with the score
        it has there: each part without the thing is one more chance to be wrong.
        """
        unsure = {key: words[key] for key, answer in best.items() if not _is_sure(answer)}
        if not unsure:
            return {}
        found: Answers = {}
        tokens = self._encode([view.crop(image) for view in views])
        for view, visual in zip(views, tokens, strict=True):
            for key, answer in self._ask(visual, unsure, view).items():
                if _is_sure(answer) and _score(answer) >= _score(found.get(key, answer)):
                    found[key] = answer
        confirmed = self._look_at(image, found, words)
        return {key: answer for key, answer in confirmed.items() if _is_sure(answer)}

    def _look_at(self, image: Image, found: Mapping[str, ScoredAnswer], words: Mapping[str, str]) -> Answers:
        """What views around found boxes show; nothing about boxes that are large in the picture already."""
        height, width = image.shape[:2]
        boxes = {key: box for key, answer in found.items() if (box := answer.parsed.boxes[0]) is not None}
        views = {key: View.around(box, width, height) for key, box in boxes.items()}
        views = {key: view for key, view in views.items() if view.is_worth_it}
        if not views:
            return {}
        answers: Answers = {}
        tokens = self._encode([view.crop(image) for view in views.values()])
        for (key, view), visual in zip(views.items(), tokens, strict=True):
            answers |= self._ask(visual, {key: words[key]}, view)
        return answers

    def _ask(self, visual: Tensor, words: Mapping[str, str], view: View) -> Answers:
        """Where things are in a view; nothing where the view may show but a part of them."""
        answers = ground_answers(self._runtime, visual, words, counters=self._counters)
        return {key: _in_frame(answer, view) for key, answer in answers.items()}


def _in_frame(answer: ScoredAnswer, view: View) -> ScoredAnswer:
    """An answer about a view as one about its frame."""
    box = answer.parsed.boxes[0]
    if box is None or view.cuts(box):
        return replace(answer, parsed=replace(answer.parsed, boxes=(None,)), scores=(0.0,))
    return replace(answer, parsed=replace(answer.parsed, boxes=(view.to_frame(box),)))


def _is_sure(answer: ScoredAnswer) -> bool:
    return _score(answer) >= SURE_SCORE


def _score(answer: ScoredAnswer) -> float:
    return answer.scores[0]
