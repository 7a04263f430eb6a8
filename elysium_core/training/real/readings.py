"""Made-up readings of a selector, and the tokens they are told to a language model with: no pictures.

A language model learns to read boxes off tokens in minutes if the tokens say where each cell sees the object. The
selector's own tokens are then drawn to these; see ``distil_weight``. Nothing of this is part of a checkpoint.

Shapes: B pairs, N cells of a live crop, K kept of them, D the LLM's width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from elysium_core.network.conv_layers import cell_centers
from elysium_core.training.real.box_measures import cell_distance
from elysium_core.training.seeds import batch_seed

# Periods of a coordinate's waves: beside halves those on which the decimal digits depend.
_RATES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_WAVES = 4 * (1 + 2 * len(_RATES))
_ABSENT_SHARE = 0.12
_CENTRED_SHARE = 0.65
_MOST_OFF_CENTRE, _USUAL_OFF_CENTRE = 0.31, 0.07
_SCORE_SCALE = 8.0
_MOST_NOISE = 0.4


@dataclass(slots=True)
class Readings:
    """What the selector might have read of a batch of pairs.

    Attributes:
        gate: (B, N) logits.
        boxes: (B, N, 4) that cells read.
        anchor_box: (B, 4), the given box in the anchor crop.
        live_box: (B, 4), the true box in the live crop.
        is_present: (B,) bool.
    """

    gate: Tensor
    boxes: Tensor
    anchor_box: Tensor
    live_box: Tensor
    is_present: Tensor

    def to(self, device: torch.device) -> Readings:
        """Move every tensor to a device."""
        return Readings(*(getattr(self, item.name).to(device) for item in fields(self)))


class ReadingBatches(Dataset[Readings]):
    """Batches of readings by number.

    Args:
        cells: Cells a side of a live crop.
        batch: Pairs a batch.
        seed: Of all of them.
    """

    def __init__(self, cells: int, batch: int, seed: int) -> None:
        self._cells, self._batch, self._seed = cells, batch, seed

    def __getitem__(self, number: int) -> Readings:
        random = torch.Generator().manual_seed(batch_seed(self._seed, number))
        return draw_readings(self._batch, self._cells, random)


def draw_readings(count: int, cells: int, random: torch.Generator) -> Readings:
    """Make up readings: an object, in half of all pairs a rival, cells that see one of them, more or less exactly.

    Args:
        count: B.
        cells: Cells a side.
        random: Source of randomness.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    ratio = torch.exp(0.45 * normal(count, 1))
    sides = _anchor_sides(ratio)
    anchor = torch.cat([0.5 - sides / 2, 0.5 + sides / 2], 1)
    # A live crop is twice as long as the anchor crop, and the object may have grown or shrunk.
    sides = sides * torch.exp(0.16 * normal(count, 1)) * 0.5 * torch.exp(0.08 * normal(count, 2))

    def placed(sides: Tensor) -> Tensor:
        far = (uniform(count, 2) - 0.5) * 2 * _MOST_OFF_CENTRE
        middle = 0.5 + torch.where(uniform(count, 1) < _CENTRED_SHARE, _USUAL_OFF_CENTRE * normal(count, 2), far)
        return torch.cat([middle - sides / 2, middle + sides / 2], 1).clamp(0, 1)

    target, rival = placed(sides), placed(sides * torch.exp(0.3 * normal(count, 2)))
    aside = (uniform(count, 1) - 0.5).sign() * torch.tensor([0.3, 0.0, 0.3, 0.0])
    rival = (rival + aside).clamp(0, 1)
    present = uniform(count) >= _ABSENT_SHARE
    centers, least = cell_centers(cells, torch.device("cpu")), 1 / cells
    near, near_rival = cell_distance(target, centers, least), cell_distance(rival, centers, least)
    peak = torch.where(present[:, None], 1.0 + 1.2 * normal(count, 1), -3.0 + normal(count, 1))
    other_peak = peak - 1.0 - 2.0 * uniform(count, 1)
    gate = torch.maximum((peak - 2.5 * near).clamp_min(-6), (other_peak - 2.5 * near_rival).clamp_min(-6))
    gate = gate + 0.4 * normal(count, cells**2)
    seen = torch.where((near_rival < near)[..., None], rival[:, None], target[:, None])
    # Half of the pairs are read nearly exactly.
    spread = (sides.prod(1).sqrt() * 0.15 * uniform(count) ** 2)[:, None, None]
    noise = spread * (0.7 * normal(count, cells**2, 4) + 0.4 * normal(count, 1, 4))
    noise = noise * (1 + torch.minimum(near, near_rival).clamp_max(6)[..., None])
    return Readings(gate, (seen + noise).clamp(0, 1), anchor, target, present)


def _anchor_sides(ratio: Tensor) -> Tensor:
    """Sides (B, 2) of boxes of a width over height (B, 1) in the crops of :meth:`elysium_core.io.crop.Crop.around`."""
    width, height = ratio.sqrt(), 1 / ratio.sqrt()
    around = (width + height) / 2
    crop = torch.maximum(((width + around) * (height + around)).sqrt(), 1.2 * torch.maximum(width, height))
    return torch.cat([width, height], 1) / crop


class ReadingTokens(nn.Module):
    """Tells readings as tokens of a language model.

    Args:
        cells: Cells a side of a live crop.
        anchor_tokens: Tokens of an anchor crop, K1.
        token_width: Inner width.
        width: D.
    """

    def __init__(self, cells: int, anchor_tokens: int, token_width: int, width: int) -> None:
        super().__init__()
        self.reading = nn.Linear(_WAVES + 2, token_width)
        self.place = nn.Parameter(torch.randn(cells**2, token_width) * 0.02)
        self.out = nn.Sequential(nn.Linear(token_width, width), nn.GELU(), nn.Linear(width, width))
        self.anchor = nn.Parameter(torch.randn(anchor_tokens, width) * 0.02)

    def forward(self, gate: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
        """Tokens (B, K, D) of logits (B, K) and boxes (B, K, 4) that the cells (B, K) read."""
        told = torch.cat([_waves(boxes), gate.sigmoid()[..., None], gate[..., None] / _SCORE_SCALE], -1)
        tokens: Tensor = self.out(self.reading(told) + self.place[index])
        return tokens

    def noisy(self, tokens: Tensor) -> Tensor:
        """Tokens as a selector will make them: none is exact, some rows are far off."""
        level = _MOST_NOISE * torch.rand(len(tokens), 1, 1, device=tokens.device)
        return tokens + level * tokens.detach().std() * torch.randn_like(tokens)

    def anchors(self, like: Tensor) -> Tensor:
        """Tokens (B, K1, D) that stand for an anchor crop beside tokens (B, K, D): they tell nothing."""
        tokens = self.anchor.expand(len(like), -1, -1)
        level = torch.rand(len(like), 1, 1, device=like.device)
        return tokens + level * like.detach().std() * torch.randn_like(tokens)


def _waves(boxes: Tensor) -> Tensor:
    """Coordinates (..., 4) with sines and cosines: (..., 52)."""
    angles = boxes[..., None] * torch.tensor(_RATES, device=boxes.device) * (2 * math.pi)
    return torch.cat([boxes[..., None], angles.sin(), angles.cos()], -1).flatten(-2)
