"""Forward passes of a few fixed shapes: what a recorded program needs, and what tests compare with free shapes.

A pass of T new tokens behind S - T cached ones is padded to a *bucket*: a few more rows of
zeros, which nobody attends to, and a few more columns, which nobody may look at. A decoder
without biases keeps rows of zeros at zero, so that what they write is zero, too.

Shapes: T new tokens and S columns of a pass, Tb and Sb those of its bucket, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from elysium_core.model.kv_cache import KVCache, KVMemory
from elysium_core.model.llama import Llama

COLUMN_STEP = 256
"""Columns of a bucket are a multiple of it, or all that the memory has."""
MAX_TOKENS = 2048
"""Rows of the largest bucket; wider passes are not padded."""

# Up to so many rows in steps of so many: what padding costs stays below a seventh from 96 rows on.
_ROW_STEPS = ((32, 16), (256, 32), (512, 64), (MAX_TOKENS, 128))


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shape that a pass is padded to.

    Attributes:
        rows: New tokens Tb.
        columns: Columns Sb of the memory that are attended to.
    """

    rows: int
    columns: int


def find_bucket(tokens: int, start: int, capacity: int) -> Bucket | None:
    """The smallest bucket of a pass; None if it fits into none.

    Args:
        tokens: New tokens T.
        start: Tokens in memory before them.
        capacity: Of the memory.
    """
    step = next((step for most, step in _ROW_STEPS if tokens <= most), None)
    if step is None:
        return None
    rows = _up(tokens, step)
    columns = min(_up(start + rows, COLUMN_STEP), capacity)
    return Bucket(rows, columns) if start + rows <= columns else None


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class PaddedCache:
    """A cache as a padded pass sees it: always the same columns, and new tokens at places that are read on the device.

    Args:
        memory: Where keys and values are.
        slots: (Tb,) int64, places of the new tokens.
        columns: Sb.
    """

    def __init__(self, memory: KVMemory, slots: Tensor, columns: int) -> None:
        self._memory, self._slots, self._columns = memory, slots, columns
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`elysium_core.model.kv_cache.LayerCache`."""
        stored = self._memory.keys[layer], self._memory.values[layer]
        for place, new in zip(stored, (keys, values), strict=True):
            place.index_copy_(2, self._slots, new)
        return stored[0][:, :, : self._columns], stored[1][:, :, : self._columns]

    def advance(self, tokens: int) -> None:
        """Does nothing: the cache that is padded counts its tokens itself."""


class PaddedInputs:
    """The inputs of padded passes and their output, at addresses that never change.

    Args:
        llm: The decoder.
        capacity: Most columns.
    """

    def __init__(self, llm: Llama, capacity: int) -> None:
        weight = llm.model.embed_tokens.weight
        rows, device = min(MAX_TOKENS, capacity), weight.device
        self.capacity = capacity
        self._embeddings = torch.zeros(1, rows, llm.size.width, device=device, dtype=weight.dtype)
        self._positions = torch.zeros(1, rows, dtype=torch.int64, device=device)
        # One block for the masks of all buckets: each is a view that begins at its first byte.
        self._mask = torch.zeros(rows * capacity, dtype=torch.bool, device=device)
        self._extent = torch.zeros(2, dtype=torch.int64, device=device)
        self._hidden = torch.zeros_like(self._embeddings)

    def fill(self, bucket: Bucket, embeddings: Tensor, positions: Tensor, mask: Tensor, start: int) -> None:
        """Take over the inputs of a pass (:meth:`elysium_core.model.llama.Llama.forward`)."""
        tokens, columns = mask.shape[2:]
        self._embeddings[:, :tokens] = embeddings
        self._embeddings[:, tokens : bucket.rows] = 0
        self._positions[:, :tokens] = positions
        padded = self._masked(bucket)
        padded[..., columns:] = False
        padded[:, :, tokens:] = False
        padded[:, :, :tokens, :columns] = mask
        self._extent.copy_(torch.tensor([start, tokens]), non_blocking=True)

    def run(self, llm: Llama, memory: KVMemory, bucket: Bucket) -> None:
        """The pass itself: reads and writes nothing but these buffers and the memory, in the same way every time."""
        rows, columns = bucket.rows, bucket.columns
        row = torch.arange(rows, device=self._extent.device)
        slots = self._extent[0] + row
        # A row that may attend to nothing would be no number; one of padding attends to itself, which is zero.
        own = (row >= self._extent[1])[:, None] & (torch.arange(columns, device=row.device) == slots[:, None])
        allowed = self._masked(bucket) | own
        bias = torch.zeros_like(allowed, dtype=self._embeddings.dtype).masked_fill_(~allowed, float("-inf"))
        cache = PaddedCache(memory, slots, columns)
        hidden, _ = llm(self._embeddings[:, :rows], self._positions[:, :rows], bias, cache)
        self._hidden[:, :rows] = hidden

    def output(self, tokens: int) -> Tensor:
        """Hidden states (1, T, D) of the pass that ran last, a copy."""
        return self._hidden[:, :tokens].clone()

    def _masked(self, bucket: Bucket) -> Tensor:
        return self._mask[: bucket.rows * bucket.columns].view(1, 1, bucket.rows, bucket.columns)


def clear_tail(cache: KVCache, bucket: Bucket) -> None:
    """Make the columns behind a pass zero, as far as its bucket sees them.

    They are masked, but what is no number would show through a mask: 0 times it is no
    number either. Only a pass that failed leaves such behind.
    """
    tail = slice(cache.length + bucket.rows, bucket.columns)
    cache.memory.keys[..., tail, :] = 0
    cache.memory.values[..., tail, :] = 0
