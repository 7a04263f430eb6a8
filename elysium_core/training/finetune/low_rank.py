"""Low-rank adapters (LoRA, through peft) for the language model: they are trained, and merged into the result."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from elysium_core.errors import BackendError, pip_line
from elysium_core.training.finetune.finetune_recipe import FineTuneStage

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_NAME = "default"
_BASE, _DOWN, _UP = ".base_layer.weight", f".lora_A.{_NAME}.weight", f".lora_B.{_NAME}.weight"


def add_low_rank(llm: nn.Module, stage: FineTuneStage, seed: int) -> None:
    """Give every linear layer of a language model's blocks an adapter, which changes nothing before it is trained.

    Args:
        llm: The language model; its layers are replaced.
        stage: Rank and scale of the adapters.
        seed: Seed of their first weights.

    Raises:
        BackendError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise BackendError(f"lora_rank needs peft, which is not installed: {pip_line('peft')}") from error
    config = LoraConfig(
        r=stage.lora_rank, lora_alpha=stage.lora_alpha, target_modules=list(_TARGETS), lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, llm, adapter_name=_NAME)


def train_adapters_only(llm: nn.Module) -> None:
    """Freeze all weights of a language model but those of its adapters."""
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_(f".{_NAME}." in name)


def merged(weights: dict[str, Tensor], stage: FineTuneStage) -> dict[str, Tensor]:
    """Return weights in which the adapters are added to the layers they belong to.

    Args:
        weights: All weights of a network by name, with those of the adapters.
        stage: The stage that trained them.

    Returns:
        The weights of a network without adapters, in float32 where there was one.
    """
    scale = stage.lora_alpha / stage.lora_rank
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.endswith(_BASE):
            layer = name.removesuffix(_BASE)
            up, down = weights[layer + _UP].float(), weights[layer + _DOWN].float()
            found[f"{layer}.weight"] = weight.float() + scale * up @ down
        elif not name.endswith((_DOWN, _UP)):
            found[name] = weight
    return found
