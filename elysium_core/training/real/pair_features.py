"""Batches of pairs as the vision encoder's shallow features, drawn anew or taken from a pool on disk.

The pool consists of blocks of 32 pairs. Each new batch brings the next block until the pool is full, and mixes its
pairs with those of blocks that were drawn before. What is in a block depends on its number alone, and which blocks make
up a batch on the batch's number: a block that is missing is drawn again, and all is the same.

Shapes: B pairs, A and L the sides of anchor and live crops [px].
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from elysium_core.data.photos.pair_batches import PairBatch, PairBatches
from elysium_core.io.files import atomic_path
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.image_transform import ImageTransform
from elysium_core.training.real.crop_depths import shallow_features
from elysium_core.training.seeds import batch_seed

BLOCK_PAIRS = 32
_MIXED_BLOCKS = 4

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class PairFeatures:
    """What one step sees.

    Attributes:
        anchor: (B, 24, A / 4, A / 4) float16, shallow features of anchor crops.
        live: (B, 24, L / 4, L / 4) float16, of live crops.
        anchor_box: (B, 4) float32, the given box in the anchor crop, 0..1.
        live_box: (B, 4) float32, the true box in the live crop; zeros where the object is absent.
        is_present: (B,) bool.
        anchor_pixels: (B, A, A, 3) uint8 RGB; only of held-out pairs, to be drawn.
        live_pixels: (B, L, L, 3) uint8 RGB, likewise.
    """

    anchor: Tensor
    live: Tensor
    anchor_box: Tensor
    live_box: Tensor
    is_present: Tensor
    anchor_pixels: Tensor | None = None
    live_pixels: Tensor | None = None

    def to(self, device: torch.device) -> PairFeatures:
        """Move every tensor to a device."""
        return PairFeatures(**{name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def rows(self, index: Tensor) -> PairFeatures:
        """Some of the pairs."""
        return PairFeatures(**{name: value[index] for name, value in self.tensors().items()})

    @classmethod
    def join(cls, parts: list[PairFeatures]) -> PairFeatures:
        """Pairs of several batches, in their order."""
        names = parts[0].tensors()
        return cls(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in names})


class PairEncoder:
    """Turns pictures of pairs into shallow features; on the CPU, in any process.

    Args:
        encoder: With its pretrained weights; its shallow half is never trained.
    """

    def __init__(self, encoder: EfficientNetEncoder) -> None:
        self._encoder = encoder
        self._transform = ImageTransform(encoder.side_px, encoder.normalization)

    @torch.inference_mode()
    def encode(self, batch: PairBatch, *, keep_pixels: bool = False) -> PairFeatures:
        """Encode a batch."""
        anchor, live = self._shallow(batch.anchor), self._shallow(batch.live)
        found = PairFeatures(anchor, live, batch.anchor_box, batch.live_box, batch.is_present)
        return replace(found, anchor_pixels=batch.anchor, live_pixels=batch.live) if keep_pixels else found

    def _shallow(self, pixels: Tensor) -> Tensor:
        features = shallow_features(self._encoder, self._transform.normalize(pixels))
        # Float32 has more range: what is beyond that of float16 would become infinite.
        return features.clamp(-6e4, 6e4).half().contiguous()


class FreshPairs(Dataset[PairFeatures]):
    """Batches whose pairs are all drawn anew.

    Args:
        source: Draws batches by number.
        encoder: Encodes them.
    """

    def __init__(self, source: PairBatches, encoder: PairEncoder) -> None:
        self._source, self._encoder = source, encoder

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> PairFeatures:
        return self._encoder.encode(self._source[number])


class PooledPairs(Dataset[PairFeatures]):
    """Batches of pairs of a pool.

    Args:
        blocks: Draws the pool: its batches are the blocks.
        encoder: Encodes them.
        folder: Where blocks are kept.
        batch: Pairs a batch.
        seed: Of the choice of pairs.
        first: Number of batches of :data:`BLOCK_PAIRS` pairs that earlier stages have drawn.
    """

    def __init__(
        self, blocks: PairBatches, encoder: PairEncoder, folder: Path, batch: int, seed: int, first: int
    ) -> None:
        self._blocks, self._encoder, self._folder = blocks, encoder, folder
        self._batch, self._seed, self._first = batch, seed, first
        self._is_full_disk_told = False

    def __getitem__(self, number: int) -> PairFeatures:
        rng = np.random.default_rng(batch_seed(self._seed, number))
        newest = self._first + number * self._batch // BLOCK_PAIRS
        known = min(newest + 1, len(self._blocks))
        chosen = rng.integers(known, size=_MIXED_BLOCKS)
        if newest < len(self._blocks):
            chosen[0] = newest
        counts = [len(part) for part in np.array_split(np.arange(self._batch), _MIXED_BLOCKS)]
        parts = []
        for block, count in zip(chosen, counts, strict=True):
            rows = rng.choice(BLOCK_PAIRS, count, replace=count > BLOCK_PAIRS)
            parts.append(self._block(int(block)).rows(torch.from_numpy(np.sort(rows))))
        return PairFeatures.join(parts)

    def _block(self, number: int) -> PairFeatures:
        path = self._folder / f"block-{number:06d}.safetensors"
        try:
            return PairFeatures(**load_file(path))
        except (OSError, SafetensorError, TypeError):
            found = self._encoder.encode(self._blocks[number])
        try:
            with atomic_path(path) as temporary:
                save_file(found.tensors(), temporary)
        except (OSError, SafetensorError) as error:
            if not self._is_full_disk_told:
                self._is_full_disk_told = True
                _LOG.warning("%s: pairs cannot be kept (%s); they are drawn again where they are needed", path, error)
        return found
