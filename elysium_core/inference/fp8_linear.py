"""A matrix in eight-bit floating point, multiplied by torch's own kernels.

Rows of the matrix and of its input each have a scale, the input's anew in every call.
Shapes: M rows of input, K wide; N rows of the matrix.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS_SINCE = "2.10"
"""First torch whose public interface has the product."""

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST_SCALE = 1e-12


def has_kernels() -> bool:
    """Whether this torch can multiply such matrices."""
    return hasattr(F, "scaled_mm")


class Fp8Linear(nn.Module):
    """What a linear layer without bias computes, with eight bits for weights and input.

    Args:
        linear: The layer; its weights are not kept.
        device: Where the new ones go.
    """

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__()
        rows, scale = quantize_rows(linear.weight.detach().to(device))
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.scale: Tensor
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., K) to (..., N), in the input's data type."""
        rows, scale = quantize_rows(hidden.reshape(-1, hidden.shape[-1]))
        product = F.scaled_mm(
            rows,
            self.weight.t(),
            scale,
            F.ScalingType.RowWise,
            self.scale.t(),
            F.ScalingType.RowWise,
            output_dtype=hidden.dtype,
            use_fast_accum=hidden.is_cuda,
        )
        return product.view(*hidden.shape[:-1], -1)


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Eight-bit values (M, K) and scales (M, 1) float32, whose product is what was given, nearly."""
    scale = (values.abs().amax(dim=-1, keepdim=True).float() / _LARGEST).clamp(min=_SMALLEST_SCALE)
    return (values / scale).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scale
