"""The losses of following: where the gate looks, the sides that cells read, the box as text, pointing.

Shapes: B pairs, N live cells, K1 and K2 kept tokens of anchor and live crop, D the LLM's width, P predicted tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from elysium_core.network.conv_layers import cell_centers
from elysium_core.network.llama import Llama
from elysium_core.prompt.box_text import LEVELS
from elysium_core.training.losses import Losses, Mean, place_visual_tokens
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.box_measures import cell_distance, overlaps
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.marked_rows import MarkedRows, numbers_of

# On the scale of cell_distance: cells that must be found, those that count neither way, those that are on the object.
_FOUND, _NEAR, _ON = 0.3, 1.0, 0.6
_POSITIVE_WEIGHT, _NEGATIVE_WEIGHT = 0.75, 0.5
_SIDES_WEIGHT = 2.0
_LEAST_WEIGHT = 1e-8
_ON_WEIGHT, _OFF_WEIGHT = 4.0, 0.5


def distances(boxes: Tensor, cells: int) -> Tensor:
    """:func:`cell_distance` (B, cells * cells) of boxes (B, 4) in a crop."""
    return cell_distance(boxes, cell_centers(cells, boxes.device), 1 / cells)


def on_object(boxes: Tensor, is_present: Tensor, index: Tensor, cells: int) -> Tensor:
    """Whether the cells (B, K) lie on the object: (B, K) bool; nowhere if it is absent."""
    return (distances(boxes, cells).gather(1, index) < _ON) & is_present[:, None]


def selector_losses(gate: Tensor, boxes: Tensor, live_box: Tensor, is_present: Tensor, cells: int) -> Losses:
    """Losses of the selector's two heads.

    Args:
        gate: (B, N) logits.
        boxes: (B, N, 4) that cells read.
        live_box: (B, 4), the truth.
        is_present: (B,) bool.
        cells: Cells a side.

    Returns:
        ``gate`` (focal loss for each cell that must be found), ``sides`` (1 - GIoU over these cells); without gradient
        ``head_iou`` and ``head_hit``: IoU of the box of the best cell, and whether that cell is on the object, over the
        pairs that show the object.
    """
    near = distances(live_box, cells)
    positive = (near < _FOUND) & is_present[:, None]
    ignored = (near < _NEAR) & ~positive & is_present[:, None]
    chance = gate.sigmoid()
    weight = torch.where(positive, (1 - chance) ** 2 * _POSITIVE_WEIGHT, chance**2 * _NEGATIVE_WEIGHT)
    focal = F.binary_cross_entropy_with_logits(gate, positive.float(), reduction="none") * weight
    count = positive.sum().clamp_min(1)
    iou, giou = overlaps(boxes, live_box[:, None].expand_as(boxes))
    best = gate.argmax(-1, keepdim=True)
    present = is_present.float()
    return {
        "gate": Mean((focal * ~ignored).sum(), count),
        "sides": Mean(((1 - giou) * positive).sum(), count),
        "head_iou": Mean((iou.detach().gather(1, best)[:, 0] * present).sum(), present.sum()),
        "head_hit": Mean(((near.gather(1, best)[:, 0] < _NEAR) * present).sum(), present.sum()),
    }


def selector_total(losses: Losses) -> Tensor:
    """What is minimised of :func:`selector_losses`."""
    return losses["gate"].value + _SIDES_WEIGHT * losses["sides"].value


def distil_losses(tokens: Tensor, wanted: Tensor, on: Tensor, is_present: Tensor) -> Losses:
    """How far tokens are from those that the language model has learnt to read, as a share of the latter's variance.

    Args:
        tokens: (B, K2, D).
        wanted: (B, K2, D), without gradient.
        on: (B, K2) bool, tokens on the object.
        is_present: (B,) bool.

    Returns:
        ``distil_on`` over tokens on the object, ``distil_off`` over the others.
    """
    error = (tokens - wanted).square().mean(-1) / wanted.var().clamp_min(_LEAST_WEIGHT)
    on = on & is_present[:, None]
    return {
        "distil_on": Mean((error * on).sum(), on.sum()),
        "distil_off": Mean((error * ~on).sum(), (~on).sum()),
    }


def distil_total(losses: Losses) -> Tensor:
    """What is minimised of :func:`distil_losses`."""
    return _ON_WEIGHT * losses["distil_on"].value + _OFF_WEIGHT * losses["distil_off"].value


class AnswerLosses:
    """The losses of the language model.

    Args:
        prompts: Writes prompts and answers.
        pointing: Training-only heads.
    """

    def __init__(self, prompts: FollowPrompts, pointing: PointingHeads) -> None:
        self.prompts, self._pointing = prompts, pointing

    def __call__(
        self, llm: Llama, visual: Tensor, on: Tensor, anchor_box: Tensor, live_box: Tensor, is_present: Tensor
    ) -> Losses:
        """Compare what the model would write with the truth.

        Where the object is absent, no number is likelier than another: what cannot be known lowers the score.

        Args:
            llm: The decoder.
            visual: (B, K1 + K2, D), tokens of anchor and live crop.
            on: (B, K2) bool, tokens of the live crop on the object.
            anchor_box: (B, 4), the given box in the anchor crop.
            live_box: (B, 4), the true box in the live crop; not used where it is absent.
            is_present: (B,) bool.

        Returns:
            ``answer``; ``digit_accuracy`` where the object is present; ``pointing``, ``pointing_accuracy``.
        """
        shown = numbers_of(live_box)
        anything = torch.randint(LEVELS + 1, shown.shape, device=shown.device)
        numbers = torch.where(is_present[:, None], shown, anything)
        rows = self.prompts.rows(numbers_of(anchor_box), numbers).to(visual.device)
        positions = torch.arange(rows.token_ids.shape[1], device=visual.device)[None]
        embedded = place_visual_tokens(llm, rows.token_ids, visual)
        hidden, collected = llm(embedded, positions, collect=self._pointing.collect)
        logits = llm.logits(hidden[rows.row, rows.place])
        losses = self._written(logits, rows, live_box, is_present)
        return losses | self._pointed(dict(zip(self._pointing.collect, collected, strict=True)), rows, on)

    def _written(self, logits: Tensor, rows: MarkedRows, live_box: Tensor, is_present: Tensor) -> Losses:
        wanted = self.prompts.marker.wanted(rows, live_box, is_present, logits.shape[-1])
        losses = -(wanted * logits.log_softmax(-1)).sum(-1)
        counted = rows.in_number & is_present[rows.answer]
        hits = (logits.detach().argmax(-1) == rows.label) & counted
        return {
            "answer": Mean(losses.sum(), losses.new_tensor(float(len(losses)))),
            "digit_accuracy": Mean(hits.sum(), counted.sum()),
        }

    def _pointed(self, hidden: dict[int, Tensor], rows: MarkedRows, on: Tensor) -> Losses:
        """Where the answered box opens, its row must look at tokens on the object: one pointer of kind 0 a row."""
        pointers = torch.zeros(len(on), 5, dtype=torch.int64, device=on.device)
        pointers[:, 0], pointers[:, 1] = torch.arange(len(on), device=on.device), rows.opening
        owners = torch.where(on, 0, -1)
        pointed, right = self._pointing(hidden, pointers, self.prompts.live_places.to(on.device), owners, frames=1)
        return {"pointing": pointed, "pointing_accuracy": right}
