"""Keys and values of the tokens a decoder has seen, in memory that is taken once."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Preallocated keys and values of one sequence.

    Args:
        layers: Decoder layers.
        kv_heads: Key/value heads a layer.
        head_dim: Width of a head.
        capacity: Most tokens it can hold.
        device: Where it lives.
        dtype: Of keys and values.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (layers, 1, kv_heads, capacity, head_dim)
        self._keys = torch.zeros(shape, device=device, dtype=dtype)
        self._values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return int(self._keys.shape[3])

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens behind ``length`` and return all of them.

        ``length`` itself moves only with :meth:`advance`, once all layers have written.

        Args:
            layer: Layer index.
            keys: (1, kv_heads, T, head_dim).
            values: Likewise.

        Returns:
            Keys and values (1, kv_heads, length + T, head_dim), views of the cache.

        Raises:
            ValueError: The cache is too small.
        """
        stop = self.length + keys.shape[2]
        if stop > self.capacity:
            raise ValueError(f"the KV cache holds {self.capacity} tokens, {stop} are needed")
        self._keys[layer, :, :, self.length : stop] = keys
        self._values[layer, :, :, self.length : stop] = values
        return self._keys[layer, :, :, :stop], self._values[layer, :, :, :stop]

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
        """A cache of larger ``capacity`` with the same tokens."""
        layers, _, kv_heads, _, head_dim = self._keys.shape
        cache = KVCache(layers, kv_heads, head_dim, capacity, self._keys.device, self._keys.dtype)
        cache._keys[..., : self.length, :] = self._keys[..., : self.length, :]
        cache._values[..., : self.length, :] = self._values[..., : self.length, :]
        cache.length = self.length
        return cache
