"""Batches of the vision encoder's features, drawn anew or taken from a pool on disk.

The blocks of the encoder that crops and frames share are never trained, so that their features are computed once and
kept. The pool consists of blocks. Each new batch brings the next block until the pool is full, and mixes its samples
with those of blocks that were drawn before. What is in a block depends on its number alone, and which blocks make up a
batch on the batch's number: a block that is missing is drawn again, and all is the same.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from elysium_core.io.files import atomic_path
from elysium_core.training.seeds import batch_seed

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

BLOCK = 32
"""Samples of a block."""
_MIXED_BLOCKS = 4
# Float32 has more range: what is beyond that of float16 would become infinite.
_LARGEST_HALF = 6e4

_LOG = logging.getLogger(__name__)


class Features:
    """A dataclass of tensors with one row a sample; some may be None."""

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in found.items() if value is not None}

    def to(self, device: torch.device) -> Self:
        """Move every tensor to a device."""
        return type(self)(**{name: value.to(device) for name, value in self.tensors().items()})

    def rows(self, index: Tensor) -> Self:
        """Some of the samples."""
        return type(self)(**{name: value[index] for name, value in self.tensors().items()})

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Samples of several batches, in their order."""
        names = parts[0].tensors()
        return cls(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in names})


F_co = TypeVar("F_co", bound=Features, covariant=True)


class FeatureBatches(Protocol[F_co]):
    """Draws and encodes batches by number."""

    def features(self, seed: int, number: int, count: int) -> F_co:
        """The batch with this number of a seed, with this many samples."""
        ...


def half(features: Tensor) -> Tensor:
    """Features as they are kept."""
    return features.clamp(-_LARGEST_HALF, _LARGEST_HALF).half().contiguous()


class FreshFeatures(Dataset[Any], Generic[F_co]):
    """Batches whose samples are all drawn anew.

    Args:
        source: Draws them.
        batch: Samples a batch.
        seed: Of all of them.
    """

    def __init__(self, source: FeatureBatches[F_co], batch: int, seed: int) -> None:
        self._source, self._batch, self._seed = source, batch, seed

    def __getitem__(self, number: int) -> F_co:
        return self._source.features(self._seed, number, self._batch)


class PooledFeatures(Dataset[Any], Generic[F_co]):
    """Batches of samples of a pool.

    Args:
        source: Draws the pool: its batches are the blocks.
        kind: Class of the features.
        folder: Where blocks are kept.
        blocks: Blocks of the whole pool, >= 1.
        pool_seed: Of what is in the blocks.
        batch: Samples a batch.
        seed: Of the choice of samples.
        first: Number of blocks that earlier stages have drawn.
    """

    def __init__(
        self,
        source: FeatureBatches[F_co],
        kind: type[F_co],
        folder: Path,
        *,
        blocks: int,
        pool_seed: int,
        batch: int,
        seed: int,
        first: int,
    ) -> None:
        self._source, self._kind, self._folder, self._pool_seed = source, kind, folder, pool_seed
        self._blocks, self._batch, self._seed, self._first = blocks, batch, seed, first
        self._is_full_disk_told = False

    def __getitem__(self, number: int) -> F_co:
        rng = np.random.default_rng(batch_seed(self._seed, number))
        newest = self._first + number * self._batch // BLOCK
        known = min(newest + 1, self._blocks)
        chosen = rng.integers(known, size=_MIXED_BLOCKS)
        if newest < self._blocks:
            chosen[0] = newest
        counts = [len(part) for part in np.array_split(np.arange(self._batch), _MIXED_BLOCKS)]
        parts = []
        for block, count in zip(chosen, counts, strict=True):
            rows = rng.choice(BLOCK, count, replace=count > BLOCK)
            parts.append(self.block(int(block)).rows(torch.from_numpy(np.sort(rows))))
        return self._kind.join(parts)

    def block(self, number: int) -> F_co:
        """A block, from the disk where it is there."""
        path = self._folder / f"block-{number:06d}.safetensors"
        try:
            return self._kind(**load_file(path))
        except (OSError, SafetensorError, TypeError):
            found = self._source.features(self._pool_seed, number, BLOCK)
        try:
            with atomic_path(path) as temporary:
                save_file(found.tensors(), temporary)
        except (OSError, SafetensorError) as error:
            if not self._is_full_disk_told:
                self._is_full_disk_told = True
                _LOG.warning("%s: features cannot be kept (%s); they are drawn again when needed", path, error)
        return found
