"""A language model for streams: memory that is handed on from cache to cache."""

from __future__ import annotations

import torch
from torch import Tensor

from elysium_core.inference.cuda_graph import CudaRecorder
from elysium_core.model.kv_cache import KVCache, KVPool
from elysium_core.model.llama import Llama, LlamaSize


class StaticDecoder:
    """A decoder (:class:`elysium_core.inference.decoder.Decoder`) whose caches share one pool of memory.

    Args:
        llm: Runs the layers.
        capacity: Tokens every cache has room for at least.
        step: Capacities are multiples of it [tokens].
    """

    def __init__(self, llm: Llama, capacity: int = 1, step: int = 1) -> None:
        self.size: LlamaSize = llm.size
        self._llm = llm
        self._capacity, self._step = capacity, step
        self._pool = KVPool(llm.kv_shape, step)

    @property
    def description(self) -> str:
        """How passes are run, for reports."""
        return "eager"

    def embed(self, token_ids: Tensor) -> Tensor:
        """See :meth:`elysium_core.model.llama.Llama.embed`."""
        return self._llm.embed(token_ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`elysium_core.model.llama.Llama.logits`."""
        return self._llm.logits(hidden)

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for ``capacity`` tokens or more, in memory that other caches have left."""
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
        """Run new tokens; see :meth:`elysium_core.model.llama.Llama.forward`."""
        return self._llm(embeddings, positions, mask, cache)


def build_decoder(llm: Llama, *, cuda_graphs: bool = True) -> StaticDecoder:
    """The decoder that suits a language model's device.

    Args:
        llm: On its device.
        cuda_graphs: Replay recorded passes on a GPU; elsewhere it makes no difference.
    """
    device = llm.model.embed_tokens.weight.device
    if device.type == "cuda" and cuda_graphs:
        from elysium_core.inference.recorded_decoder import RecordedDecoder

        return RecordedDecoder(llm, CudaRecorder(device))
    return StaticDecoder(llm)
