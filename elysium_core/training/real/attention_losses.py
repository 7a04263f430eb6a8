"""Losses on where single attention heads look, for what a small decoder does not find by itself.

Shapes: B rows, L tokens a row, D the decoder's width, Q places whose attention is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from elysium_core.network.llama import DecoderLayer, Llama, rotate

_HIDDEN_FROM = -1e9


def attention_loss(
    llm: Llama,
    layer: int,
    hidden: Tensor,
    positions: Tensor,
    mask: Tensor,
    looks: tuple[Tensor, Tensor],
    wanted: Tensor,
    heads: Sequence[int],
) -> Tensor:
    """-log of the attention that some heads pay to wanted tokens.

    Args:
        llm: The decoder; it has as many key heads as query heads.
        layer: Number of the layer, the first is 0.
        hidden: (B, L, D), the layer's input.
        positions: (B, L) int64.
        mask: (B, 1, L, L) bool, True = may attend.
        looks: Rows and places (Q,) whose attention is looked at.
        wanted: (Q, L) bool.
        heads: Numbers of the heads.

    Returns:
        (heads, Q).
    """
    block = llm.model.layers[layer]
    if not isinstance(block, DecoderLayer):
        raise TypeError(f"layer {layer} is a {type(block).__name__}")
    attention, normed = block.self_attn, block.input_layernorm(hidden)
    cos, sin = llm.rotary(positions, hidden.dtype)
    rows, places = looks
    width, visible = attention.head_dim, mask[:, 0][rows, places]
    shape = (*normed.shape[:2], attention.heads, width)
    queries, keys = (
        projection(normed).view(shape).transpose(1, 2) for projection in (attention.q_proj, attention.k_proj)
    )
    queries, keys = rotate(queries, keys, cos, sin)
    found = []
    for head in heads:
        query, key = queries[:, head][rows, places], keys[:, head][rows]
        scores = torch.einsum("qd,qld->ql", query, key) * width**-0.5
        shares = scores.masked_fill(~visible, _HIDDEN_FROM).log_softmax(-1)
        found.append(-shares.masked_fill(~wanted, _HIDDEN_FROM).logsumexp(-1))
    return torch.stack(found)
