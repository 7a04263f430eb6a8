"""What engine and runtime need of a language model, whoever runs its layers."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from elysium_core.model.kv_cache import KVCache
from elysium_core.model.llama import LlamaSize


class Decoder(Protocol):
    """A decoder: :class:`elysium_core.model.llama.Llama`, or something that runs one faster.

    Called with embeddings (1, T, D), positions (1, T), a mask (1, 1, T, S) and a cache, as
    :meth:`elysium_core.model.llama.Llama.forward` is; gives the hidden states (1, T, D) and a list.
    """

    size: LlamaSize

    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run new tokens."""
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
    """A decoder that keeps things for speed."""

    @property
    def description(self) -> str:
        """How passes are run, for reports."""
        ...

    def release(self) -> None:
        """Free what is kept for speed and not in use."""
        ...
