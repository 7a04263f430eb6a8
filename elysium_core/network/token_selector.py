"""T-Selector: keep the K most useful of a frame's N visual tokens (paper, section 3.1).

Shapes: B frames, N tokens in, K tokens out, D the tokens' width.

The gate as published, per frame:

    z      = tokens @ w + b            (N,)   one number for each token, ``pre_proj``
    logits = z @ W + c                 (N,)   ``trans_weight`` (N, N), ``trans_bias`` (N,)
    scores = softmax(logits)
    kept   = the K highest scores, put back in ascending order of index

A hard choice gives the gate no gradient. ``straight_through`` does. Both compute the same tokens, in training and in
inference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GATES = ("hard", "straight_through")
"""How the gate is trained."""


class GateTraining(nn.Module):
    """What all T-Selectors share: how many tokens are kept, and how the gate is trained.

    Args:
        in_token_num: N.
        out_token_num: K, 1..N; the paper's alpha is K / N.
        gate: ``hard``: no gradient to the gate (as published).
            ``straight_through``: kept tokens are multiplied by 1 + (g - detach(g)) with g the
            logit, so the value is unchanged and the gradient flows.

    Raises:
        ValueError: ``out_token_num`` is out of range, or ``gate`` is unknown.
    """

    def __init__(self, in_token_num: int, out_token_num: int, gate: str = "hard") -> None:
        super().__init__()
        if not 1 <= out_token_num <= in_token_num:
            raise ValueError(f"out_token_num = {out_token_num} is not in 1..{in_token_num}")
        self.out_token_num = out_token_num
        self._gate = _known_gate(gate)

    @property
    def gate(self) -> str:
        """How the gate is trained: one of :data:`GATES`."""
        return self._gate

    def learn_by(self, gate: str) -> None:
        """Choose how the gate is trained. The output of the selector does not depend on it.

        Raises:
            ValueError: ``gate`` is unknown.
        """
        self._gate = _known_gate(gate)

    def keep(self, tokens: Tensor, logits: Tensor, index: Tensor) -> Tensor:
        """The kept tokens (B, K, D) of (B, N, D), with the gate's gradient where it is trained by it."""
        kept = gather_tokens(tokens, index)
        if self.training and self._gate == "straight_through":
            chosen = logits.gather(1, index)
            factor = 1 + (chosen - chosen.detach())  # in this order it is exactly 1 in any precision
            kept = kept * factor[..., None].to(kept.dtype)
        return kept


class TokenSelector(GateTraining):
    """The published gate, with a choice of gradients.

    Args:
        in_token_num: N.
        out_token_num: K, 1..N.
        num_features: D.
        gate: See :class:`GateTraining`.

    Raises:
        ValueError: ``out_token_num`` is out of range, or ``gate`` is unknown.
    """

    def __init__(self, in_token_num: int, out_token_num: int, num_features: int, gate: str = "hard") -> None:
        super().__init__(in_token_num, out_token_num, gate)
        self.pre_proj = nn.Linear(num_features, 1)
        # At first every token is scored by itself. (With zeros, as in the published code, the bias
        # alone would choose the patches, the same ones in every picture.)
        self.trans_weight = nn.Parameter(torch.eye(in_token_num))
        self.trans_bias = nn.Parameter(torch.zeros(in_token_num))
        # Not used, but part of the published state dict.
        self.score_proj = nn.Linear(in_token_num, out_token_num)

    def logits(self, tokens: Tensor) -> Tensor:
        """Gate logits (B, N) of tokens (B, N, D), in the weights' dtype."""
        return self.pre_proj(tokens).squeeze(-1) @ self.trans_weight + self.trans_bias

    def select(self, logits: Tensor) -> Tensor:
        """Kept indices (B, K) int64, ascending, of logits (B, N)."""
        # Half precision has too few digits for hundreds of scores near 1/N: many would tie.
        scores = torch.softmax(logits.float(), dim=-1)
        return scores.topk(self.out_token_num, dim=-1).indices.sort(dim=-1).values

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select.

        Args:
            tokens: (B, N, D).

        Returns:
            Kept tokens (B, K, D), their indices (B, K) ascending, all logits (B, N).
        """
        logits = self.logits(tokens)
        kept_index = self.select(logits)
        return self.keep(tokens, logits, kept_index), kept_index, logits


def best_tokens(logits: Tensor, count: int) -> Tensor:
    """Indices (B, count) int64, ascending, of the highest logits (B, N)."""
    return logits.float().topk(count, dim=-1).indices.sort(dim=-1).values


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens (B, K, D) at the places (B, K) int64 among tokens (B, N, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def _known_gate(gate: str) -> str:
    if gate not in GATES:
        raise ValueError(f"gate {gate!r} is not one of {', '.join(GATES)}")
    return gate
