"""Made-up readings of whole frames: scenes that only names tell apart, without pictures.

Shapes: B frames, N cells, K kept of them, V known names, M objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.network.conv_layers import cell_centers
from elysium_core.training.real.feature_pool import Features
from elysium_core.training.real.frame_features import MOST_OBJECTS, NOTHING, FrameObjects
from elysium_core.training.real.frame_truth import assign_cells
from elysium_core.training.seeds import batch_seed

_OBJECTS = (2, 6)
_SIDES = (0.12, 0.6)
_SAME_NAME_SHARE = 0.2
_MOST_COVERED = 0.5
_TRIES = 40
_BOX_NOISE = 0.12
# Chances that cells give to wrong names, at most, and to the right one.
_MOST_DOUBT, _SURE = 0.25, (0.4, 0.95)


@dataclass(slots=True)
class FrameReadings(Features):
    """What the selector might have read of frames.

    Attributes:
        gate: (B, N) logits.
        read_boxes: (B, N, 4) that cells read.
        chances: (B, N, V) of each name.
        names: See :class:`elysium_core.training.real.frame_features.FrameObjects`; so the next two.
        boxes: Likewise.
        is_usable: Likewise.
    """

    gate: Tensor
    read_boxes: Tensor
    chances: Tensor
    names: Tensor
    boxes: Tensor
    is_usable: Tensor

    @property
    def objects(self) -> FrameObjects:
        """The objects alone."""
        return FrameObjects(self.names, self.boxes, self.is_usable)


class FrameReadingSource:
    """Makes up readings by number (protocol: :class:`elysium_core.training.real.feature_pool.FeatureBatches`).

    Args:
        cells: Cells a side.
        names: V.
    """

    def __init__(self, cells: int, names: int) -> None:
        self._cells, self._names = cells, names

    def features(self, seed: int, number: int, count: int) -> FrameReadings:
        """See :class:`elysium_core.training.real.feature_pool.FeatureBatches`."""
        rng = np.random.default_rng(batch_seed(seed, number, 1))
        random = torch.Generator().manual_seed(batch_seed(seed, number))
        objects = draw_objects(rng, count, self._names)
        return read_objects(objects, self._cells, self._names, random)


def draw_objects(rng: np.random.Generator, count: int, names: int) -> FrameObjects:
    """Objects of made-up frames: two to five, most of them of different names, none hidden."""
    drawn = torch.full((count, MOST_OBJECTS), NOTHING)
    boxes = torch.zeros(count, MOST_OBJECTS, 4)
    for row in range(count):
        placed = _placed_boxes(rng, int(rng.integers(*_OBJECTS)))
        kinds = rng.permutation(names)[: len(placed)] if len(placed) <= names else rng.integers(names, size=len(placed))
        for place in range(1, len(placed)):
            if rng.random() < _SAME_NAME_SHARE:
                kinds[place] = kinds[place - 1]
        drawn[row, : len(placed)] = torch.from_numpy(np.ascontiguousarray(kinds))
        boxes[row, : len(placed)] = torch.from_numpy(placed)
    return FrameObjects(drawn, boxes, drawn != NOTHING)


def _placed_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """(at most ``count``, 4) float32 boxes of which none covers half of another."""
    placed: list[NDArray[np.float32]] = []
    low, high = np.log(_SIDES)
    for _ in range(_TRIES):
        size = np.exp(rng.uniform(low, high, 2))
        corner = rng.uniform(0, 1 - size)
        box = np.concatenate([corner, corner + size]).astype(np.float32)
        if all(_covered(box, other) <= _MOST_COVERED for other in placed):
            placed.append(box)
        if len(placed) == count:
            break
    return np.stack(placed)


def _covered(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Share of the smaller box that the other one covers."""
    shared = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).clip(0).prod()
    return float(shared / min((first[2:] - first[:2]).prod(), (second[2:] - second[:2]).prod()))


def read_objects(objects: FrameObjects, cells: int, names: int, random: torch.Generator) -> FrameReadings:
    """What cells might read of objects, more or less exactly.

    Args:
        objects: The truth.
        cells: Cells a side.
        names: V.
        random: Source of randomness.
    """
    count, number = len(objects.names), cells**2
    centers = cell_centers(cells, torch.device("cpu"))
    truth = assign_cells(objects, centers)
    on = truth.is_on[..., None]
    sides = torch.rand(count, number, 2, generator=random) * 0.4 + 0.05
    blank = torch.cat([centers - sides / 2, centers + sides / 2], -1)
    sides = torch.where(on, truth.boxes[..., 2:] - truth.boxes[..., :2], sides)
    level = _BOX_NOISE * torch.rand(count, 1, 1, generator=random) ** 2
    noise = level * torch.randn(count, number, 4, generator=random) * sides.repeat(1, 1, 2)
    boxes = (torch.where(on, truth.boxes, blank) + noise).clamp(0, 1)
    chances = _MOST_DOUBT * torch.rand(count, number, names, generator=random) ** 3
    low, high = _SURE
    sure = low + (high - low) * torch.rand(count, objects.names.shape[1], generator=random).gather(1, truth.owner)
    named = (F.one_hot(truth.names, names) > 0) & on
    chances = torch.where(named, sure[..., None].expand_as(chances), chances)
    noise = torch.randn(count, number, generator=random)
    gate = torch.where(truth.is_on, 1 + 0.8 * noise, -3 + noise)
    return FrameReadings(gate, boxes, chances, objects.names, objects.boxes, objects.is_usable)
