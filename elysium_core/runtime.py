"""The runtime of a loaded model: its family, and the functions that are the same for all families.

These clean expressions, encode images (also in advance), make engines, and read answers with their scores. Tasks and
trackers share one runtime. It keeps no state between calls except reusable memory and images encoded in advance.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.calibration import UNCALIBRATED, ScoreCalibration
from elysium_core.device import device_errors
from elysium_core.engine.breaks import Breaks
from elysium_core.engine.draft_tree import Drafter
from elysium_core.engine.engine import Engine, EngineCounters, Generation, Request
from elysium_core.errors import BackendError, ExpressionError
from elysium_core.families.base import Anchor, Family, Seen, Steps
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.prompt.vocabulary import KnownWords, Vocabulary
from elysium_core.types import Answer
from elysium_core.vision.side_stream import SideStream

_LOG = logging.getLogger(__name__)

# Images encoded in advance that are kept: the one that is used next, and the one after it.
_MOST_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """An image that is encoded in advance."""

    image: NDArray[np.uint8]
    take: Callable[[], list[Seen]]


class Runtime:
    """One loaded model.

    Args:
        family: The model.

    Attributes:
        breaks: Taken between the parts of what is encoded and answered.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.breaks = Breaks()
        settings = family.settings
        self._vocabulary = Vocabulary(settings.vocabulary, settings.words) if settings.vocabulary else None
        self._side = SideStream(family.device)
        self._ahead: deque[_Ahead] = deque(maxlen=_MOST_AHEAD)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's tokenizer."""
        return self.family.tokenizer

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        return self.family.device

    def clean_words(self, expression: str) -> str:
        """Clean a user's expression and check it.

        Raises:
            ExpressionError: See :func:`elysium_core.prompt.expression.clean_expression`. For a model
                with a closed vocabulary: the expression contains none of its names
                (``EXPR_UNKNOWN``).
        """
        words = clean_expression(expression)
        if self._vocabulary is None:
            return words
        known = self._vocabulary.translate(words)
        if not known.text:
            names = self._vocabulary.names
            raise ExpressionError(
                f"{words!r} contains no object name of this model, which knows {len(names)} names; nearest: "
                f"{', '.join(self._vocabulary.nearest(words))} (`elysium info` lists all; for free language load a "
                "larger model)",
                code="EXPR_UNKNOWN",
            )
        if known.ignored:
            _LOG.warning("%r: looking for %r; this model cannot use %s", words, known.text, _said(known))
        return known.text

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Encode RGB uint8 images (H, W, 3) of any sizes.

        Raises:
            BackendError: There is too little memory (``MEMORY``), or the device failed.
        """
        if len(images) == 1 and (take := self._encoded_ahead(images[0])) is not None:
            return take()
        if self.breaks.are_wanted:
            return [self._encode_then_break(image) for image in images]
        return self._encode(images)

    def _encode_then_break(self, image: NDArray[np.uint8]) -> Seen:
        seen = self._encode([image])[0]
        self.breaks()
        return seen

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        try:
            return self._start_encoding(images)()
        except BackendError as error:
            if error.code != "MEMORY":
                raise
        # Free the memory that the decoder keeps for speed, and try again. Not in the handler above: there the error
        # still refers to the memory of the failed attempt.
        self.family.decoder.release()
        return self._start_encoding(images)()

    @torch.inference_mode()
    def encode_anchors(self, crops: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> list[Anchor]:
        """Encode anchor crops and the objects in them; see :class:`elysium_core.families.base.Family`.

        Raises:
            BackendError: Memory does not suffice (``MEMORY``), or the device failed.
        """
        with device_errors("the vision encoder"):
            return self.family.encode_anchors(crops, boxes)

    @torch.inference_mode()
    def encode_crops(self, crops: Sequence[NDArray[np.uint8]], anchors: Sequence[Anchor]) -> list[Seen]:
        """Encode live crops, each for the object of one anchor.

        Raises:
            BackendError: Memory does not suffice (``MEMORY``), or the device failed.
        """
        with device_errors("the vision encoder"):
            return self.family.encode_crops(crops, anchors)

    def prefetch(self, image: NDArray[np.uint8]) -> bool:
        """Start to encode an image in advance, in parallel with the language model.

        :meth:`encode_frames` returns the result when it gets the same array object, which must not
        be changed until then. Only the newest two results are kept.

        Returns:
            Whether the encoding was started; always false on a CPU.
        """
        if not self._side.runs_beside:
            return False
        try:
            with torch.inference_mode():
                self._ahead.append(_Ahead(image, self._start_encoding([image])))
        except BackendError:  # encode_frames() will raise it again
            return False
        return True

    def _encoded_ahead(self, image: NDArray[np.uint8]) -> Callable[[], list[Seen]] | None:
        """Take the result for an image, and drop it and all older ones; None if there is no result."""
        if not any(ahead.image is image for ahead in self._ahead):
            return None
        while (ahead := self._ahead.popleft()).image is not image:
            pass
        return ahead.take

    def _start_encoding(self, images: Sequence[NDArray[np.uint8]]) -> Callable[[], list[Seen]]:
        with device_errors("the vision encoder"):
            return self._side.submit(lambda: self.family.encode(images))

    def new_engine(self, counters: EngineCounters | None = None) -> Engine:
        """Make an engine with an empty prefix."""
        return Engine(self.family.decoder, self.tokenizer.eos_id, counters=counters, breaks=self.breaks)

    def request(
        self, question: str, given: Sequence[int] = (), drafter: Drafter | None = None, max_new_tokens: int = 256
    ) -> Request:
        """Make a request: a question that follows the frames.

        Args:
            question: The question, with cleaned words in its slots.
            given: Token ids of the given beginning of the answer.
            drafter: Drafts the answer (:class:`elysium_core.engine.draft_tree.Drafter`).
            max_new_tokens: Longest answer [tokens].
        """
        ids = [*self.family.conversation(question), *given]
        return Request(self.family.embed(ids), drafter, max_new_tokens)

    def ask(
        self,
        seen: Sequence[Seen],
        question: str,
        max_new_tokens: int = 256,
        history: Sequence[tuple[str, str]] = (),
        counters: EngineCounters | None = None,
    ) -> Generation:
        """Ask one question about frames, or without frames.

        Args:
            seen: The encoded frames; may be empty.
            question: The cleaned question.
            max_new_tokens: Longest answer [tokens].
            history: Earlier questions and answers, cleaned, oldest first.
            counters: Counts passes and tokens.
        """
        ids = self.family.conversation(question, history, with_frames=bool(seen))
        request = Request(self.family.embed(ids), None, max_new_tokens)
        prefix: Tensor | None = self.family.opening(seen) if seen else None
        return self.new_engine(counters).answer([request], prefix)[0]

    def read(
        self,
        generation: Generation,
        frame_count: int,
        steps: Steps,
        calibration: ScoreCalibration = UNCALIBRATED,
        near: Box | None = None,
    ) -> Answer:
        """Read the boxes of an answer about ``frame_count`` frames, and their scores.

        If the answer has several boxes for the last frame, one for each object that the words fit, the one nearest to
        ``near`` counts; without ``near`` the one with the highest score, of equal ones the first.

        Args:
            generation: The generated answer.
            frame_count: Frames of the clip, >= 1.
            steps: Steps of box text in those frames.
            calibration: Of the scores.
            near: Where the object is expected in the last frame, such as its last box while it is followed.
        """
        text = self.tokenizer.decode(generation.token_ids)
        parsed = self.family.grammar.read(text, frame_count, steps)
        digits = self.family.box_digits(generation.token_ids)
        groups = [calibration(_confidence([generation.logprobs[place] for place in places])) for places in digits]

        def score(group: int | None) -> float:
            return groups[group] if group is not None and group < len(groups) else 0.0

        boxes, scores = parsed.boxes, tuple(map(score, parsed.groups))
        if len(parsed.candidates) > 1:
            box, group = max(
                parsed.candidates, key=lambda found: score(found[1]) if near is None else _nearness(found[0], near)
            )
            boxes, scores = (*boxes[:-1], box), (*scores[:-1], score(group))
        return Answer(text, boxes, scores, dict(parsed.problems))


def _nearness(box: Box, other: Box) -> tuple[float, float]:
    """Overlap of two boxes, and for those that do not overlap the distance of their centres; larger is nearer."""
    return box.iou(other), -math.dist(box.center, other.center)


def _confidence(logprobs: Sequence[float]) -> float:
    """exp(mean log-probability) of the digits of a box, 0..1; 0 without digits."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0


def _said(known: KnownWords) -> str:
    return ", ".join(repr(word) for word in known.ignored)
