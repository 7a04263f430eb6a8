"""Networks of random weights, made directly on their device and in their data type.

A 7B network has 28 GB in float32: to make it in the computer's memory and copy it takes a minute.
"""

from __future__ import annotations

import torch
from torch import nn

from bench.vision_cost import AblationRow, VisionSize, build_row
from elysium_core.device import device_errors
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize

ROW = AblationRow("t_selector", 336, 108)
"""The published model's adapter."""
_STD = 0.02


def random_network(
    vision: VisionSize, llm: LlamaSize, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> ElysiumNetwork:
    """Return a network with the published model's adapter and random weights.

    Args:
        vision: Sizes of the vision half.
        llm: Sizes of the language model; its width is taken from ``vision``.
        device: Device of the weights.
        dtype: Data type of the weights.
        seed: The same seed gives the same weights on the same device.

    Raises:
        BackendError: The device has too little memory (``MEMORY``).
    """
    with torch.device("meta"):
        network = build_row(vision, ROW, llm).to(dtype)
    with device_errors("the random network"), torch.no_grad():
        network.to_empty(device=device)
        torch.manual_seed(seed)
        for module in network.modules():
            _draw(module)
        network.visual_encoder.make_buffers(device)
    return network


def _draw(module: nn.Module) -> None:
    """Draw the weights of one module: noise, and norms that change nothing."""
    for name, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1 or name == "class_embedding":
            nn.init.normal_(weight, std=_STD)
        elif name == "weight":
            nn.init.ones_(weight)
        else:
            nn.init.zeros_(weight)
