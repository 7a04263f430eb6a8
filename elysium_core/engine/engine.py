"""The engine: embeddings and token ids in, token ids and log-probabilities out.

It handles no images, boxes, text or ROS messages. It keeps the keys and values of a shared
*prefix* (the frames) and answers any number of *requests* after it in common forward passes.

Decoding is greedy and speculative. The drafter of a request guesses the whole answer: one
guess, or a tree of several. Question and draft are run in one pass. The longest part of a
guess that agrees with the model's predictions is accepted, and the model's next token is
appended. Then the drafter guesses the rest again from the predictions of this pass. A draft
changes the number of passes, never a token of the answer. Without a drafter, every pass
writes one token.

If all requests begin with the same tokens, these are fed only once.

Between passes an answer can be interrupted for other work (:class:`elysium_core.engine.breaks.Breaks`), also by other
engines of the same model.

Shapes: P prefix tokens, R requests, T new tokens of one pass, S cached tokens, D width.
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
from elysium_core.engine.breaks import Breaks
from elysium_core.engine.decoder import Decoder
from elysium_core.engine.draft_tree import ROOT, Drafter, DraftTree
from elysium_core.errors import BackendError

_PREFIX = 0
# Owner of rejected draft tokens: no row attends to them.
_REJECTED = -1
_NO_DRAFT = DraftTree((), ())
# Longest part of a prefix that is fed in one pass while breaks are wanted [tokens].
_PART_TOKENS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One question about the shared prefix.

    Attributes:
        embeddings: (Q, D) of the question and of the given beginning of the answer, Q >= 1.
        drafter: Guesses the answer; None decodes token by token.
        max_new_tokens: Longest answer [tokens].
    """

    embeddings: Tensor
    drafter: Drafter | None = None
    max_new_tokens: int = 256


