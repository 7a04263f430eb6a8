"""What each cell of a frame has to say: whose it is, and which cells lie on an object.

Shapes: B frames, N cells, M objects.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from elysium_core.training.real.frame_features import NOTHING, FrameObjects

# Parts of an object's width and height, from its middle; and the least of them, in cells: a little more than half a
# cell, so that the middle of every object has one.
_OWN, _INNER, _WHOLE, _POINTED = 0.25, 0.13, 0.5, 0.28
_LEAST_CELLS = 0.576
_NOBODY = 9.0


@dataclass(frozen=True, slots=True, eq=False)
class CellTruth:
    """The truth of cells.

    Attributes:
        is_on: (B, N) bool, in the middle of an object that can be asked for.
        owner: (B, N) int64, that object, the smallest if there are several; 0 elsewhere.
        names: (B, N) int64, its name; 0 elsewhere.
        boxes: (B, N, 4), its box.
        is_peak: (B, N) bool, in the innermost part of an object.
        is_ignored: (B, N) bool, on an object that cannot be asked for: such cells count neither way.
    """

    is_on: Tensor
    owner: Tensor
    names: Tensor
    boxes: Tensor
    is_peak: Tensor
    is_ignored: Tensor

    def rows(self, index: Tensor) -> CellTruth:
        """Some of the frames."""
        return CellTruth(*(getattr(self, item.name)[index] for item in fields(self)))


def assign_cells(objects: FrameObjects, centers: Tensor) -> CellTruth:
    """Assign cells with the centres (N, 2) to objects; those of unknown names are ignored."""
    known = objects.is_usable & (objects.names >= 0)
    other = (objects.names != NOTHING) & ~known
    sides = objects.boxes[..., 2:] - objects.boxes[..., :2]
    own = _within(objects.boxes, centers, _OWN, _LEAST_CELLS) & known[:, None]
    areas = sides.prod(-1)[:, None].expand_as(own).masked_fill(~own, _NOBODY)
    smallest, owner = areas.min(-1)
    is_on = smallest < _NOBODY
    owner = owner.masked_fill(~is_on, 0)
    covered = (_within(objects.boxes, centers, _WHOLE, 0.0) & other[:, None]).any(-1)
    return CellTruth(
        is_on,
        owner,
        objects.names.gather(1, owner).clamp_min(0).masked_fill(~is_on, 0),
        objects.boxes.gather(1, owner[..., None].expand(-1, -1, 4)),
        (_within(objects.boxes, centers, _INNER, _LEAST_CELLS) & known[:, None]).any(-1),
        covered & ~is_on,
    )


def on_objects(objects: FrameObjects, index: Tensor, centers: Tensor) -> Tensor:
    """Whether the cells (B, K) with the centres (N, 2) lie in the middle of each object: (B, K, M) bool."""
    inside = _within(objects.boxes, centers, _POINTED, _LEAST_CELLS) & (objects.names != NOTHING)[:, None]
    return inside.gather(1, index[..., None].expand(-1, -1, inside.shape[-1]))


def _within(boxes: Tensor, centers: Tensor, part: float, least: float) -> Tensor:
    """Whether centres (N, 2) are within a part of the sides from the middles of boxes (B, M, 4): (B, N, M) bool.

    That part of a side counts as at least so many cells.
    """
    cells = len(centers) ** 0.5
    middles, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    off = (centers[None, :, None] - middles[:, None]).abs()
    return torch.as_tensor((off < (sides * part).clamp_min(least / cells)[:, None]).all(-1))
