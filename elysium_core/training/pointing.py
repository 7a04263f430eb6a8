"""Training-only heads that make the language model look at the object it is about to speak of.

Shapes: B rows, L tokens a row, D the LLM's width, T frames, K visual tokens a frame, P pointers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from elysium_core.training.losses import Mean


class PointingHeads(nn.Module):
    """Makes the language model look at the object it is about to speak of.

    Where a box opens, a hidden state must score that object's visual tokens in that
    frame above all other visual tokens; without this a small model answers with the
    box of any object. One pair of projections for each kind of place: a box answered to
    words is found in one hop of attention, a box answered to a box needs one more.

    Args:
        width: D.
        head_dim: Width of the comparison.
        layers: Decoder layers whose output points, for each kind of pointer.
    """

    def __init__(self, width: int, layers: Sequence[Sequence[int]], head_dim: int = 64) -> None:
        super().__init__()
        self.layers = [tuple(group) for group in layers]
        self.head_dim = head_dim
        pairs = {f"{kind}_{layer}" for kind, group in enumerate(self.layers) for layer in group}
        self.query = nn.ModuleDict({pair: nn.Linear(width, head_dim) for pair in sorted(pairs)})
        self.key = nn.ModuleDict({pair: nn.Linear(width, head_dim) for pair in sorted(pairs)})

    @property
    def collect(self) -> tuple[int, ...]:
        """All layers whose output is needed, ascending."""
        return tuple(sorted({layer for group in self.layers for layer in group}))

    def forward(
        self, hidden: dict[int, Tensor], pointers: Tensor, visual_index: Tensor, token_object: Tensor, frames: int
    ) -> tuple[Mean, Mean]:
        """Score all pointers.

        Args:
            hidden: Layer to its output (B, L, D).
            pointers: (P, 5) int64: row, place in it, object, frame, kind.
            visual_index: (T K,) positions of the visual tokens in the sequence.
            token_object: (B, T K), object under each visual token, -1 for background.
            frames: T.

        Returns:
            Over the pointers whose object is shown: the loss (-log of the mass on the
            object's tokens), and the share whose best token is on the object.
        """
        losses, hits = [], []
        per_frame = len(visual_index) // frames
        frame_of = torch.arange(len(visual_index), device=visual_index.device) // per_frame
        for kind, group in enumerate(self.layers):
            rows = pointers[pointers[:, 4] == kind]
            if not len(rows):
                continue
            clip, place, target, frame = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3]
            wanted = (token_object[clip] == target[:, None]) & (frame_of[None] == frame[:, None])
            shown = wanted.any(dim=1)
            for layer in group:
                pair = f"{kind}_{layer}"
                query = self.query[pair](hidden[layer][clip, place])
                key = self.key[pair](hidden[layer][:, visual_index])[clip]
                scores = (query[:, None] * key).sum(-1) * self.head_dim**-0.5
                log_mass = scores.log_softmax(-1).masked_fill(~wanted, -1e9).logsumexp(-1)
                losses.append(-log_mass[shown])
                hits.append(wanted.gather(1, scores.argmax(-1, keepdim=True))[shown, 0])
        if not losses:
            zero = token_object.new_zeros((), dtype=torch.float32)
            return Mean(zero, zero), Mean(zero, zero)
        scored, hit = torch.cat(losses), torch.cat(hits)
        count = scored.new_tensor(len(scored))
        return Mean(scored.sum(), count), Mean(hit.sum(), count)
