"""Decoders: the protocols by which engine and runtime use a language model, and the plain implementation.

:class:`StaticDecoder` runs the layers eagerly and reuses the memory of released caches for new ones.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from elysium_core.network.kv_cache import KVCache, KVPool
from elysium_core.network.llama import Llama


class Decoder(Protocol):
    """The decoder of a language model: :class:`elysium_core.network.llama.Llama`, a wrapper of it, or another one.

    A call takes embeddings (1, T, D), positions (1, T), a mask (1, 1, T, S) and a cache, like
    :meth:`elysium_core.network.llama.Llama.forward`. It returns the hidden states (1, T, D) and a list. Embeddings may
    be wider than the hidden states: the engine only stores, joins and feeds them.
    """

    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers on T new tokens."""
        ...

    def embed(self, token_ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...)."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., vocab), float32, of hidden states (..., D)."""
        ...

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for ``capacity`` tokens or more."""
        ...


class StreamDecoder(Decoder, Protocol):
    """A decoder that keeps memory, and possibly recorded passes, between calls for speed."""

    @property
    def description(self) -> str:
        """How passes are run, for reports."""
        ...

    def release(self) -> None:
        """Free the memory that is kept for speed and not in use."""
        ...


class StaticDecoder:
    """A decoder (:class:`elysium_core.engine.decoder.Decoder`) whose caches share one pool of memory.

    Args:
        llm: The language model that is run.
        capacity: Smallest capacity of a cache [tokens].
        step: Capacities are multiples of this [tokens].
    """

    def __init__(self, llm: Llama, capacity: int = 1, step: int = 1) -> None:
        self._llm = llm
        self._capacity, self._step = capacity, step
        self._pool = KVPool(llm.kv_shape, step)

    @property
    def description(self) -> str:
        """How passes are run, for reports."""
        return "eager"

    def embed(self, token_ids: Tensor) -> Tensor:
        """See :meth:`elysium_core.network.llama.Llama.embed`."""
        return self._llm.embed(token_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`elysium_core.network.llama.Llama.logits`."""
        return self._llm.logits(hidden)

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for ``capacity`` tokens or more, in memory of released caches where possible."""
        if self._pool.shape != self._llm.kv_shape:  # the weights have been moved or cast
            self._pool = KVPool(self._llm.kv_shape, self._step)
        return self._pool.take(max(capacity, self._capacity))

    def release(self) -> None:
        """Free the memory that is not in use."""
        self._pool.trim()
        if self._pool.shape.device.type == "cuda":
            torch.cuda.empty_cache()

    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers on T new tokens; see :meth:`elysium_core.network.llama.Llama.forward`."""
        return self._llm(embeddings, positions, mask, cache)
