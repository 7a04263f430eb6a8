"""A loaded model, ready to be asked: the family of the model, plus what is the same for all families.

That is: cleaned words, pictures encoded ahead, engines, and answers read with their scores. Tasks and trackers share
one runtime; it keeps no state between calls except reusable memory and pictures that are encoded ahead.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.device import device_errors
from elysium_core.engine.draft_tree import Drafter
from elysium_core.engine.engine import Engine, EngineCounters, Generation, Request
from elysium_core.errors import BackendError, ExpressionError
from elysium_core.families.base import Anchor, Family, Seen, Steps
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.types import Answer

Take = Callable[[], list[Seen]]
"""Gives what was encoded to the stream that is current when it is called."""


class SideStream:
    """A second queue on a GPU; on a CPU, work is done when it is submitted.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]

    @property
    def runs_beside(self) -> bool:
        """Whether :meth:`submit` comes back before the work is done."""
        return self._stream is not None

    def submit(self, work: Callable[[], list[Seen]]) -> Take:
        """Start some work behind all that is queued on the current stream.

        Args:
            work: Queues the work on the stream that is current while it is called.
        """
        stream = self._stream
        if stream is None:
            result = work()
            return lambda: result
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            result = work()
            done = stream.record_event()

        def take() -> list[Seen]:
            # Its memory belongs to the side stream, which uses it again for later work alone, and later work begins
            # behind all that is queued here by then.
            torch.cuda.current_stream(self._device).wait_event(done)
            return result

        return take


_EXAMPLES = 8
_MOST_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """A picture that is encoded before it is asked about."""

    image: NDArray[np.uint8]
    take: Take


class Runtime:
    """One loaded model.

    Args:
        family: The model.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._known = _word_pattern(family.settings.vocabulary)
        self._side = SideStream(family.device)
        self._ahead: deque[_Ahead] = deque(maxlen=_MOST_AHEAD)

    @property
    def tokenizer(self) -> TextTokenizer:
        """Of the model."""
        return self.family.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.family.device

    def clean_words(self, expression: str) -> str:
        """Clean a user's expression and refuse one in which the model knows no word.

        Raises:
            ExpressionError: As :func:`clean_expression`; or ``EXPR_UNKNOWN`` for a model
                with a closed vocabulary when none of its names occurs.
        """
        words = clean_expression(expression)
        if self._known is not None and self._known.search(words) is None:
            names = self.family.settings.vocabulary
            raise ExpressionError(
                f"this model knows no object in {words!r}; it knows {len(names)} names, among them "
                f"{', '.join(names[:_EXAMPLES])} (`elysium info` lists them; for free language load a larger model)",
                code="EXPR_UNKNOWN",
            )
        return words

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        """Encode RGB uint8 images (H, W, 3) of any sizes.

        Raises:
            BackendError: Memory does not suffice (``MEMORY``), or the device failed.
        """
        if len(images) == 1 and (take := self._encoded_ahead(images[0])) is not None:
            return take()
        try:
            return self._start_encoding(images)()
        except BackendError as error:
            if error.code != "MEMORY":
                raise
        # What is kept for the language model's speed may be what is lacking. Not in the handler above: the error keeps
        # alive what the failed attempt has allocated.
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
        """Start to encode an image before it is asked about, beside the work of the language model.

        :meth:`encode_frames` finds the result if it is asked about this very array, which must
        not be changed meanwhile. The newest two are kept: the image that the language model is
        about to read, and the one after it.

        Returns:
            Whether it was started: only on a GPU, where it costs next to nothing to ask.
        """
        if not self._side.runs_beside:
            return False
        try:
            with torch.inference_mode():
                self._ahead.append(_Ahead(image, self._start_encoding([image])))
        except BackendError:  # raised again when the image is asked about
            return False
        return True

    def _encoded_ahead(self, image: NDArray[np.uint8]) -> Take | None:
        """The result for an image, which is then forgotten with all older ones; None if there is none."""
        if not any(ahead.image is image for ahead in self._ahead):
            return None
        while (ahead := self._ahead.popleft()).image is not image:
            pass
        return ahead.take

    def _start_encoding(self, images: Sequence[NDArray[np.uint8]]) -> Take:
        with device_errors("the vision encoder"):
            return self._side.submit(lambda: self.family.encode(images))

    def new_engine(self, counters: EngineCounters | None = None) -> Engine:
        """An engine with an empty prefix."""
        return Engine(self.family.decoder, self.tokenizer.eos_id, counters=counters)

    def request(
        self, question: str, given: Sequence[int] = (), drafter: Drafter | None = None, max_new_tokens: int = 256
    ) -> Request:
        """A question behind the frames.

        Args:
            question: Filled in and cleaned.
            given: Token ids of the part of the answer that is already known.
            drafter: See :class:`Engine`.
            max_new_tokens: Longest answer.
        """
        ids = [*self.family.conversation(question), *given]
        return Request(self.family.embed(ids), drafter, max_new_tokens)

    def ask(
        self,
        seen: Sequence[Seen],
        question: str,
        max_new_tokens: int = 256,
        history: Sequence[tuple[str, str]] = (),
    ) -> Generation:
        """Ask one question about frames, or without frames.

        Args:
            seen: The frames; may be empty.
            question: Cleaned.
            max_new_tokens: Longest answer.
            history: Questions and answers before this one, oldest first, cleaned.
        """
        ids = self.family.conversation(question, history, with_frames=bool(seen))
        request = Request(self.family.embed(ids), None, max_new_tokens)
        prefix: Tensor | None = self.family.opening(seen) if seen else None
        return self.new_engine().answer([request], prefix)[0]

    def read(self, generation: Generation, frame_count: int, steps: Steps) -> Answer:
        """Read the boxes of an answer about ``frame_count`` frames, and their scores.

        Args:
            generation: What was written.
            frame_count: Frames of the clip, >= 1.
            steps: Of those frames.
        """
        text = self.tokenizer.decode(generation.token_ids)
        parsed = self.family.grammar.read(text, frame_count, steps)
        digits = self.family.box_digits(generation.token_ids)
        groups = [_confidence([generation.logprobs[place] for place in places]) for places in digits]
        scores = tuple(groups[group] if group is not None and group < len(groups) else 0.0 for group in parsed.groups)
        return Answer(text, parsed.boxes, scores, dict(parsed.problems))


def _confidence(logprobs: Sequence[float]) -> float:
    """exp(mean log-probability) of the digits of a box, 0..1; 0 without digits."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0


def _word_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    if not names:
        return None
    return re.compile(r"\b(?:" + "|".join(re.escape(name) for name in names) + r")\b", re.IGNORECASE)
