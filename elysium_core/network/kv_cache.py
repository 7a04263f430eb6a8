"""The KV cache: keys and values of earlier tokens, in preallocated memory.

Shapes: L layers, G key/value heads, C capacity in tokens, d width of a head.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CAPACITY = 2048
"""Smallest capacity of a cache: enough for eight frames of 108 visual tokens and several targets [tokens]."""


class LayerCache(Protocol):
    """The part of a cache that the layers of a decoder use."""

    length: int

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens (1, G, T, d) of a layer, and return keys and values of all tokens to attend to."""
        ...

    def advance(self, tokens: int) -> None:
        """Count tokens that all layers have written."""
        ...


@dataclass(frozen=True, slots=True)
class KVShape:
    """Shape, device and data type of a token's keys and values.

    Attributes:
        layers: Decoder layers L.
        kv_heads: Key/value heads a layer G.
        head_dim: Width of a head d.
        device: Device of keys and values.
        dtype: Data type of keys and values.
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
    """A block of memory for keys and values. Its address never changes, so that a CUDA graph may use it.

    Args:
        shape: Shape of one token.
        capacity: Number of tokens it can hold, C.

    Attributes:
        capacity: As given.
    """

    __slots__ = ("__weakref__", "capacity", "keys", "shape", "values")

    def __init__(self, shape: KVShape, capacity: int) -> None:
        sizes = (shape.layers, 1, shape.kv_heads, capacity, shape.head_dim)
        self.shape = shape
        self.capacity = capacity
        self.keys = torch.zeros(sizes, device=shape.device, dtype=shape.dtype)
        self.values = torch.zeros(sizes, device=shape.device, dtype=shape.dtype)


class KVCache:
    """Keys and values of one sequence; new tokens are written in place.

    Args:
        memory: Its memory, used by no other cache.
        pool: Source of larger memory; None = it is allocated.

    Attributes:
        capacity: Number of tokens it can hold.
        length: Number of tokens it holds.
    """

    def __init__(self, memory: KVMemory, pool: KVPool | None = None) -> None:
        self.memory = memory
        self.capacity = memory.capacity
        self._pool = pool
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens after the first ``length`` and return all of them.

        ``length`` grows only in :meth:`advance`, when all layers have written.

        Args:
            layer: Layer index.
            keys: (1, kv_heads, T, head_dim).
            values: Same shape.

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
        """Count ``tokens`` that all layers have written."""
        self.length += tokens

    def crop(self, length: int) -> None:
        """Drop all but the first ``length`` tokens.

        Raises:
            ValueError: There are fewer tokens than that.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot crop a cache of {self.length} tokens to {length}")
        self.length = length

    def grown(self, capacity: int) -> KVCache:
        """Return a cache for ``capacity`` tokens or more, with a copy of the tokens of this one."""
        pool = self._pool
        cache = pool.take(capacity) if pool is not None else KVCache(KVMemory(self.memory.shape, capacity))
        cache.memory.keys[..., : self.length, :] = self.memory.keys[..., : self.length, :]
        cache.memory.values[..., : self.length, :] = self.memory.values[..., : self.length, :]
        cache.length = self.length
        return cache


class KVPool:
    """Memory that caches reuse, so that a stream allocates none after its first windows.

    All blocks have one size, the largest that was ever needed: the next window of a stream will
    need as much as the last one.

    Args:
        shape: Shape of one token.
        step: Capacities are multiples of it [tokens].
        make: Makes a cache from its memory and this pool.
    """

    def __init__(self, shape: KVShape, step: int = 1, make: Callable[[KVMemory, KVPool], KVCache] = KVCache) -> None:
        self.shape = shape
        self._step = step
        self._make = make
        self._free: list[KVMemory] = []
        self.capacity = 0

    def take(self, capacity: int) -> KVCache:
        """Return an empty cache for ``capacity`` tokens or more; its memory comes back when the cache is deleted."""
        if capacity > self.capacity:
            self.capacity = -(-capacity // self._step) * self._step
            self._free.clear()
        memory = self._free.pop() if self._free else KVMemory(self.shape, self.capacity)
        cache = self._make(memory, self)
        weakref.finalize(cache, self._give_back, memory).atexit = False
        return cache

    def trim(self) -> None:
        """Free all memory that is not in use."""
        self._free.clear()

    def _give_back(self, memory: KVMemory) -> None:
        if memory.capacity == self.capacity:
            self._free.append(memory)
