"""Optimisers, learning rate schedules, and the running average of the weights.

Pretrained models are trained with AdamW. Models from scratch are trained with Muon for the matrices
inside transformer layers, where small networks reached the same loss in fewer steps than with AdamW.
Embeddings, norms, heads and vectors are not covered by Muon's theory and use AdamW.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elysium_core.errors import BackendError


def linear_factor(step: int, steps: int, *, warmup_steps: int, decay_from: float, final: float) -> float:
    """Return the learning rate as a share of the peak: linear warm-up, constant, linear decay.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the whole stage.
        warmup_steps: Steps of warm-up.
        decay_from: Share of the steps after which the rate falls, 0..1.
        final: Last rate as a share of the peak, 0..1.
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    progress = step / steps
    if progress <= decay_from:
        return warm
    left = (1 - progress) / max(1e-9, 1 - decay_from)
    return warm * (final + (1 - final) * left)


def cosine_factor(step: int, steps: int, *, warmup_share: float, final: float) -> float:
    """Return the learning rate as a share of the peak: linear warm-up, then half a cosine.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the whole stage.
        warmup_share: Share of the steps for warm-up, 0..1.
        final: Last rate as a share of the peak, 0..1.
    """
    warmup = math.ceil(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """Exponential moving average of a model's trained weights, in float32.

    Args:
        model: The model with whole (not sharded) initial weights.
        decay: Factor of the old average at each step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.weights: dict[str, Tensor] = {
            name: value.detach().float().clone() for name, value in model.named_parameters() if value.requires_grad
        }
        """Averages by name of the weight."""

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the averages with the weights of one step."""
        for name, value in model.named_parameters():
            if name in self.weights:
                average = self.weights[name] = self.weights[name].to(value.device)
                average.lerp_(value.float(), 1 - self._decay)

    def save(self, path: Path) -> None:
        """Write the averages as a safetensors file."""
        save_file({name: value.contiguous() for name, value in self.weights.items()}, path)

    def load(self, path: Path) -> None:
        """Read the file of :meth:`save`."""
        self.weights = load_file(path)


BETAS = (0.9, 0.98)


class TrainingOptimizer(Protocol):
    """Interface of an optimiser for the training loop."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        ...

    @property
    def shardable(self) -> torch.optim.Optimizer | None:
        """The optimiser that DeepSpeed or FSDP may wrap; None if it cannot be sharded."""
        ...

    def adopt(self, prepared: torch.optim.Optimizer) -> None:
        """Use the wrapped :attr:`shardable` from now on."""
        ...

    def set_factor(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its peak."""
        ...

    def step(self) -> None:
        """Update all parameters and clear their gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State to resume from."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...


def decay_matrices_only(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Divide parameter groups into those of matrices and those of vectors, which get no weight decay."""
    matrices = [{**g, "params": [p for p in g["params"] if p.ndim > 1]} for g in groups]
    vectors = [{**g, "params": [p for p in g["params"] if p.ndim <= 1], "weight_decay": 0.0} for g in groups]
    return [group for group in (*matrices, *vectors) if group["params"]]


class ScheduledAdamW:
    """AdamW with a schedule; the groups keep the ratio of their learning rates.

    Args:
        groups: Parameter groups, each ``{"params": [...], "lr": peak}``.
        weight_decay: Weight decay of matrices.
        betas: Betas of AdamW.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        used = decay_matrices_only(groups)
        self._optimizer: torch.optim.Optimizer = torch.optim.AdamW(used, betas=betas, weight_decay=weight_decay)
        self._peaks = [float(group["lr"]) for group in used]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    @property
    def shardable(self) -> torch.optim.Optimizer | None:
        """The optimiser itself, because AdamW updates each number independently."""
        return self._optimizer

    def adopt(self, prepared: torch.optim.Optimizer) -> None:
        """Use the wrapped optimiser from now on; its groups are in the same order."""
        self._optimizer = prepared

    def set_factor(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its peak."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def step(self) -> None:
        """Update all parameters and clear their gradients."""
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State to resume from."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._optimizer.load_state_dict(state)


class CombinedOptimizer:
    """Several optimisers behind one interface, each for other parameters; they cannot be sharded.

    Args:
        parts: The optimisers, with the peaks of their learning rates.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = list(parts)
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self._parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [p for part in self._parts for group in part.param_groups for p in group["params"]]

    @property
    def shardable(self) -> torch.optim.Optimizer | None:
        """None: these optimisers need whole matrices."""
        return None

    def adopt(self, prepared: torch.optim.Optimizer) -> None:
        """Raise an error, because these optimisers cannot be sharded.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"{type(self).__name__} cannot be replaced by {type(prepared).__name__}")

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


class MixedOptimizer(CombinedOptimizer):
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
        parts: list[torch.optim.Optimizer] = []
        if matrices and not hasattr(torch.optim, "Muon"):
            raise BackendError(f"training needs torch 2.9 or newer, which has Muon; this is {torch.__version__}")
        if matrices:
            # match_rms_adamw scales updates to AdamW's size, so one learning rate serves both.
            parts.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if others:
            parts.append(torch.optim.AdamW(others, betas=BETAS, weight_decay=weight_decay))
        super().__init__(parts)


def _is_inner_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and ".layers." in name
