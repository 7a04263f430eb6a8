"""The optimiser: Muon for the matrices inside transformer layers, AdamW for everything else.

Orthogonalised updates (Muon) brought these small networks to the same loss in fewer steps
than AdamW. Embeddings, norms, heads and
vectors are outside its theory and stay with AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from elysium_core.errors import BackendError

BETAS = (0.9, 0.98)


class MixedOptimizer:
    """Muon and AdamW behind one interface.

    Args:
        groups: Parameter groups, each ``{"params": [(name, parameter), ...], "lr": peak}``.
        weight_decay: For both.

    Raises:
        BackendError: This torch is too old.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], weight_decay: float) -> None:
        matrices, others = [], []
        for group in groups:
            inner = [p for name, p in group["params"] if _is_inner_matrix(name, p)]
            outer = [p for name, p in group["params"] if not _is_inner_matrix(name, p)]
            matrices += [{"params": inner, "lr": group["lr"]}] if inner else []
            others += [{"params": outer, "lr": group["lr"]}] if outer else []
        self._parts: list[torch.optim.Optimizer] = []
        if matrices and not hasattr(torch.optim, "Muon"):
            raise BackendError(f"training needs torch 2.9 or newer, which has Muon; this is {torch.__version__}")
        if matrices:
            # match_rms_adamw scales updates to AdamW's size, so one learning rate serves both.
            self._parts.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, betas=BETAS, weight_decay=weight_decay))
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self._parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [p for part in self._parts for group in part.param_groups for p in group["params"]]

    def set_factor(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its peak."""
        for part, peaks in zip(self._parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def step(self) -> None:
        """Update all parameters and clear their gradients."""
        for part in self._parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State to resume from."""
        return {str(number): part.state_dict() for number, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        for number, part in enumerate(self._parts):
            part.load_state_dict(state[str(number)])


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and ".layers." in name
