"""A runtime that records questions, answers and the memory of its engines."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.engine.draft_tree import ROOT, DraftTree
from elysium_core.engine.engine import Engine, EngineCounters, Generation, Request
from elysium_core.families.elysium import ElysiumFamily, as_elysium
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.vision.torch_crops import NoCrops
from elysium_core.vision.torch_vision import VisionBackend

_BOX = re.compile(r"\[[^\[\]]*\]")


class Script(Protocol):
    """Gives an engine its answers."""

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return the token ids of the answer to each request, without the end token."""
        ...


class TrueAnswers:
    """The answers of a model that is always right, for random weights.

    Args:
        boxes: ``boxes[target][frame]``; requests must come in the order of the targets.
        tokenizer: Tokenizer of the model.
        spans: The frames that each call asks about, in order.
    """

    def __init__(
        self, boxes: Sequence[Sequence[Box]], tokenizer: TextTokenizer, spans: Iterable[Sequence[int]]
    ) -> None:
        self._boxes = boxes
        self._tokenizer = tokenizer
        self._spans = iter(spans)

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """See :class:`Script`."""
        frames = next(self._spans)
        return [self._answer(request, track, frames) for request, track in zip(requests, self._boxes, strict=True)]

    def _answer(self, request: Request, track: Sequence[Box], frames: Sequence[int]) -> list[int]:
        draft = draft_of(request)
        boxes = _BOX.findall(draft.guess)
        boxes[len(boxes) - len(frames) :] = [format_box(track[frame]) for frame in frames]
        following = iter(boxes)
        answer = self._tokenizer.encode_answer(_BOX.sub(lambda _: next(following), draft.guess))
        return answer[len(draft.given_ids) :]


def draft_of(request: Request) -> AnswerDraft:
    """Return the draft of a tracker's request."""
    if not isinstance(request.drafter, AnswerDraft):
        raise TypeError(f"a request of a tracker is needed, not one drafted by {type(request.drafter).__name__}")
    return request.drafter


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One question and its answer.

    Attributes:
        prompt: (T, D) embeddings of the prompt, which may end with the first part of the answer.
        given_ids: Token ids of that part.
        max_new_tokens: Longest answer.
        answer: The answer of the engine.
    """

    prompt: Tensor
    given_ids: Sequence[int]
    max_new_tokens: int
    answer: Generation

    @property
    def bare_prompt(self) -> Tensor:
        """The prompt without any part of the answer."""
        return self.prompt[: len(self.prompt) - len(self.given_ids)]

    @property
    def whole_answer(self) -> list[int]:
        """The answer with the part that was in the prompt."""
        return [*self.given_ids, *self.answer.token_ids]


class RecordingEngine(Engine):
    """An engine that records its questions and answers, and takes its answers from a script if there is one."""

    def __init__(self, runtime: RecordingRuntime, counters: EngineCounters | None) -> None:
        super().__init__(runtime.family.decoder, runtime.tokenizer.eos_id, counters=counters)
        self._runtime = runtime
        self._answers: list[list[int]] = []
        self._prefix: list[Tensor] = []

    def answer(self, requests: Sequence[Request], prefix: Tensor | None = None) -> list[Generation]:
        """See :class:`Engine`."""
        runtime = self._runtime
        self._answers = runtime.script(requests) if runtime.script is not None else []
        answers = super().answer(requests, prefix)
        runtime.note(answers)
        if runtime.keeps_prompts:
            self._prefix += [] if prefix is None else [prefix]
            for request, answer in zip(requests, answers, strict=True):
                prompt = torch.cat([*self._prefix, request.embeddings])
                runtime.asked.append(Asked(prompt, draft_of(request).given_ids, request.max_new_tokens, answer))
        return answers

    def crop(self, length: int) -> None:
        """See :class:`Engine`."""
        super().crop(length)
        if self._prefix:
            self._prefix = [torch.cat(self._prefix)[:length]]

    def _accept(self, branch: Any, chosen: list[int], logprob: list[float]) -> list[int]:
        if self._answers:
            rest = self._answers[branch.owner - 1][len(branch.result.token_ids) :]
            chosen = scripted_choice(branch.draft, [*rest, self._eos_id])
        return super()._accept(branch, chosen, logprob)


def scripted_choice(draft: DraftTree, answer: Sequence[int]) -> list[int]:
    """Return the tokens that a model which will write ``answer`` chooses after the root and after each drafted token.

    After a wrong token it chooses the draft's continuation, so that a wrong branch gives no hint.
    """
    first_child: dict[int, int] = {}
    for token, parent in zip(draft.token_ids, draft.parents, strict=True):
        first_child.setdefault(parent, token)
    right = {ROOT: 0}
    chosen = [answer[0]]
    for index, (token, parent) in enumerate(zip(draft.token_ids, draft.parents, strict=True)):
        place = right.get(parent)
        if place is not None and place + 1 < len(answer) and answer[place] == token:
            right[index] = place + 1
            chosen.append(answer[place + 1])
        else:
            chosen.append(first_child.get(index, answer[-1]))
    return chosen


class IndexedVision(NoCrops):
    """A vision backend with precomputed visual tokens; an image holds only the number of its frame.

    Args:
        visual: Visual tokens (K, D) of each frame.
    """

    name = "precomputed"

    def __init__(self, visual: Sequence[Tensor]) -> None:
        self._visual = visual

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`elysium_core.vision.torch_vision.VisionBackend`."""
        return torch.stack([self._visual[int.from_bytes(image.tobytes(), "little")] for image in images])


