"""The float32 weights in DeepSpeed's optimiser.

DeepSpeed first rounds the model to the type of the computation and makes its float32 weights from that. Small updates
of an earlier stage would be lost at the start of the next one, and those of this stage in a checkpoint of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained weights of a model by name, without copying them; before DeepSpeed gets the model."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def set_master_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give DeepSpeed's optimiser the exact weights; every process must call it.

    Args:
        model: The model in DeepSpeed's engine.
        weights: What :func:`trained_weights` returned, the same in all processes.
    """
    from deepspeed.utils import safe_get_local_fp32_param, safe_set_full_fp32_param, safe_set_local_fp32_param

    for name, parameter in model.named_parameters():
        if name not in weights:
            continue
        if not hasattr(parameter, "ds_id"):
            safe_set_full_fp32_param(parameter, weights[name])
            continue
        # ZeRO-3 divides a weight into equal parts; the last one is filled up.
        part, count = safe_get_local_fp32_param(parameter).numel(), torch.distributed.get_world_size()
        flat = weights[name].flatten()
        padded = F.pad(flat, (0, part * count - flat.numel()))
        safe_set_local_fp32_param(parameter, padded.narrow(0, part * torch.distributed.get_rank(), part))


def master_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the trained weights in float32 by name, each gathered from all processes; all of them must read all."""
    from deepspeed.utils import safe_get_full_fp32_param

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, safe_get_full_fp32_param(parameter).detach().float()
