"""A T-Selector for crops whose gate has seen the object: it keeps the tokens of a live crop that match an anchor.

Every cell of the live crop is compared with every cell of the anchor crop. A small trunk turns the comparison into the
cell's token; a linear gate scores tokens, and the K2 best are kept. While the selector is trained, a second head reads
the sides of the object's box off every cell; the tokens themselves carry features only.

Shapes: B crops, M anchor cells, N live cells (row-major), K1 and K2 kept tokens, D their width, C the width of the
compared vectors. Boxes are x1, y1, x2, y2 in fractions of their crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.network.conv_layers import ConvNorm, as_grid, as_tokens, cell_centers, conv_trunk
from elysium_core.network.crop_config import CropConfig
from elysium_core.network.token_selector import best_tokens, gather_tokens

# Cosines are multiplied by this, so that they are as large as the other inputs of the trunk.
_COSINE_SCALE = 4.0
# A cell that the object covers by less than this counts as covered by this share: its logarithm stays finite.
_LEAST_COVER = 1e-3
_COVER_POWER = 2.0
# An object covers at least this part of a cell when features are averaged over it.
_LEAST_CELLS = 0.5
# Of cells that are covered alike, those nearer to the box's centre are kept; the weight must not outvote the cover.
_CENTER_WEIGHT = 1e-3
_LEAST_HALF_SIDE = 0.125
_FIRST_SIDE, _FIRST_GATE = 1.0, -3.0


@dataclass(frozen=True, slots=True, eq=False)
class AnchorTokens:
    """Anchors of B objects: what the language model reads of them, and what live crops are compared with.

    Attributes:
        tokens: (B, K1, D) kept tokens, in ascending order of their cells; of the selector's width, or of the language
            model's behind the projector.
        query: (B, M, C) unit vectors of all anchor cells.
        cover: (B, M) share of each cell that the object's box covers, 0..1.
        pooled: (B, C) mean vector of the object.
        size: (B, 2) width and height of the box, 0..1.
    """

    tokens: Tensor
    query: Tensor
    cover: Tensor
    pooled: Tensor
    size: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> AnchorTokens:
        """Some of the anchors."""
        return AnchorTokens(*(tensor[rows] for tensor in self.parts()))

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the attributes."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def to(self, device: torch.device, dtype: torch.dtype) -> AnchorTokens:
        """The same anchors on a device, in a data type."""
        return AnchorTokens(*(tensor.to(device, dtype) for tensor in self.parts()))

    @classmethod
    def stack(cls, anchors: Sequence[AnchorTokens]) -> AnchorTokens:
        """Join anchors along B, in their order."""
        return cls(*(torch.cat(parts) for parts in zip(*(each.parts() for each in anchors), strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class LiveTokens:
    """Kept tokens of B live crops, and what training needs of the same pass.

    Attributes:
        tokens: (B, K2, D) kept tokens, in ascending order of their cells.
        index: (B, K2) int64, their cells.
        gate: (B, N) gate logits of all cells.
        sides: (B, N, 4) distances from each cell's centre to the left, upper, right and lower side of the object's box,
            at least 0, in fractions of the crop; for training only.
        every: (B, N, D) tokens of all cells.
    """

    tokens: Tensor
    index: Tensor
    gate: Tensor
    sides: Tensor
    every: Tensor


class TargetSelector(nn.Module):
    """T-Selector for crops.

    Args:
        config: Settings.
        width: Channels of the vision encoder's crop features.
    """

    def __init__(self, config: CropConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.neck = ConvNorm(width, config.neck, 1)
        self.query, self.key = nn.Conv2d(config.neck, config.match, 1), nn.Conv2d(config.neck, config.match, 1)
        # Inputs of the trunk: cosines with all anchor cells, the key, its product with the object's mean vector, the
        # best cosine inside and outside the object, and the object's width and height.
        self.enter = ConvNorm(config.anchor_cells**2 + 2 * config.match + 4, config.trunk, 1)
        self.trunk = conv_trunk(config.trunk)
        self.sides = nn.Conv2d(config.trunk, 4, 1)
        nn.init.constant_(self.sides.bias, _FIRST_SIDE)  # type: ignore[arg-type]
        self.live_token = nn.Linear(config.trunk, config.num_features)
        self.live_place = nn.Parameter(torch.randn(config.live_cells**2, config.num_features) * 0.02)
        self.gate = nn.Linear(config.num_features, 1)
        nn.init.constant_(self.gate.bias, _FIRST_GATE)
        self.anchor_token = nn.Linear(config.neck + 1, config.num_features)
        self.anchor_place = nn.Parameter(torch.randn(config.anchor_cells**2, config.num_features) * 0.02)

    def anchor(self, features: Tensor, boxes: Tensor) -> AnchorTokens:
        """Read anchor crops.

        Args:
            features: (B, width, anchor_cells, anchor_cells) of the vision encoder.
            boxes: (B, 4) float32, the object in each crop.
        """
        neck = self.neck(features)
        query = as_tokens(self.query(neck))
        cover = box_cover(boxes, self.config.anchor_cells)
        covered = cover.to(query.dtype)
        cells = covered.sum(-1, keepdim=True).clamp_min(_LEAST_CELLS)
        told = torch.cat([as_tokens(neck), covered[..., None]], -1)
        index = self._covered_cells(boxes, cover)
        return AnchorTokens(
            tokens=gather_tokens(self.anchor_token(told) + self.anchor_place, index),
            query=F.normalize(query, dim=-1),
            cover=covered,
            pooled=(query * covered[..., None]).sum(1) / cells,
            size=(boxes[:, 2:] - boxes[:, :2]).to(query.dtype),
        )

    def live(self, features: Tensor, anchors: AnchorTokens) -> LiveTokens:
        """Compare live crops with an anchor each, and keep the tokens that match best.

        Args:
            features: (B, width, live_cells, live_cells) of the vision encoder.
            anchors: B anchors, in the order of the crops; their ``tokens`` are not used.
        """
        compared = self.trunk(self.enter(self._compare(self.neck(features), anchors)))
        every = self.live_token(as_tokens(compared)) + self.live_place
        gate = self.gate(every).squeeze(-1)
        index = best_tokens(gate, self.config.live_tokens)
        sides = F.softplus(as_tokens(self.sides(compared)).float()) / self.config.live_cells
        return LiveTokens(gather_tokens(every, index), index, gate, sides, every)

    def boxes(self, sides: Tensor) -> Tensor:
        """Boxes (B, N, 4) in 0..1 of the sides (B, N, 4) that live cells read."""
        centers = cell_centers(self.config.live_cells, sides.device)
        return torch.cat([centers - sides[..., :2], centers + sides[..., 2:]], -1).clamp(0, 1)

    def _compare(self, neck: Tensor, anchors: AnchorTokens) -> Tensor:
        """Inputs of the trunk (B, M + 2 C + 4, live_cells, live_cells)."""
        key = self.key(neck)
        side = self.config.live_cells
        cosine = torch.matmul(anchors.query, F.normalize(key, dim=1).flatten(2)) * _COSINE_SCALE
        best = torch.cat([_best(cosine, anchors.cover), _best(cosine, 1 - anchors.cover)], 1)
        pooled, size = (part[:, :, None, None] for part in (anchors.pooled, anchors.size))
        return torch.cat(
            [as_grid(cosine, side), key, key * pooled, as_grid(best, side), size.expand(-1, -1, side, side)], 1
        )

    def _covered_cells(self, boxes: Tensor, cover: Tensor) -> Tensor:
        """The K1 anchor cells (B, K1) int64 ascending that the box covers most."""
        middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        half = ((boxes[:, None, 2:] - boxes[:, None, :2]) / 2).clamp_min(_LEAST_HALF_SIDE)
        centers = cell_centers(self.config.anchor_cells, boxes.device)
        distance = ((centers - middle) / half).square().sum(-1)
        rank = cover - _CENTER_WEIGHT * distance
        return best_tokens(rank, self.config.anchor_tokens)


def box_cover(boxes: Tensor, cells: int) -> Tensor:
    """Share of each cell of a square that a box covers.

    Args:
        boxes: (B, 4), in fractions of the square.
        cells: Cells a side.

    Returns:
        (B, cells * cells), 0..1, row-major.
    """
    edge = torch.arange(cells, device=boxes.device) / cells
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    # (B, cells, 2): the covered part of each column and row.
    covered = (torch.minimum(high, edge[:, None] + 1 / cells) - torch.maximum(low, edge[:, None])).clamp_min(0) * cells
    return (covered[:, :, None, 1] * covered[:, None, :, 0]).flatten(1)


def _best(cosine: Tensor, cover: Tensor) -> Tensor:
    """Best cosine (B, 1, N) of each live cell with the covered anchor cells, of cosines (B, M, N) and cover (B, M)."""
    weight = cover.clamp_min(_LEAST_COVER).log() * _COVER_POWER
    return (cosine + weight[..., None]).amax(1, keepdim=True)
