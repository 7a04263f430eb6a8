"""The engine: embeddings and token ids in, token ids and log-probabilities out.

Knows no images, boxes, text or ROS. It keeps the keys and values of a shared *prefix*
(the frames) and answers any number of *requests* behind it in common forward passes.

Each request brings a drafter that guesses its whole answer, or several that share their
openings as a tree. Guesses and question are run in one pass; the longest part of a guess
that the model itself would have written is accepted, the model's own token is taken where
they part, and the rest is guessed anew, now that it is known what the model says behind
the guessed tokens. The result is exactly greedy decoding: a draft changes the number of
passes, never a token. Without a drafter this is plain one-token-a-pass decoding.

Requests that open with the same words share them: the common stem is fed once.

Shapes: P prefix tokens, R requests, T new tokens of one pass, S tokens in memory, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.device import device_errors
from elysium_core.engine.decoder import Decoder
from elysium_core.engine.draft_tree import ROOT, Drafter, DraftTree
from elysium_core.errors import BackendError

_PREFIX = 0
# Owner of what was drafted and is not a part of any answer.
_NOBODY = -1
_NO_DRAFT = DraftTree((), ())


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
    """A request while it is being answered.

    Attributes:
        request: What is asked.
        owner: Its number, from 1.
        position: Place of the first token it feeds next.
        question: (Q, D), what of the question is still to be fed; empty after the first pass.
        newest: The model's last word, still to be fed; none before the first pass.
        draft: What is guessed behind them.
        is_cut: Whether the draft is only a part of what was guessed.
        said: What the model says behind each token of the draft; empty if the draft was cut.
    """

    request: Request
    owner: int
    position: int
    question: Tensor
    newest: list[int] = field(default_factory=list)
    draft: DraftTree = _NO_DRAFT
    is_cut: bool = False
    said: Sequence[int] = ()
    result: Generation = field(default_factory=Generation)
    done: bool = False

    @property
    def pending(self) -> int:
        """Tokens that have to be fed before the draft."""
        return len(self.question) + len(self.newest)


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
        """Feed what each branch has pending, behind it its draft, and take over what the model confirms."""
        start = self._cache.length
        shared = 0 if prefix is None else len(prefix)
        owners, positions = [_PREFIX] * shared, [*range(start, start + shared)]
        wanted: list[int] = []
        trees: list[tuple[int, DraftTree]] = []
        for branch in branches:
            self._draft(branch)
            behind = branch.position + branch.pending
            drafted = len(owners) + branch.pending
            owners += [branch.owner] * (branch.pending + len(branch.draft))
            positions += [*range(branch.position, behind), *branch.draft.depths(behind)]
            wanted += range(drafted - 1, len(owners))
            if not branch.draft.is_chain:
                trees.append((drafted, branch.draft))
        hidden = self._forward(self._fed(branches, prefix), owners, positions, trees)
        self._confirm(branches, hidden[wanted], start + shared)

    def _draft(self, branch: _Branch) -> None:
        drafter, written = branch.request.drafter, branch.result.token_ids
        if drafter is None:
            return
        guess = drafter(written, branch.said)
        tree = guess if isinstance(guess, DraftTree) else DraftTree.chain(guess)
        branch.draft = tree.within(max(0, branch.request.max_new_tokens - len(written) - 1))
        branch.is_cut = len(branch.draft) < len(tree)

    def _fed(self, branches: Sequence[_Branch], prefix: Tensor | None) -> Tensor:
        """Embeddings of one pass: the prefix, and for each branch its question, its newest word and its draft."""
        ids = [token for branch in branches for token in (*branch.newest, *branch.draft.token_ids)]
        words = self._llm.embed(torch.tensor(ids, dtype=torch.long, device=branches[0].question.device))
        if prefix is None and not any(len(branch.question) for branch in branches):
            return words
        parts, done = [] if prefix is None else [prefix], 0
        for branch in branches:
            count = len(branch.newest) + len(branch.draft)
            parts += [branch.question, words[done : done + count]]
            done += count
        return torch.cat(parts)

    def _forward(
        self,
        embeddings: Tensor,
        owners: list[int],
        positions: list[int],
        trees: Sequence[tuple[int, DraftTree]] = (),
    ) -> Tensor:
        """Run T new tokens, among them trees that begin at some of them; returns hidden states (T, D)."""
        start, count = self._cache.length, len(owners)
        self._reserve(start + count)
        self._owner[start : start + count] = owners
        columns, rows = self._owner[: start + count], np.asarray(owners)
        allowed = (columns[None] == _PREFIX) | (columns[None] == rows[:, None])
        allowed &= np.arange(start + count)[None] <= (start + np.arange(count))[:, None]
        for first, tree in trees:
            block = slice(first, first + len(tree))
            allowed[block, start + first : start + first + len(tree)] = tree.sights()
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
        highest, best = logits.max(-1)
        logprob = (highest - logits.logsumexp(-1)).tolist()
        if not all(map(math.isfinite, logprob)):
            raise BackendError("the language model's output is not a number; use float32 or bfloat16", code="MODEL_NAN")
        chosen = best.tolist()
        row = 0
        for branch in branches:
            count = len(branch.draft) + 1
            kept = self._accept(branch, chosen[row : row + count], logprob[row : row + count])
            drafted = start + branch.pending
            start = drafted + len(branch.draft)
            # Rejected drafts stay in memory, but nobody may look at them any more.
            self._owner[drafted:start] = _NOBODY
            self._owner[[drafted + index for index in kept]] = branch.owner
            branch.position += branch.pending + len(kept)
            branch.question, branch.newest = branch.question[:0], branch.result.token_ids[-1:]
            row += count

    def _accept(self, branch: _Branch, chosen: list[int], logprob: list[float]) -> list[int]:
        """Take over the part of the draft that agrees, and the model's next token.

        Args:
            branch: With its draft of N tokens.
            chosen: N + 1 tokens that the model writes: behind what is pending, and behind each token of the draft.
            logprob: Of each of them.

        Returns:
            Indices of the drafted tokens that have become part of the answer.
        """
        result, way = branch.result, branch.draft.follow(chosen)
        branch.said = () if branch.is_cut else chosen[1:]
        result.passes += 1
        result.drafted += len(branch.draft)
        for step, at in enumerate((ROOT, *way)):
            token = chosen[at + 1]
            result.accepted += step < len(way)
            if token == self._eos_id:
                result.finished = branch.done = True
                return way[:step]
            result.token_ids.append(token)
            result.logprobs.append(logprob[at + 1])
            if len(result.token_ids) >= branch.request.max_new_tokens:
                branch.done = True
                return way[:step]
        return way

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
