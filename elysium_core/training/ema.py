"""A running average of the weights: what is exported is smoother than the last step."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's trained weights, in float32.

    Args:
        model: The model, whole, first weights loaded.
        decay: Share of the old average that stays at each step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.weights: dict[str, Tensor] = {
            name: value.detach().float().clone() for name, value in model.named_parameters() if value.requires_grad
        }
        """The averages by the names of the weights."""

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of one more step."""
        for name, value in model.named_parameters():
            if name in self.weights:
                average = self.weights[name] = self.weights[name].to(value.device)
                average.lerp_(value.float(), 1 - self._decay)

    def save(self, path: Path) -> None:
        """Write the averages as safetensors."""
        save_file({name: value.contiguous() for name, value in self.weights.items()}, path)

    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote."""
        self.weights = load_file(path)
