"""A decoder that runs the text model of a vision-language model of transformers with the engine's KV cache.

Each layer is transformers' own code. What is done here is what a text model does around its layers: places of tokens,
DeepStack, the final norm. The mask, the cache and the order of tokens are the engine's, so trees and packed requests
work. Nothing waits for the device.

Shapes: T new tokens, S cached ones with them, D width, W width of a row (:mod:`elysium_core.families.wide_rows`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from elysium_core.families.wide_rows import WideRows
from elysium_core.network.kv_cache import KVCache, KVMemory, KVPool, KVShape


class PlaceCache(KVCache):
    """A KV cache that also knows how far the places of tokens have shifted.

    Args:
        memory: Its memory, used by no other cache.
        pool: Source of larger memory; None = it is allocated.

    Attributes:
        shifts: (capacity + 1,) int64, sum of all shifts before each place in the sequence.
    """

    def __init__(self, memory: KVMemory, pool: KVPool | None = None) -> None:
        super().__init__(memory, pool)
        self.shifts = torch.zeros(self.capacity + 1, dtype=torch.int64, device=memory.shape.device)

    def grown(self, capacity: int) -> KVCache:
        """See :meth:`elysium_core.network.kv_cache.KVCache.grown`."""
        cache = super().grown(capacity)
        if isinstance(cache, PlaceCache):
            cache.shifts[: self.length + 1] = self.shifts[: self.length + 1]
        return cache


class _LayerCache:
    """The cache as a layer of transformers uses it."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self._cache.update(layer, keys, values)


class TransformersDecoder:
    """Runs a text model (protocol: :class:`elysium_core.engine.decoder.StreamDecoder`).

    Args:
        text: The text model: ``embed_tokens``, ``layers``, ``norm`` and ``rotary_emb``.
        head: The language model head.
        rows: Layout of its rows.
        deep_layers: Decoder layers behind which DeepStack adds features.
    """

    def __init__(self, text: Any, head: nn.Linear, rows: WideRows, deep_layers: int) -> None:
        self._text, self._head, self._rows = text, head, rows
        self._deep_layers = deep_layers
        self._pool = KVPool(self._kv_shape(), make=PlaceCache)

    def _kv_shape(self) -> KVShape:
        config, weight = self._text.config, self._head.weight
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return KVShape(config.num_hidden_layers, config.num_key_value_heads, head_dim, weight.device, weight.dtype)

    @property
    def description(self) -> str:
        """See :class:`elysium_core.engine.decoder.StreamDecoder`."""
        return "eager, layers of transformers"

    def embed(self, token_ids: Tensor) -> Tensor:
        """Rows (..., W) of token ids (...)."""
        return self._rows.words(self._text.embed_tokens(token_ids))

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        logits: Tensor = self._head(hidden)
        return logits.float()

    def new_cache(self, capacity: int) -> KVCache:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        if self._pool.shape != (shape := self._kv_shape()):  # the weights have been moved or cast
            self._pool = KVPool(shape, make=PlaceCache)
        return self._pool.take(capacity)

    def release(self) -> None:
        """See :class:`elysium_core.engine.decoder.StreamDecoder`."""
        self._pool.trim()
        if self._pool.shape.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers on T new rows.

        Args:
            embeddings: (1, T, W).
            positions: (1, T), places of the tokens in their sequence.
            mask: (1, 1, T, S), bool: which tokens each new token attends to; None = all before it.
            cache: A cache of :meth:`new_cache`; None = a new one.

        Returns:
            The hidden states (1, T, D) after the final norm, and an empty list.
        """
        count = embeddings.shape[1]
        cache = self.new_cache(count) if cache is None else cache
        start, parts = cache.length, self._rows.split(embeddings[0])
        if mask is None:
            total = start + count
            mask = torch.ones(count, total, dtype=torch.bool, device=embeddings.device).tril(start)[None, None]
        places = positions + self._shifts_before(cache, parts.shifts) + parts.offsets
        hidden, layer_cache = parts.embeddings[None], _LayerCache(cache)
        rotations = self._text.rotary_emb(hidden, places[:, None])
        for number, layer in enumerate(self._text.layers):
            hidden = layer(
                hidden, attention_mask=mask, position_embeddings=rotations, past_key_values=layer_cache, use_cache=True
            )
            if number < self._deep_layers:
                hidden = hidden + parts.deep[number]  # zero for words
        cache.advance(count)
        return self._text.norm(hidden), []

    def _shifts_before(self, cache: KVCache, shifts: Tensor) -> Tensor:
        """Sum of all shifts (T,) before each new token; those of the new tokens are stored."""
        if not isinstance(cache, PlaceCache):
            raise TypeError(f"a cache of new_cache() is needed, not {type(cache).__name__}")
        start, count = cache.length, len(shifts)
        after = cache.shifts[start] + shifts.cumsum(0)
        cache.shifts[start + 1 : start + count + 1] = after
        return after - shifts
