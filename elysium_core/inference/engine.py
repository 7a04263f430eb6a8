"""The engine: embeddings and token ids in, token ids and log-probabilities out.

Knows no images, boxes, text or ROS. It keeps the keys and values of a shared *prefix*
(the frames) and answers any number of *requests* behind it in common forward passes.

Each request brings a drafter that guesses its whole answer. Guess and question are run
in one pass; the longest part of the guess that the model itself would have written is
accepted, the model's own token is taken where they part, and the rest is guessed anew.
The result is exactly greedy decoding: a draft changes the number of passes, never a
token. Without a drafter this is plain one-token-a-pass decoding.

Requests that open with the same words share them: the common stem is fed once.

Shapes: P prefix tokens, R requests, T new tokens of one pass, S tokens in memory, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.errors import BackendError
from elysium_core.inference.decoder import Decoder
from elysium_core.inference.failures import device_errors

Drafter = Callable[[Sequence[int]], Sequence[int]]
"""Given the token ids written so far, guesses the ids that follow (end token included)."""

_PREFIX = 0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One question behind the shared prefix.

    Attributes:
        embeddings: (Q, D) of the question and of what is given of the answer, Q >= 1.
        drafter: Guesses the answer; None decodes token by token.
        max_new_tokens: Longest answer.
    """

    embeddings: Tensor
    drafter: Drafter | None = None
    max_new_tokens: int = 256


