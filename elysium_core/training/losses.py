"""The loss on answers, and weighted means that stay exact when batches are summed.

Shapes: B rows, L tokens per row, D width of the LLM, V its vocabulary, M answer tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from elysium_core.network.llama import Llama
from elysium_core.prompt.layout import VISUAL_SLOT

_SMALLEST_WEIGHT = 1e-6


class Mean(NamedTuple):
    """A mean, stored as sum and weight. Summed over batches, they give the mean over all batches.

    Attributes:
        total: Sum of the values, each times its weight; a scalar tensor.
        weight: Sum of the weights; 0 if there are no values.
    """

    total: Tensor
    weight: Tensor

    @property
    def value(self) -> Tensor:
        """The mean; 0 if there are no values."""
        return self.total / self.weight.clamp(min=_SMALLEST_WEIGHT)


Losses = dict[str, Mean]
"""Losses and metrics of a batch by name; ``total`` is minimised."""

Sums = dict[str, tuple[float, float]]
"""Losses and metrics as numbers: total and weight by name."""


def batch_mean(value: Tensor) -> Mean:
    """Return a mean of one value with weight 1."""
    return Mean(value, torch.ones_like(value, dtype=torch.float32))


def detached(losses: Losses) -> Losses:
    """The same without gradient."""
    return {name: Mean(mean.total.detach(), mean.weight.detach()) for name, mean in losses.items()}


def add_up(batches: Iterable[Losses]) -> Sums:
    """Return the sums over batches, which all have the same names."""
    names: list[str] = []
    sums = torch.zeros(())
    for losses in batches:
        names = list(losses)
        stacked = torch.stack([part.double() for mean in losses.values() for part in mean])
        sums = sums + stacked.cpu()
    pairs = sums.reshape(-1, 2).tolist() if names else []
    return {name: (total, weight) for name, (total, weight) in zip(names, pairs, strict=True)}


def decayed(before: Sums, new: Sums, memory: float) -> Sums:
    """Update running sums: old values get the factor ``memory``, new values the factor ``1 - memory``."""
    return {
        name: (
            memory * before.get(name, (total, weight))[0] + (1 - memory) * total,
            memory * before.get(name, (total, weight))[1] + (1 - memory) * weight,
        )
        for name, (total, weight) in new.items()
    }


def means(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the mean of each sum; names without values are left out."""
    return {name: total / weight for name, (total, weight) in sums.items() if weight > 0}


def answer_losses(logits: Tensor, labels: Tensor, weights: Tensor, is_digit: Tensor) -> Losses:
    """Return the loss on answers, and metrics of their digits and text.

    Args:
        logits: (M, V) at the token before each answer token.
        labels: (M,) int64, the answer tokens.
        weights: (M,) above 0.
        is_digit: (M,) bool, whether the token is a digit of a box.

    Returns:
        ``answer``: weighted cross-entropy over all answer tokens. Without gradient: ``digit_loss`` and
        ``digit_accuracy`` over the digits of boxes, ``text_loss`` (weighted) over all other tokens.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    measured = losses.detach()
    hits = (logits.detach().argmax(-1) == labels) & is_digit
    text = weights * ~is_digit
    digits = is_digit.sum()
    return {
        "answer": Mean((losses * weights).sum(), weights.sum()),
        "digit_loss": Mean((measured * is_digit).sum(), digits),
        "digit_accuracy": Mean(hits.sum(), digits),
        "text_loss": Mean((measured * text).sum(), text.sum()),
    }


class AnsweredRows(Protocol):
    """The tokens of a batch with questions and answers; see :func:`elysium_core.prompt.layout.row_tensors`."""

    token_ids: Tensor
    positions: Tensor
    branch: Tensor
    label_weight: Tensor
    is_digit: Tensor


def losses_of_rows(
    llm: Llama, rows: AnsweredRows, visual: Tensor, collect: tuple[int, ...] = ()
) -> tuple[Losses, list[Tensor]]:
    """Run the decoder on rows of tokens and return the loss on their answers.

    Args:
        llm: The decoder.
        rows: Questions and answers.
        visual: Visual tokens (..., D), in the order of their slots.
        collect: Decoder layers whose output is returned, ascending.

    Returns:
        See :func:`answer_losses`; and the output (B, L, D) of each layer in ``collect``.
    """
    embedded = place_visual_tokens(llm, rows.token_ids, visual)
    # With only one branch, plain causal attention gives the same result and is faster; padding is at the end.
    mask = branch_mask(rows.branch) if bool((rows.branch > 1).any()) else None
    hidden, collected = llm(embedded, rows.positions, mask, collect=collect)
    # The last token of the question predicts the first of the answer; they are neighbours in the row.
    labelled = rows.label_weight[:, 1:] > 0
    losses = answer_losses(
        llm.logits(hidden[:, :-1][labelled]),
        rows.token_ids[:, 1:][labelled],
        rows.label_weight[:, 1:][labelled].float(),
        rows.is_digit[:, 1:][labelled],
    )
    return losses, list(collected)


def branch_mask(branch: Tensor) -> Tensor:
    """Return the attention mask: a token attends to earlier frames and to earlier tokens of its branch.

    Args:
        branch: (B, L); 0 the frames, 1.. questions, -1 padding.

    Returns:
        (B, 1, L, L) bool.
    """
    length = branch.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    row, column = branch[:, :, None], branch[:, None, :]
    allowed = ((column == 0) | (column == row)) & causal
    return allowed[:, None]


def place_visual_tokens(llm: Llama, token_ids: Tensor, visual: Tensor) -> Tensor:
    """Return embeddings (B, L, D) of token ids (B, L) with visual tokens (..., D) in their slots, in order."""
    slots = token_ids == VISUAL_SLOT
    embedded = llm.embed(token_ids.clamp(min=0))
    return embedded.masked_scatter(slots[..., None], visual.to(embedded.dtype))
