"""Convolutions with a batch norm, for selectors that are trained from scratch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """A batch norm whose state is floating point only, so that it is stored like all weights.

    Args:
        channels: C.
    """

    running_mean: Tensor
    running_var: Tensor
    _EPSILON, _MOMENTUM = 1e-5, 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the batch and remember its statistics; in eval mode by those remembered."""
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self._MOMENTUM,
            self._EPSILON,
        )

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that does what one with this weight and the norm behind it do."""
        # In float32: the square root of a small variance has too few digits in half precision.
        scale = self.weight.float() / (self.running_var.float() + self._EPSILON).sqrt()
        bias = self.bias.float() - self.running_mean.float() * scale
        return (weight.float() * scale[:, None, None, None]).to(weight.dtype), bias.to(weight.dtype)


class ConvNorm(nn.Module):
    """Convolution and batch norm. In eval mode they are one convolution, which halves the passes over the pixels.

    Args:
        width: Channels in.
        out: Channels out.
        kernel: Side of the kernel, odd.
        relu: Whether negative values become 0 behind them.
    """

    def __init__(self, width: int, out: int, kernel: int = 3, *, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, bias=False)
        self.norm = BatchNorm(out)
        self._padding, self._relu = kernel // 2, relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to (B, out, H, W)."""
        if self.training:
            y = self.norm(self.conv(x))
        else:
            weight, bias = self.norm.folded(self.conv.weight)
            y = F.conv2d(x, weight, bias, padding=self._padding)
        return F.relu(y) if self._relu else y


class Residual(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        width: Channels in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(width, width), ConvNorm(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        return F.relu(x + self.second(self.first(x)))


def conv_trunk(width: int) -> nn.Sequential:
    """Four 3x3 convolutions: each cell sees nine cells around it in both directions."""
    return nn.Sequential(ConvNorm(width, width), Residual(width), ConvNorm(width, width))


def as_tokens(features: Tensor) -> Tensor:
    """Features (B, C, H, W) as tokens (B, H * W, C) in row-major order."""
    return features.flatten(2).transpose(1, 2)


def as_grid(tokens: Tensor, side: int) -> Tensor:
    """Values (B, C, side * side) of row-major cells as features (B, C, side, side)."""
    return tokens.reshape(*tokens.shape[:2], side, side)


def cell_centers(cells: int, device: torch.device) -> Tensor:
    """Centres (cells * cells, 2) of the cells of a square, x and y in 0..1, row-major."""
    axis = (torch.arange(cells, device=device) + 0.5) / cells
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)
