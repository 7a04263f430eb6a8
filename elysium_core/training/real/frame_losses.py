"""The losses of words in whole frames: what cells see, and what the language model answers.

Shapes: B frames, N cells, K kept tokens, V known names, M objects, A answers, D the LLM's width, L tokens a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.families.name_evidence import name_logits
from elysium_core.network.conv_layers import cell_centers
from elysium_core.network.llama import Llama
from elysium_core.training.losses import Losses, Mean, branch_mask, place_visual_tokens
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.attention_losses import attention_loss
from elysium_core.training.real.box_measures import overlaps
from elysium_core.training.real.frame_features import FrameObjects
from elysium_core.training.real.frame_prompts import FIND, NAME, FramePrompts, FrameRows
from elysium_core.training.real.frame_questions import FrameQuestion
from elysium_core.training.real.frame_truth import CellTruth, on_objects

_POSITIVE_WEIGHT, _NEGATIVE_WEIGHT = 0.75, 0.5
_FIRST_GATE, _FIRST_NAME, _FIRST_SIDE = -3.0, -4.5, 1.0
# Only the first digit has to know which object is meant: behind it, the digits already written give it away.
_FIRST_DIGIT_WEIGHT = 3.0
# Unweighted, the norms of these losses' gradients in the decoder differ by a factor of 20.
_NUMBER_WEIGHT, _FORM_WEIGHT = 4.0, 0.3
_FETCH_WEIGHT, _LOOK_WEIGHT, _POINT_WEIGHT = 0.3, 0.6, 0.5
_BOX_WEIGHT, _DISTANCE_WEIGHT = 0.3, 2.0
# Heads that are taught: in the first layer to fetch the asked name, in the next two to look at the object.
_FETCHING: tuple[int, ...] = (1, 3)
_LOOKING: dict[int, tuple[int, ...]] = {1: (0, 2, 3), 2: (0, 3)}
_BOX_LAYER = 3


class FrameHeads(nn.Module):
    """Training-only heads that read the selector's tokens: names, and the sides of the object's box.

    Args:
        width: Of the selector's tokens.
        names: V.
    """

    def __init__(self, width: int, names: int) -> None:
        super().__init__()
        self.name, self.sides = nn.Linear(width, names), nn.Linear(width, 4)
        nn.init.constant_(self.name.bias, _FIRST_NAME)
        nn.init.constant_(self.sides.bias, _FIRST_SIDE)

    def forward(self, tokens: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Logits of names (B, N, V) and boxes (B, N, 4) that tokens (B, N, width) of all cells tell."""
        sides = F.softplus(self.sides(tokens)) / cells
        centers = cell_centers(cells, tokens.device)
        return self.name(tokens), torch.cat([centers - sides[..., :2], centers + sides[..., 2:]], -1)


def cell_losses(gate: Tensor, names: Tensor, boxes: Tensor, truth: CellTruth) -> Losses:
    """Losses of the gate and of :class:`FrameHeads`.

    An object of n cells counts as much as the square root of n objects of one cell: large ones do not drown small ones.

    Args:
        gate: (B, N) logits.
        names: (B, N, V) logits.
        boxes: (B, N, 4).
        truth: Of the cells.

    Returns:
        ``cell_gate``, ``cell_name`` (focal losses), ``cell_box`` (1 - GIoU); without gradient ``cell_iou`` and
        ``cell_named``, the share of cells on objects that name them.
    """
    on = truth.is_on.float()
    count = torch.zeros_like(on).scatter_add_(1, truth.owner, on).gather(1, truth.owner).clamp_min(1)
    weight = on / count.sqrt()
    total, counted = weight.sum().clamp_min(1), ~truth.is_ignored
    wanted = F.one_hot(truth.names, names.shape[-1]) * on[..., None]
    each = torch.where(truth.is_on, weight, torch.ones_like(weight)) * counted
    peak = truth.is_peak.float()
    gated = counted & ~(truth.is_on & ~truth.is_peak)
    iou, giou = overlaps(boxes, truth.boxes)
    right = (names.argmax(-1) == truth.names) & truth.is_on
    return {
        "cell_gate": Mean((_focal(gate, peak) * gated).sum(), peak.sum().clamp_min(1)),
        "cell_name": Mean((_focal(names, wanted).sum(-1) * each).sum(), total),
        "cell_box": Mean(((1 - giou) * weight).sum(), total),
        "cell_iou": Mean((iou.detach() * on).sum(), on.sum()),
        "cell_named": Mean(right.sum(), on.sum()),
    }


def cell_total(losses: Losses) -> Tensor:
    """What is minimised of :func:`cell_losses`."""
    return losses["cell_gate"].value + 1.5 * (losses["cell_name"].value + losses["cell_box"].value)


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    chance = logits.sigmoid()
    weight = torch.where(wanted > 0, (1 - chance) ** 2 * _POSITIVE_WEIGHT, chance**2 * _NEGATIVE_WEIGHT)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight


