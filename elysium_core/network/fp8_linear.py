"""A linear layer whose weights and inputs are 8-bit floats.

Shapes: M rows of the input, K inputs, N outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST_SCALE = 1e-12


class Fp8Linear(nn.Module):
    """A linear layer without bias whose weights and inputs are 8-bit floats.

    Every row of the weights has a scale, and so has every row of the input, computed in each call.

    Args:
        linear: The layer to quantise; its weights are not kept.
        device: Device of the quantised weights.
    """

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        super().__init__()
        rows, scale = quantize_rows(linear.weight.detach().to(device))
        self.weight = nn.Parameter(rows, requires_grad=False)
        self.scale: Tensor
        self.register_buffer("scale", scale)

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply (..., K) to (..., N), in the input's data type."""
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
    """Quantise (M, K) to float8 values (M, K) and float32 scales (M, 1), whose product approximates the input."""
    scale = (values.abs().amax(dim=-1, keepdim=True).float() / _LARGEST_FP8).clamp(min=_SMALLEST_SCALE)
    return (values / scale).clamp(-_LARGEST_FP8, _LARGEST_FP8).to(torch.float8_e4m3fn), scale