@dataclass(slots=True)
class Generation:
    """An answer.

    Attributes:
        token_ids: Tokens written, without the end token.
        logprobs: Log-probability of each of them.
        finished: Whether the model ended the answer itself (not cut at ``max_new_tokens``).
        passes: Forward passes this answer took part in.
        drafted: Drafted tokens that were fed, the end token included.
        accepted: Drafted tokens that were right, the end token included.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    passes: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(slots=True)
class EngineCounters:
    """What engines have cost; several may share one.

    Attributes:
        passes: Forward passes.
        tokens: Tokens fed.
    """

    passes: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Branch:
    """A request while it is being answered."""

    request: Request
    owner: int
    position: int
    pending: Tensor
    draft: list[int] = field(default_factory=list)
    result: Generation = field(default_factory=Generation)
    done: bool = False


class Engine:
    """A decoder with a prefix that is kept between calls.

    Args:
        llm: The decoder, in eval mode.
        eos_id: Token that ends an answer.
        capacity: Tokens of memory to start with; it grows when needed and never shrinks.
        counters: Where passes and tokens are counted.
    """

    def __init__(self, llm: Decoder, eos_id: int, capacity: int = 512, counters: EngineCounters | None = None) -> None:
        self._llm = llm
        self._eos_id = eos_id
        self._cache = llm.new_cache(capacity)
        # Who wrote each token in memory: the prefix, or the request with this number.
        self._owner: NDArray[np.int64] = np.zeros(self._cache.capacity, np.int64)
        self.counters = counters or EngineCounters()

    @property
    def prefix_length(self) -> int:
        """Tokens of the kept prefix."""
        return self._cache.length

    @property
    def capacity(self) -> int:
        """Tokens there is memory for."""
        return self._cache.capacity

    def crop(self, length: int) -> None:
        """Keep only the first ``length`` tokens of the prefix."""
        self._cache.crop(length)

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], prefix: Tensor | None = None) -> list[Generation]:
        """Answer requests behind the kept prefix.

        Args:
            requests: May be empty, then the prefix is only extended.
            prefix: (N, D) embeddings that extend the prefix for good, run in the same
                pass as the questions.

        Returns:
            One answer a request, in order.

        Raises:
            BackendError: The model's output is not finite (``MODEL_NAN``), memory does not
                suffice (``MEMORY``), or the device failed. The prefix is then what it was
                before the call.
        """
        kept = self._cache.length
        try:
            with device_errors("the language model"):
                answers = self._answer(requests, prefix)
            kept += 0 if prefix is None else len(prefix)
        finally:
            self._cache.crop(min(kept, self._cache.length))
        return answers

    def _answer(self, requests: Sequence[Request], prefix: Tensor | None) -> list[Generation]:
        stem = _common_stem([request.embeddings for request in requests])
        shared = [part for part in (prefix, requests[0].embeddings[:stem] if stem else None) if part is not None]
        opening = torch.cat(shared) if shared else None
        position = self._cache.length + (0 if opening is None else len(opening))
        branches = [
            _Branch(request, owner, position, request.embeddings[stem:])
            for owner, request in enumerate(requests, _PREFIX + 1)
        ]
        if branches:
            self._pass(branches, opening)
        elif opening is not None:
            self._forward(opening, [_PREFIX] * len(opening), list(range(position - len(opening), position)))
        while active := [branch for branch in branches if not branch.done]:
            self._pass(active)
        return [branch.result for branch in branches]

    def _pass(self, branches: Sequence[_Branch], prefix: Tensor | None = None) -> None:
        """Feed what each branch has pending, behind it a draft, and take over what the model confirms."""
        parts: list[Tensor] = []
        owners: list[int] = []
        positions: list[int] = []
        if prefix is not None:
            parts.append(prefix)
            owners += [_PREFIX] * len(prefix)
            positions += range(self._cache.length, self._cache.length + len(prefix))
        wanted: list[int] = []
        for branch in branches:
            branch.draft = self._draft(branch)
            fed = branch.pending
            if branch.draft:
                ids = torch.tensor(branch.draft, device=fed.device)
                fed = torch.cat([fed, self._llm.embed(ids)])
            first_wanted = len(owners) + len(branch.pending) - 1
            wanted += range(first_wanted, first_wanted + len(branch.draft) + 1)
            parts.append(fed)
            owners += [branch.owner] * len(fed)
            positions += range(branch.position, branch.position + len(fed))
        start = self._cache.length
        hidden = self._forward(torch.cat(parts), owners, positions)
        self._confirm(branches, hidden[wanted], start + (0 if prefix is None else len(prefix)))

    def _draft(self, branch: _Branch) -> list[int]:
        if branch.request.drafter is None:
            return []
        room = branch.request.max_new_tokens - len(branch.result.token_ids) - 1
        return list(branch.request.drafter(branch.result.token_ids))[: max(0, room)]

    def _forward(self, embeddings: Tensor, owners: list[int], positions: list[int]) -> Tensor:
        """Run T new tokens; returns hidden states (T, D)."""
        start, count = self._cache.length, len(owners)
        self._reserve(start + count)
        self._owner[start : start + count] = owners
        columns, rows = self._owner[: start + count], np.asarray(owners)
        allowed = (columns[None] == _PREFIX) | (columns[None] == rows[:, None])
        allowed &= np.arange(start + count)[None] <= (start + np.arange(count))[:, None]
        device = embeddings.device
        mask = torch.from_numpy(allowed).to(device)[None, None]
        place = torch.tensor([positions], device=device)
        hidden, _ = self._llm(embeddings[None], place, mask, self._cache)
        self.counters.passes += 1
        self.counters.tokens += count
        return hidden[0]

    def _confirm(self, branches: Sequence[_Branch], hidden: Tensor, start: int) -> None:
        """Compare drafts with what the model writes. ``hidden``: rows of every branch in turn."""
        logits = self._llm.logits(hidden)
        best = logits.argmax(-1)
        logprob = torch.log_softmax(logits, -1).gather(-1, best[:, None])[:, 0].tolist()
        if not all(math.isfinite(value) for value in logprob):
            raise BackendError("the language model's output is not a number; use float32 or bfloat16", code="MODEL_NAN")
        chosen = best.tolist()
        row = 0
        for branch in branches:
            count = len(branch.draft) + 1
            fed = len(branch.pending) + len(branch.draft)
            accepted = self._accept(branch, chosen[row : row + count], logprob[row : row + count])
            # Rejected drafts stay in memory, but nobody may look at them any more.
            kept = len(branch.pending) + accepted
            self._owner[start + kept : start + fed] = -1
            branch.position += kept
            start += fed
            row += count
            if not branch.done:
                last = torch.tensor(branch.result.token_ids[-1:], device=hidden.device)
                branch.pending = self._llm.embed(last)

    def _accept(self, branch: _Branch, chosen: list[int], logprob: list[float]) -> int:
        """Take over the agreeing part of the draft and the model's next token; returns drafts accepted."""
        result = branch.result
        result.passes += 1
        result.drafted += len(branch.draft)
        for i, token in enumerate(chosen):
            agrees = i < len(branch.draft) and branch.draft[i] == token
            result.accepted += agrees
            if token == self._eos_id:
                result.finished = branch.done = True
                return i
            result.token_ids.append(token)
            result.logprobs.append(logprob[i])
            if len(result.token_ids) >= branch.request.max_new_tokens:
                branch.done = True
                return i
            if not agrees:
                return i
        raise AssertionError("the token behind the draft never agrees with it")

    def _reserve(self, tokens: int) -> None:
        if tokens <= self._cache.capacity:
            return
        capacity = max(tokens, 2 * self._cache.capacity)
        self._cache = self._cache.grown(capacity)
        new = self._cache.capacity - len(self._owner)
        self._owner = np.concatenate([self._owner, np.zeros(new, np.int64)])


def _common_stem(questions: Sequence[Tensor]) -> int:
    """Rows that all of several questions open with; at least one is left to each."""
    if len(questions) < 2:
        return 0
    longest = min(len(question) for question in questions) - 1
    first = questions[0][:longest]
    same = torch.stack([(question[:longest] == first).all(-1) for question in questions[1:]]).all(0)
    return int(same.cumprod(0).sum())