class WordHeads(nn.Module):
    """Training-only heads of the language model: they point at the object, and tell its box.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pointing = PointingHeads(width, layers=((1, 2), (1, 2)))
        self.box = nn.Linear(width, 4)

    @property
    def collect(self) -> tuple[int, ...]:
        """Layers whose output is needed."""
        return tuple(sorted({*self.pointing.collect, *_LOOKING, _BOX_LAYER}))


@dataclass(slots=True)
class _Pass:
    """A pass of the decoder."""

    rows: FrameRows
    embedded: Tensor
    hidden: Tensor
    inner: dict[int, Tensor]
    mask: Tensor
    on: Tensor


@dataclass(frozen=True, slots=True)
class WordWeights:
    """Weights of single losses of the language model.

    Attributes:
        name: Of the names that it writes.
        readout: Of how near tokens on objects lie to the words for them.
    """

    name: float = 0.06
    readout: float = 0.1


class WordLosses:
    """The losses of the language model on questions about frames.

    Args:
        prompts: Writes questions and answers.
        heads: Training-only heads.
        weights: Weights of single losses.
    """

    def __init__(self, prompts: FramePrompts, heads: WordHeads, weights: WordWeights) -> None:
        self.prompts, self._heads, self._weights = prompts, heads, weights

    def __call__(
        self,
        llm: Llama,
        visual: Tensor,
        index: Tensor,
        cells: int,
        objects: FrameObjects,
        asked: Sequence[Sequence[FrameQuestion]],
        truth: CellTruth,
    ) -> Losses:
        """Compare what the model would write with the truth.

        Args:
            llm: The decoder.
            visual: (B, K, D).
            index: (B, K) int64, cells of the visual tokens.
            cells: Cells a side.
            objects: The truth.
            asked: Questions about each frame.
            truth: Of the cells.

        Returns:
            ``word_total``, which is minimised; and its parts without gradient.
        """
        rows = self.prompts.rows(asked, objects.boxes.cpu()).to(visual.device)
        mask, embedded = branch_mask(rows.branch), place_visual_tokens(llm, rows.marked.token_ids, visual)
        collect = self._heads.collect
        hidden, inner = llm(embedded, rows.positions, mask, collect=collect)
        on = on_objects(objects, index, cell_centers(cells, visual.device))
        seen = _Pass(rows, embedded, hidden, dict(zip(collect, inner, strict=True)), mask, on)
        readout, readout_total = self.readout(llm, visual, index, truth)
        parts = [
            self._numbers(llm, seen, objects),
            self._looks(llm, seen),
            self._points(seen),
            (readout, self._weights.readout * readout_total),
        ]
        losses = {name: loss for part, _ in parts for name, loss in part.items()}
        total = torch.stack([total for _, total in parts]).sum()
        return {"word_total": Mean(total, torch.ones_like(total)), **losses}

    def _numbers(self, llm: Llama, seen: _Pass, objects: FrameObjects) -> tuple[Losses, Tensor]:
        """Numbers of boxes, names, and the form around them."""
        rows, marked = seen.rows, seen.rows.marked
        present = rows.target >= 0
        boxes = objects.boxes[rows.row, rows.target.clamp_min(0)]
        logits = llm.logits(seen.hidden[marked.row, marked.place])
        wanted = self.prompts.marker.wanted(marked, boxes, present, logits.shape[-1])
        each = -(wanted * logits.log_softmax(-1)).sum(-1)
        number, there = marked.in_number, present[marked.answer]
        first = number & (marked.coordinate == 0) & (marked.state == 0)
        weight = torch.where(first, _FIRST_DIGIT_WEIGHT, 1.0) * number
        to_name = rows.kind[marked.answer] == NAME
        form = ~number & ~to_name
        named = _mean(each, to_name)
        hits = logits.detach().argmax(-1) == marked.label
        told = torch.sigmoid(self._heads.box(seen.inner[_BOX_LAYER][marked.row, marked.place]))
        iou, giou = overlaps(told, boxes[marked.answer])
        distance = (told - boxes[marked.answer]).abs().mean(-1)
        shown = number & there
        total = _NUMBER_WEIGHT * (each * weight).sum() / weight.sum().clamp_min(1)
        total = total + _FORM_WEIGHT * _mean(each, form).value + self._weights.name * named.value
        total = total + _BOX_WEIGHT * _mean(1 - giou, shown).value + _DISTANCE_WEIGHT * _mean(distance, shown).value
        losses = {
            "word_there": _mean(each, shown),
            "word_first": _mean(each, first & there),
            "word_absent": _mean(each, number & ~there),
            "word_name": named,
            "word_name_accuracy": _mean(hits.float(), to_name),
            "word_box": _mean(iou, shown),
        }
        return {name: Mean(loss.total.detach(), loss.weight) for name, loss in losses.items()}, total

    def _looks(self, llm: Llama, seen: _Pass) -> tuple[Losses, Tensor]:
        """Attention on the asked name, and on the object."""
        rows, marked = seen.rows, seen.rows.marked
        starts = marked.in_number & (marked.state == 0)
        find = starts & (rows.kind[marked.answer] == FIND)
        answer, looks = marked.answer[find], (marked.row[find], marked.place[find])
        length = seen.mask.shape[-1]
        wanted = F.one_hot(rows.name_place[answer], length).bool()
        fetched = attention_loss(llm, 0, seen.embedded, rows.positions, seen.mask, looks, wanted, _FETCHING)
        answers, places = self._pointers(rows)
        on = self._tokens_on(seen, answers, length)
        some = on.any(-1)
        looks, on = (rows.row[answers][some], places[some]), on[some]
        looked = torch.cat(
            [
                attention_loss(llm, layer, seen.inner[layer], rows.positions, seen.mask, looks, on, heads).flatten()
                for layer, heads in _LOOKING.items()
            ]
        )
        # In a batch of few frames, no kept token may lie on an asked object.
        total = _FETCH_WEIGHT * _mean_of(fetched).value + _LOOK_WEIGHT * _mean_of(looked).value
        return {
            "word_fetch": _mean_of((-fetched.detach()).exp()),
            "word_look": _mean_of((-looked.detach()).exp()),
        }, total

    def _points(self, seen: _Pass) -> tuple[Losses, Tensor]:
        """The hidden state where an answer begins points at its object."""
        rows = seen.rows
        answers, places = self._pointers(rows)
        # Of the answers, each has its own object; a token is on it or not. So each answer counts as a row of its own.
        inner = {layer: hidden[rows.row[answers]] for layer, hidden in seen.inner.items()}
        pointers = torch.zeros(len(answers), 5, dtype=torch.int64, device=places.device)
        pointers[:, 0], pointers[:, 1] = torch.arange(len(answers), device=places.device), places
        pointers[:, 4] = rows.kind[answers]
        on = seen.on[rows.row[answers]].gather(2, self._targets(rows, answers, seen.on.shape[1]))[..., 0]
        owners = torch.where(on, 0, -1)
        visual = self.prompts.visual_places.to(places.device)
        pointed, right = self._heads.pointing(inner, pointers, visual, owners, frames=1)
        return {"word_pointing_accuracy": right}, _POINT_WEIGHT * pointed.value

    @staticmethod
    def _pointers(rows: FrameRows) -> tuple[Tensor, Tensor]:
        """Answers about objects that are shown, and the places where each begins to speak of its object."""
        answers = (rows.target >= 0).nonzero()[:, 0]
        marked = rows.marked
        first = torch.full_like(rows.row, marked.token_ids.shape[1])
        first = first.scatter_reduce(0, marked.answer, marked.place, "amin")
        places = torch.where(rows.kind == FIND, marked.opening, first)
        return answers, places[answers]

    @staticmethod
    def _targets(rows: FrameRows, answers: Tensor, kept: int) -> Tensor:
        return rows.target[answers][:, None, None].expand(-1, kept, 1)

    def _tokens_on(self, seen: _Pass, answers: Tensor, length: int) -> Tensor:
        """(answers, L) bool, the visual tokens on each answer's object."""
        rows = seen.rows
        on = seen.on[rows.row[answers]].gather(2, self._targets(rows, answers, seen.on.shape[1]))[..., 0]
        found = torch.zeros(len(answers), length, dtype=torch.bool, device=on.device)
        found[:, self.prompts.visual_places.to(on.device)] = on
        return found

    def readout(self, llm: Llama, visual: Tensor, index: Tensor, truth: CellTruth) -> tuple[Losses, Tensor]:
        """A visual token on an object lies near the word for it: the share of which this is true, and the loss."""
        on = truth.is_on.gather(1, index)
        names = truth.names.gather(1, index)[on]
        words = llm.embed(self.prompts.name_ids.to(visual.device))
        near = name_logits(visual[on], words)
        each = F.cross_entropy(near, names, reduction="none")
        right = Mean((near.argmax(-1) == names).sum(), on.sum())
        return {"word_readout": right}, each.sum() / on.sum().clamp_min(1)


def _mean_of(values: Tensor) -> Mean:
    return Mean(values.sum(), values.new_tensor(float(values.numel())))


def _mean(values: Tensor, chosen: Tensor) -> Mean:
    weight = chosen.to(values.dtype)
    return Mean((values * weight).sum(), weight.sum())