@dataclass(slots=True)
class Generation:
    """A generated answer.

    Attributes:
        token_ids: Token ids, without the end token.
        logprobs: Log-probability of each token.
        finished: Whether the model wrote the end token; False if the answer was cut at ``max_new_tokens``.
        passes: Forward passes of this answer.
        drafted: Drafted tokens that were fed, the end token included.
        accepted: Drafted tokens that were accepted, the end token included.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False
    passes: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(slots=True)
class EngineCounters:
    """Counters of forward passes and tokens; several engines may share one.

    Attributes:
        passes: Forward passes.
        tokens: Tokens fed.
    """

    passes: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Branch:
    """The state of a request while it is answered.

    Attributes:
        request: The request.
        owner: Number of the request, from 1.
        position: Position of the next token that is fed.
        question: (Q, D), the part of the question that has not been fed yet; empty after the first pass.
        newest: The model's newest token, not fed yet; empty before the first pass.
        draft: The draft that follows them.
        is_cut: Whether the draft was cut to fit ``max_new_tokens``.
        said: The model's prediction after each token of the draft; empty if the draft was cut.
        result: The answer so far.
        done: Whether the answer is complete.
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
    """Greedy decoding of requests after a prefix that is kept between calls.

    Args:
        llm: The decoder, in eval mode.
        eos_id: Id of the token that ends an answer.
        capacity: Initial capacity of the cache [tokens]; it grows when needed and never shrinks.
        counters: Counts passes and tokens; new ones by default.
        breaks: Taken between passes; none by default.
    """

    def __init__(
        self,
        llm: Decoder,
        eos_id: int,
        capacity: int = 512,
        counters: EngineCounters | None = None,
        breaks: Breaks | None = None,
    ) -> None:
        self._llm = llm
        self._breaks = breaks or Breaks()
        self._eos_id = eos_id
        self._cache = llm.new_cache(capacity)
        # For each cached token: _PREFIX, _REJECTED, or the number of the request that it belongs to.
        self._owner: NDArray[np.int64] = np.zeros(self._cache.capacity, np.int64)
        self.counters = counters or EngineCounters()

    @property
    def prefix_length(self) -> int:
        """Tokens of the kept prefix."""
        return self._cache.length

    @property
    def capacity(self) -> int:
        """Capacity of the cache [tokens]."""
        return self._cache.capacity

    def crop(self, length: int) -> None:
        """Keep only the first ``length`` tokens of the prefix."""
        self._cache.crop(length)

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], prefix: Tensor | None = None) -> list[Generation]:
        """Answer requests after the kept prefix.

        Args:
            requests: If empty, only the prefix is extended.
            prefix: (N, D) embeddings that extend the kept prefix, run in the same pass as the
                questions.

        Returns:
            One answer for each request, in order.

        Raises:
            BackendError: The model's output is not finite (``MODEL_NAN``), there is too little
                memory (``MEMORY``), or the device failed. The prefix is then the same as before
                the call.
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
        if opening is not None:
            opening = self._feed_in_parts(opening)
        if branches:
            self._pass(branches, opening)
        elif opening is not None:
            self._forward(opening, [_PREFIX] * len(opening), list(range(position - len(opening), position)))
        while active := [branch for branch in branches if not branch.done]:
            self._breaks()
            self._pass(active)
        return [branch.result for branch in branches]

    def _feed_in_parts(self, opening: Tensor) -> Tensor:
        """While breaks are wanted, feed a long prefix (N, D) in parts, all but the last one, which is returned."""
        while self._breaks.are_wanted and len(opening) > _PART_TOKENS:
            part, opening = opening[:_PART_TOKENS], opening[_PART_TOKENS:]
            start = self._cache.length
            self._forward(part, [_PREFIX] * len(part), list(range(start, start + len(part))))
            self._breaks()
        return opening

    def _pass(self, branches: Sequence[_Branch], prefix: Tensor | None = None) -> None:
        """Run one forward pass of all branches, each with its pending tokens and its draft, and accept tokens."""
        start = self._cache.length
        shared = 0 if prefix is None else len(prefix)
        owners, positions = [_PREFIX] * shared, [*range(start, start + shared)]
        wanted: list[int] = []
        trees: list[tuple[int, DraftTree]] = []
        for branch in branches:
            self._draft(branch)
            pending = branch.pending
            draft_start, drafted = branch.position + pending, len(owners) + pending
            owners += [branch.owner] * (pending + len(branch.draft))
            positions += [*range(branch.position, draft_start), *branch.draft.depths(draft_start)]
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
        branch.is_cut = branch.draft is not tree

    def _fed(self, branches: Sequence[_Branch], prefix: Tensor | None) -> Tensor:
        """Embeddings of one pass: the prefix, then question, newest token and draft of each branch."""
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
        """Run T new tokens and return their hidden states (T, D).

        Args:
            embeddings: (T, D).
            owners: Owner of each token.
            positions: Position of each token.
            trees: Draft trees among the tokens, each with the index of its first token.
        """
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
        """Compare the drafts with the model's predictions.

        Args:
            branches: The branches of the pass.
            hidden: For each branch in turn, the states of its last pending token and of its N drafted tokens.
            start: Place in the cache of the first token after the prefix.
        """
        logits = self._llm.logits(hidden)
        highest, best = logits.max(-1)
        logprob = (highest - logits.logsumexp(-1)).tolist()
        if not all(map(math.isfinite, logprob)):
            raise BackendError("the language model's output is not a number; use float32 or bfloat16", code="MODEL_NAN")
        chosen = best.tolist()
        row = 0
        for branch in branches:
            pending, count = branch.pending, len(branch.draft)
            end = row + count + 1
            kept = self._accept(branch, chosen[row:end], logprob[row:end])
            drafted = start + pending
            start = drafted + count
            # Rejected tokens stay in the cache, but are masked from now on.
            self._owner[drafted:start] = _REJECTED
            self._owner[[drafted + index for index in kept]] = branch.owner
            branch.position += pending + len(kept)
            branch.question, branch.newest = branch.question[:0], branch.result.token_ids[-1:]
            row = end

    def _accept(self, branch: _Branch, chosen: list[int], logprob: list[float]) -> list[int]:
        """Append the accepted part of the draft and the model's next token to the answer.

        Args:
            branch: A branch with a draft of N tokens.
            chosen: N + 1 predicted token ids: after the pending tokens, and after each token of the draft.
            logprob: Log-probability of each predicted token.

        Returns:
            Indices of the accepted tokens in the draft.
        """
        result, way = branch.result, branch.draft.follow(chosen)
        branch.said = () if branch.is_cut else chosen[1:]
        result.passes += 1
        result.drafted += len(chosen) - 1
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
    """Number of rows at the beginning that all questions share; at least one row is left to each question."""
    if len(questions) < 2:
        return 0
    longest = min(len(question) for question in questions) - 1
    first = questions[0][:longest]
    same = torch.stack([(question[:longest] == first).all(-1) for question in questions[1:]]).all(0)
    return int(same.cumprod(0).sum())
