"""Losses of the language model on packed batches. Shapes as in :mod:`elysium_core.training.nano.clip_batches`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from elysium_core.network.llama import Llama
from elysium_core.prompt.layout import VISUAL_SLOT
from elysium_core.training.nano.auxiliary import PointingHeads
from elysium_core.training.nano.clip_batches import Batch


def branch_mask(branch: Tensor) -> Tensor:
    """Who may attend to whom: a token to the frames before it and to its own branch before it.

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
    """Embeddings (B, L, D) of token ids (B, L) with visual tokens (..., D) in their slots, in order."""
    slots = token_ids == VISUAL_SLOT
    embedded = llm.embed(token_ids.clamp(min=0))
    return embedded.masked_scatter(slots[..., None], visual.to(embedded.dtype))


def language_losses(
    llm: Llama, pointing: PointingHeads, batch: Batch, visual: Tensor, token_object: Tensor
) -> dict[str, Tensor]:
    """Answer loss and pointing loss.

    Args:
        llm: The decoder.
        pointing: Training-only heads.
        batch: The batch.
        visual: (B, T K, D).
        token_object: (B, T K), object under each visual token, -1 for background.

    Returns:
        ``answer`` (weighted cross-entropy on answer tokens), ``pointing``, and the
        measures ``digit_loss``, ``digit_accuracy``, ``pointing_accuracy``.
    """
    hidden, collected = llm(
        place_visual_tokens(llm, batch.token_ids, visual),
        batch.positions,
        branch_mask(batch.branch),
        collect=pointing.collect,
    )
    # An answer's first token is predicted by the question's last: its neighbour in memory.
    labelled = batch.label_weight[:, 1:] > 0
    logits = llm.logits(hidden[:, :-1][labelled])
    labels = batch.token_ids[:, 1:][labelled]
    weights = batch.label_weight[:, 1:][labelled]
    losses = F.cross_entropy(logits, labels, reduction="none")
    digit = batch.is_digit[:, 1:][labelled]
    visual_index = torch.nonzero(batch.token_ids[0] == VISUAL_SLOT)[:, 0]
    pointed, pointed_right = pointing(
        dict(zip(pointing.collect, collected, strict=True)), batch.pointers, visual_index, token_object, batch.frames
    )
    hits = (logits.argmax(-1) == labels).float()
    count = digit.sum().clamp(min=1)
    return {
        "answer": (losses * weights).sum() / weights.sum(),
        "pointing": pointed,
        "digit_loss": (losses.detach() * digit).sum() / count,
        "digit_accuracy": (hits * digit).sum() / count,
        "word_loss": (losses.detach() * ~digit * (weights == 1)).sum() / (~digit & (weights == 1)).sum().clamp(min=1),
        "pointing_accuracy": pointed_right,
    }
