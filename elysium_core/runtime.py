"""A loaded model, ready to be asked: frames to visual tokens, prompts to embeddings.

Tasks and trackers share one runtime; it keeps no state between calls, but for memory that is
used again and for an image that is encoded ahead.

Work on a GPU beside other work: vision for the next frame, while the language model reads this one.
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
from elysium_core.engine.decoder import StreamDecoder
from elysium_core.engine.draft_tree import Drafter
from elysium_core.engine.engine import Engine, EngineCounters, Generation, Request
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.errors import BackendError, ExpressionError
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.model_config import ElysiumConfig
from elysium_core.prompt.box_text import ParsedAnswer, parse_answer
from elysium_core.prompt.conversation import build_prompt, follow_up, frame_pieces, question_piece
from elysium_core.prompt.expression import clean_expression
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.vision.torch_vision import VisionBackend

Take = Callable[[], Tensor]
"""Gives the result of some work to the stream that is current when it is called."""


class SideStream:
    """A queue of a GPU of its own; on a CPU, work is done when it is submitted.

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

    def submit(self, work: Callable[[], Tensor]) -> Take:
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

        def take() -> Tensor:
            # Its memory belongs to the side stream, which uses it again for later work alone, and later work begins
            # behind all that is queued here by then.
            torch.cuda.current_stream(self._device).wait_event(done)
            return result

        return take


_EXAMPLES = 8
_MOST_AHEAD = 2


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """An answer with boxes.

    Attributes:
        text: As written.
        parsed: One box or None a frame.
        scores: One a frame: exp(mean log-probability of the box's digits), 0 without a box.
        generation: Tokens and counters.
    """

    text: str
    parsed: ParsedAnswer
    scores: tuple[float, ...]
    generation: Generation


@dataclass(frozen=True, slots=True, eq=False)
class _Ahead:
    """An image that is being encoded before it was asked about."""

    image: NDArray[np.uint8]
    take: Take


