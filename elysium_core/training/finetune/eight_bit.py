"""AdamW of bitsandbytes: its two states of a weight take one byte each instead of four."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from elysium_core.errors import BackendError, pip_line
from elysium_core.training.optimizer import CombinedOptimizer, decay_matrices_only

BLOCK = 256
"""Weights that share a scale of their states."""

SMALLEST = 4096
"""Tensors of fewer weights keep states in float32, as bitsandbytes does by default."""

_OLDEST = "bitsandbytes 0.50"


class EightBitAdamW(CombinedOptimizer):
    """AdamW with states in 8 bits, quantised in blocks of :data:`BLOCK` weights. The weights stay in float32.

    States of embeddings stay in float32: the rows of rare tokens get few gradients, of very different sizes.

    Args:
        groups: Parameter groups, each ``{"params": [...], "lr": peak}``, on the device of the training.
        weight_decay: Weight decay of matrices.
        embeddings: Parameters that are embeddings.

    Raises:
        BackendError: bitsandbytes is not installed (``PACKAGE_MISSING``), or cannot do this on the device.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], weight_decay: float, embeddings: Collection[nn.Parameter] = ()
    ) -> None:
        kept = {id(parameter) for parameter in embeddings}
        divided = decay_matrices_only(groups)
        coarse = [{**g, "params": [p for p in g["params"] if id(p) not in kept]} for g in divided]
        fine = [{**g, "params": [p for p in g["params"] if id(p) in kept]} for g in divided]
        coarse, fine = ([group for group in part if group["params"]] for part in (coarse, fine))
        devices = {parameter.device for group in coarse for parameter in group["params"]}
        for device in devices:
            require_eight_bit(device)
        parts: list[torch.optim.Optimizer] = []
        if coarse:
            parts.append(_adamw()(coarse, weight_decay=weight_decay, min_8bit_size=SMALLEST))
        if fine:
            parts.append(torch.optim.AdamW(fine, weight_decay=weight_decay))
        super().__init__(parts)


def embeddings_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a model's embeddings, also where a tied head shares them."""
    found = (module.weight for module in model.modules() if isinstance(module, nn.Embedding))
    return [weight for weight in found if isinstance(weight, nn.Parameter)]


def require_bitsandbytes() -> None:
    """Check that the package is installed, without importing it.

    Raises:
        BackendError: It is not (``PACKAGE_MISSING``).
    """
    if find_spec("bitsandbytes") is None:
        line = pip_line("bitsandbytes")
        raise BackendError(
            f"optimizer = adamw8bit needs bitsandbytes, which is not installed; run: {line}", code="PACKAGE_MISSING"
        )


def require_eight_bit(device: torch.device) -> None:
    """Try one step on a device, because older versions of bitsandbytes have no kernels for a CPU.

    Raises:
        BackendError: bitsandbytes is not installed (``PACKAGE_MISSING``), or cannot do this on the device.
    """
    require_bitsandbytes()
    weight = nn.Parameter(torch.zeros(SMALLEST, device=device))
    weight.grad = torch.ones_like(weight)
    try:
        _adamw()([weight], lr=1.0).step()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise BackendError(
            f"optimizer = adamw8bit cannot run on {device.type} with the installed bitsandbytes ({error}); set "
            f"optimizer=adamw, or install {_OLDEST} or newer"
        ) from error


def _adamw() -> Callable[..., torch.optim.Optimizer]:
    """The class of bitsandbytes, whose package has no complete types."""
    adamw: Callable[..., torch.optim.Optimizer] = import_module("bitsandbytes.optim").AdamW8bit
    return adamw
