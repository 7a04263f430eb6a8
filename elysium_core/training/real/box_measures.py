"""Boxes as tensors: overlap, how near cells are to a box, and how well scores tell present from absent.

Boxes are x1, y1, x2, y2 in fractions of their crop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from elysium_core.training.losses import Mean

_SMALLEST_AREA = 1e-6


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU (...) of boxes (..., 4); boxes without area have IoU 0."""
    inner = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    outer = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    shared, hull = inner.clamp_min(0).prod(-1), outer.clamp_min(0).prod(-1).clamp_min(_SMALLEST_AREA)
    union = (_area(first) + _area(second) - shared).clamp_min(_SMALLEST_AREA)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def cell_distance(boxes: Tensor, centers: Tensor, least_half: float) -> Tensor:
    """How far cells are from the middle of boxes: 0 there, 1 on the ellipse that touches the box's sides.

    Args:
        boxes: (B, 4).
        centers: (N, 2) of the cells.
        least_half: Boxes count as at least this far from their middle to their sides.

    Returns:
        (B, N), squared distances.
    """
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    half = ((boxes[:, None, 2:] - boxes[:, None, :2]) / 2).clamp_min(least_half)
    return ((centers - middle) / half).square().sum(-1)


def ranking(scores: Tensor, is_present: Tensor) -> Mean:
    """Share of the pairs of a present and an absent object in which the present one has the higher score (AUROC)."""
    present, absent = scores[is_present], scores[~is_present]
    difference = present[:, None] - absent[None]
    wins = (difference > 0).float() + 0.5 * (difference == 0).float()
    return Mean(wins.sum(), wins.new_tensor(float(wins.numel())))
