"""Finding the object of an anchor in a crop, by a model that follows in crops.

All questions about a frame are encoded in one batch and answered in one packed pass.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.engine.engine import EngineCounters, Request
from elysium_core.families.base import Anchor, CropSizes, Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.crop import Crop
from elysium_core.prompt.questions import SOT
from elysium_core.runtime import Runtime
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.types import Grounding, TrackerStats

_SPARE_TOKENS = 16
# The anchor crop and the live crop.
_FRAMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class CropQuestion:
    """Where is the object of an anchor in a picture?

    Attributes:
        anchor: The object.
        picture: RGB uint8, square.
        guess: Where it may be; a good guess saves passes and changes no answer.
    """

    anchor: Anchor
    picture: NDArray[np.uint8]
    guess: Box


class CropFinder:
    """Finds the objects of anchors in crops.

    Args:
        runtime: A model that follows in crops.
        sizes: Sizes of its crops.
        stats: Counts encoded crops and their time.
        counters: Counts passes and tokens.
    """

    def __init__(self, runtime: Runtime, sizes: CropSizes, stats: TrackerStats, counters: EngineCounters) -> None:
        self._runtime, self._sizes = runtime, sizes
        self._stats, self._counters = stats, counters

    def anchor(self, frame: Frame, box: Box) -> Anchor | None:
        """Make the anchor of a box; None if no pixel of it is in the frame."""
        crop = Crop.around(box, frame.width, frame.height)
        inside = crop.inside(box)
        if inside is None:
            return None
        started = time.perf_counter()
        (anchor,) = self._runtime.encode_anchors([crop.cut(frame.image, self._sizes.anchor_px)], [inside])
        self._stats.count_encoded(1, time.perf_counter() - started)
        return anchor

    def picture(self, frame: Frame, crop: Crop) -> NDArray[np.uint8]:
        """Cut a live crop out of a frame, at the size at which the model sees it."""
        return crop.cut(frame.image, self._sizes.live_px)

    def find(self, questions: Mapping[str, CropQuestion], max_new_tokens: int) -> dict[str, Grounding]:
        """Find the objects of anchors in pictures.

        Args:
            questions: By key.
            max_new_tokens: Longest answer [tokens].

        Returns:
            One answer for each key; boxes are boxes of the pictures.
        """
        if not questions:
            return {}
        started = time.perf_counter()
        asked = list(questions.values())
        live = self._runtime.encode_crops([each.picture for each in asked], [each.anchor for each in asked])
        self._stats.count_encoded(len(asked), time.perf_counter() - started)
        requests = [self._request(each, seen, max_new_tokens) for each, seen in zip(asked, live, strict=True)]
        answers = self._runtime.new_engine(self._counters).answer(requests)
        scores = self._runtime.family.settings.follow_scores
        return {
            name: self._runtime.read(answer, _FRAMES, seen.steps, scores).at(1)
            for name, answer, seen in zip(questions, answers, live, strict=True)
        }

    def _request(self, question: CropQuestion, live: Seen, max_new_tokens: int) -> Request:
        """The anchor, the live crop, the question, and the known box of the anchor."""
        family, anchor = self._runtime.family, question.anchor
        grammar = family.grammar
        asked = family.question(SOT, box=grammar.write(anchor.box, anchor.seen.steps))
        guess = grammar.answer([anchor.box, question.guess], live.steps)
        known = grammar.beginning([anchor.box], live.steps)
        draft = AnswerDraft(self._runtime.tokenizer, grammar, known, guess)
        ids = [*family.conversation(asked), *draft.given_ids]
        rows = torch.cat([family.appended(anchor.seen, 1), family.appended(live, 2), family.embed(ids)])
        return Request(rows, draft, min(draft.expected_tokens + _SPARE_TOKENS, max_new_tokens))
