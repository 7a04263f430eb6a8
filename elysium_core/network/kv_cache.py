"""Keys and values of the tokens a decoder has seen, in memory that is taken once.

Shapes: L layers, G key/value heads, C capacity in tokens, d width of a head.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CAPACITY = 2048
"""Tokens every cache has room for: eight frames of 108 visual tokens and several targets."""


class LayerCache(Protocol):
    """What a decoder's layers need of a cache."""

    length: int

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens (1, G, T, d) of a layer and return all that may be attended to."""
        ...

    def advance(self, tokens: int) -> None:
        """Count tokens as seen that all layers have written."""
        ...


@dataclass(frozen=True, slots=True)
class KVShape:
    """What a token's keys and values look like.

    Attributes:
        layers: Decoder layers L.
        kv_heads: Key/value heads a layer G.
        head_dim: Width of a head d.
        device: Where they live.
        dtype: Of keys and values.
    """

    layers: int
    kv_heads: int
    head_dim: int
    device: torch.device
    dtype: torch.dtype

    @property
    def token_bytes(self) -> int:
        """Memory of one token [bytes]."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


class KVMemory:
    """A block of memory for keys and values; its address never changes, so a recorded program may point to it.

    Args:
        shape: Of one token.
        capacity: Most tokens it can hold, C.
    """

    __slots__ = ("__weakref__", "keys", "shape", "values")

    def __init__(self, shape: KVShape, capacity: int) -> None:
        sizes = (shape.layers, 1, shape.kv_heads, capacity, shape.head_dim)
        self.shape = shape
        self.keys = torch.zeros(sizes, device=shape.device, dtype=shape.dtype)
        self.values = torch.zeros(sizes, device=shape.device, dtype=shape.dtype)

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return int(self.keys.shape[3])


class KVCache:
    """Keys and values of one sequence; new tokens are written in place.

    Args:
        memory: What it writes to; nobody else may use it meanwhile.
        pool: Where larger memory comes from; None = it is made anew.
    """

    def __init__(self, memory: KVMemory, pool: KVPool | None = None) -> None:
        self.memory = memory
        self._pool = pool
        self.length = 0

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return self.memory.capacity

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens behind ``length`` and return all of them.

        ``length`` itself moves only with :meth:`advance`, once all layers have written.

        Args:
            layer: Layer index.
            keys: (1, kv_heads, T, head_dim).
            values: Likewise.

        Returns:
            Keys and values (1, kv_heads, length + T, head_dim), views of the memory.

        Raises:
            ValueError: The cache is too small.
        """
        stop = self.length + keys.shape[2]
        if stop > self.capacity:
            raise ValueError(f"the KV cache holds {self.capacity} tokens, {stop} are needed")
        memory = self.memory
        memory.keys[layer, :, :, self.length : stop] = keys
        memory.values[layer, :, :, self.length : stop] = values
        return memory.keys[layer, :, :, :stop], memory.values[layer, :, :, :stop]

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` just written by all layers as seen."""
        self.length += tokens

    def crop(self, length: int) -> None:
        """Forget everything behind the first ``length`` tokens.

        Raises:
            ValueError: There are fewer tokens than that.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} tokens to {length}")
        self.length = length

    def grown(self, capacity: int) -> KVCache:
        """A cache for ``capacity`` tokens or more with the same tokens."""
        pool = self._pool
        cache = pool.take(capacity) if pool is not None else KVCache(KVMemory(self.memory.shape, capacity))
        cache.memory.keys[..., : self.length, :] = self.memory.keys[..., : self.length, :]
        cache.memory.values[..., : self.length, :] = self.memory.values[..., : self.length, :]
        cache.length = self.length
        return cache


class KVPool:
    """Memory that caches hand on to each other, so that a stream takes none after its first windows.

    All of it is of one size, the largest that was ever needed: what one window of a stream
    has grown to, the next one will need, too.

    Args:
        shape: Of one token.
        step: Capacities are multiples of it [tokens].
    """

    def __init__(self, shape: KVShape, step: int = 1) -> None:
        self.shape = shape
        self._step = step
        self._free: list[KVMemory] = []
        self.capacity = 0

    def take(self, capacity: int) -> KVCache:
        """An empty cache for ``capacity`` tokens or more; its memory comes back when the cache is gone."""
        if capacity > self.capacity:
            self.capacity = -(-capacity // self._step) * self._step
            self._free.clear()
        memory = self._free.pop() if self._free else KVMemory(self.shape, self.capacity)
        cache = KVCache(memory, self)
        weakref.finalize(cache, self._give_back, memory).atexit = False
        return cache

    def trim(self) -> None:
        """Free the memory that no cache uses."""
        self._free.clear()

    def _give_back(self, memory: KVMemory) -> None:
        if memory.capacity == self.capacity:
            self._free.append(memory)