class Runtime:
    """Network, tokenizer and vision backend of one checkpoint on one device.

    Args:
        network: In eval mode, on its device.
        tokenizer: Of the checkpoint.
        vision: Turns frames into visual tokens.
        decoder: Runs the language model; by default what suits its device.
    """

    def __init__(
        self,
        network: ElysiumNetwork,
        tokenizer: TextTokenizer,
        vision: VisionBackend,
        decoder: StreamDecoder | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.vision = vision
        self.decoder: StreamDecoder = decoder or build_decoder(network.llm)
        self._known = _word_pattern(self.config.vocabulary)
        self._side = SideStream(self.device)
        self._ahead: deque[_Ahead] = deque(maxlen=_MOST_AHEAD)

    @property
    def config(self) -> ElysiumConfig:
        """Settings of the checkpoint."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the language model lives."""
        return self.network.llm.lm_head.weight.device

    def clean_words(self, expression: str) -> str:
        """Clean a user's expression and refuse one in which the model knows no word.

        Raises:
            ExpressionError: As :func:`clean_expression`; or ``EXPR_UNKNOWN`` for a model
                with a closed vocabulary when none of its names occurs.
        """
        words = clean_expression(expression)
        if self._known is not None and self._known.search(words) is None:
            names = self.config.vocabulary
            raise ExpressionError(
                f"this model knows no object in {words!r}; it knows {len(names)} names, among them "
                f"{', '.join(names[:_EXAMPLES])} (`elysium info` lists them; for free language load a larger model)",
                code="EXPR_UNKNOWN",
            )
        return words

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Visual tokens (K, D) of each RGB uint8 image.

        Raises:
            BackendError: Memory does not suffice (``MEMORY``), or the device failed.
        """
        if len(images) == 1 and (take := self._encoded_ahead(images[0])) is not None:
            return list(take())
        try:
            return list(self._start_encoding(images)())
        except BackendError as error:
            if error.code != "MEMORY":
                raise
        # What is kept for the language model's speed may be what is lacking. Not above: the error holds on to what the
        # failed attempt has allocated.
        self.decoder.release()
        return list(self._start_encoding(images)())

    def prefetch(self, image: NDArray[np.uint8]) -> bool:
        """Start to encode an image before it is asked about, beside what the language model is about to do.

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
        except BackendError:  # will be said when the image is asked about
            return False
        return True

    def _encoded_ahead(self, image: NDArray[np.uint8]) -> Take | None:
        """The result for an image, which is then forgotten with all that are older; None if there is none."""
        if not any(ahead.image is image for ahead in self._ahead):
            return None
        while (ahead := self._ahead.popleft()).image is not image:
            pass
        return ahead.take

    def _start_encoding(self, images: Sequence[NDArray[np.uint8]]) -> Take:
        with device_errors("the vision encoder"):
            return self._side.submit(lambda: self.vision.encode(images))

    @torch.inference_mode()
    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """Embeddings (T, D) of token ids."""
        return self.network.llm.embed(torch.tensor(list(token_ids), device=self.device))

    def embed_clip(self, visual: Sequence[Tensor]) -> Tensor:
        """The opening of a prompt with all frames of a clip; one frame alone has no label."""
        return self._join(frame_pieces(len(visual), self.config.system_text), visual)

    def embed_frame(self, visual: Tensor, number: int) -> Tensor:
        """Frame ``number`` (from 1) of a clip that has, or will have, several."""
        piece = frame_pieces(max(2, number), self.config.system_text)[number - 1]
        return self._join((piece,), (visual,))

    @torch.inference_mode()
    def _join(self, pieces: Sequence[str], visual: Sequence[Tensor]) -> Tensor:
        parts = []
        for piece, tokens in zip(pieces, visual, strict=True):
            parts += [self.embed(self.tokenizer.encode_piece(piece)), tokens]
        return torch.cat(parts)

    def new_engine(self, counters: EngineCounters | None = None) -> Engine:
        """An engine with an empty prefix."""
        return Engine(self.decoder, self.tokenizer.eos_id, counters=counters)

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
        ids = [*self.tokenizer.encode_piece(question_piece(question)), *given]
        return Request(self.embed(ids), drafter, max_new_tokens)

    def ask(
        self,
        visual: Sequence[Tensor],
        question: str,
        max_new_tokens: int = 256,
        history: Sequence[tuple[str, str]] = (),
    ) -> Generation:
        """Ask one question about frames, or without frames.

        Args:
            visual: Visual tokens of the frames; may be empty.
            question: Cleaned.
            max_new_tokens: Longest answer.
            history: Questions and answers before this one, oldest first, cleaned.
        """
        questions = [*(asked for asked, _ in history), question]
        if visual:
            ids = self.tokenizer.encode_piece(question_piece(questions[0]))
        else:
            ids = self.tokenizer.encode_prompt(build_prompt(questions[0], 0, self.config.system_text))[0]
        for (_, answer), following in zip(history, questions[1:], strict=True):
            ids += [*self.tokenizer.encode_answer(answer), self.tokenizer.eos_id]
            ids += self.tokenizer.encode_answer(follow_up(following))
        request = Request(self.embed(ids), None, max_new_tokens)
        return self.new_engine().answer([request], self.embed_clip(visual) if visual else None)[0]

    def scored(self, generation: Generation, frame_count: int) -> ScoredAnswer:
        """Read the boxes of an answer about ``frame_count`` frames, and their scores."""
        text = self.tokenizer.decode(generation.token_ids)
        parsed = parse_answer(text, frame_count)
        groups = self._digit_scores(generation)
        scores = tuple(groups[group] if group is not None and group < len(groups) else 0.0 for group in parsed.groups)
        return ScoredAnswer(text, parsed, scores, generation)

    def _digit_scores(self, generation: Generation) -> list[float]:
        """exp(mean log-probability of the digits) of each bracket in the answer, in order."""
        scores: list[float] = []
        digits: list[float] | None = None
        for token, logprob in zip(generation.token_ids, generation.logprobs, strict=True):
            text = self.tokenizer.token_text(token)
            if opened := text.count("["):
                digits = []
                scores += [0.0] * opened
            elif digits is not None and text.isdecimal():
                digits.append(logprob)
                scores[-1] = math.exp(sum(digits) / len(digits))
            elif "]" in text:
                digits = None
        return scores


def _word_pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    if not names:
        return None
    return re.compile(r"\b(?:" + "|".join(re.escape(name) for name in names) + r")\b", re.IGNORECASE)