def indexed_frame(place: int, step: int, rate_hz: float) -> Frame:
    """Return the frame at a step of a run, in the form that :class:`IndexedVision` reads."""
    image = np.frombuffer(place.to_bytes(3, "little"), np.uint8).reshape(1, 1, 3)
    return Frame(image, stamp_ns=stamp_ns(step, rate_hz), index=step)


def stamp_ns(step: int, rate_hz: float) -> int:
    """Return the time of a step [ns], starting at 1: 0 means unknown."""
    return 1 + round(step / rate_hz * 1e9)


class RecordingRuntime(Runtime):
    """A runtime whose engines are recorded.

    Args:
        base: The model.
        vision: What is used for its vision encoder.
        script: Source of the answers; None = the model.
        keeps_answers: Keep the answers in ``generations``.
        keeps_prompts: Keep prompts and answers in ``asked``.

    Attributes:
        generations: Answers, in the order of the requests.
        asked: Prompts and answers.
        kv_tokens: Largest capacity of all engines together [tokens].
        kv_used: Most tokens in the prefixes of all engines together.
    """

    def __init__(
        self,
        base: Runtime,
        vision: VisionBackend,
        script: Script | None = None,
        *,
        keeps_answers: bool = False,
        keeps_prompts: bool = False,
    ) -> None:
        family = as_elysium(base.family)
        super().__init__(ElysiumFamily(family.network, family.tokenizer, vision, family.decoder))
        self.script = script
        self.keeps_prompts = keeps_prompts
        self._keeps_answers = keeps_answers
        self.generations: list[Generation] = []
        self.asked: list[Asked] = []
        self.kv_tokens = self.kv_used = 0
        self._engines: weakref.WeakSet[Engine] = weakref.WeakSet()

    def new_engine(self, counters: EngineCounters | None = None) -> Engine:
        """Return a recorded engine with an empty prefix."""
        engine = RecordingEngine(self, counters)
        self._engines.add(engine)
        return engine

    def note(self, answers: Sequence[Generation]) -> None:
        """Record answers of an engine, and the memory of all engines."""
        if self._keeps_answers:
            self.generations += answers
        self.kv_tokens = max(self.kv_tokens, sum(engine.capacity for engine in self._engines))
        self.kv_used = max(self.kv_used, sum(engine.prefix_length for engine in self._engines))
