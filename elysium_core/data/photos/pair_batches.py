"""Batches of pairs of stills for a training loop.

Shapes: B pairs, A and L the sides of anchor and live crops [px].
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.scene_parts import Absence, SceneKind
from elysium_core.errors import ConfigError

SCENE_KINDS = tuple(SceneKind)
"""Order of the numbers in :attr:`PairBatch.kind`."""
ABSENCES = tuple(Absence)
"""Order of the numbers in :attr:`PairBatch.absence`."""


@dataclass(slots=True)
class PairBatch:
    """What one optimiser step sees.

    Attributes:
        anchor: (B, A, A, 3) uint8 RGB.
        live: (B, L, L, 3) uint8 RGB.
        anchor_box: (B, 4) float32, the given box in the anchor crop, 0..1.
        live_box: (B, 4) float32, the true box in the live crop, 0..1; zeros where the object is absent.
        is_present: (B,) bool.
        like_boxes: (B, 3, 4) float32, look-alikes in the live crop; rows of zeros where there are fewer.
        kind: (B,) int64, index in :data:`SCENE_KINDS`.
        absence: (B,) int64, index in :data:`ABSENCES`.
    """

    anchor: Tensor
    live: Tensor
    anchor_box: Tensor
    live_box: Tensor
    is_present: Tensor
    like_boxes: Tensor
    kind: Tensor
    absence: Tensor

    def to(self, device: torch.device) -> PairBatch:
        """Move every tensor to a device."""
        return PairBatch(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})


class PairBatches(Dataset[PairBatch]):
    """Batches of pairs; ``batches[step]`` is always the same one, whichever worker process draws it.

    Args:
        generator: Draws the pairs.
        batch: Pairs a batch, >= 1.
        seed: Seed of all pairs, >= 0.
        steps: Number of batches, >= 1.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(self, generator: PairGenerator, batch: int, seed: int, steps: int) -> None:
        if batch < 1 or seed < 0 or steps < 1:
            raise ConfigError(
                f"batch = {batch}, seed = {seed} and steps = {steps} need batch, steps >= 1 and seed >= 0"
            )
        self._generator, self._batch, self._seed, self._steps = generator, batch, seed, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> PairBatch:
        if not 0 <= step < self._steps:
            raise IndexError(f"step {step} is not in 0..{self._steps - 1}")
        pairs = [self._generator.draw(self._seed, step * self._batch + n) for n in range(self._batch)]
        stacked = {
            name: torch.from_numpy(np.stack([getattr(pair, name) for pair in pairs]))
            for name in ("anchor", "live", "anchor_box", "live_box", "like_boxes")
        }
        return PairBatch(
            **stacked,
            is_present=torch.tensor([pair.is_present for pair in pairs]),
            kind=torch.tensor([SCENE_KINDS.index(pair.kind) for pair in pairs]),
            absence=torch.tensor([ABSENCES.index(pair.absence) for pair in pairs]),
        )
