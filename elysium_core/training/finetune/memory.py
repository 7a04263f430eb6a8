"""What a stage of fine-tuning needs in memory, computed from the model's sizes alone: no weights are read.

Counted per process: weights, gradients, states of the optimiser, buffers in which processes exchange or gather weights,
and activations. Not counted: the workspace of single operations, and what CUDA itself takes (up to about 1 GB).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from elysium_core.checkpoint.base_settings import llm_size, vision_config
from elysium_core.checkpoint.locations import base_settings, checkpoint_folder
from elysium_core.network.adapters import SelectingAdapter
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.encoders import token_shape
from elysium_core.network.model_config import CONFIG_NAME, AdapterConfig, ElysiumConfig
from elysium_core.training.finetune.activations import Shape, activation_bytes, layers_of, make_fake
from elysium_core.training.finetune.base_model import FineTuneModel, cast_frozen, choose_trained
from elysium_core.training.finetune.eight_bit import BLOCK, SMALLEST, embeddings_of
from elysium_core.training.finetune.finetune_recipe import BaseConfig, FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.low_rank import add_low_rank
from elysium_core.training.launch import Launch

_WHOLE = 4  # bytes of a float32
_GB = 1e9
# Defaults of DeepSpeed [elements]: gradients that are reduced together, and weights that ZeRO-3 keeps gathered.
_REDUCED_TOGETHER, _GATHERED_AT_ONCE = 500_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory of one process [bytes].

    Attributes:
        weights: Of all weights, trained or not.
        gradients: Of the trained weights.
        optimizer: States of the optimiser; with ZeRO also its float32 copy of the trained weights.
        buffers: In which weights or gradients of several processes are gathered.
        activations: Kept for the backward pass, for a batch of the longest samples.
        step: Temporary results of the optimiser's step, when there are no activations.
    """

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    step: int

    @property
    def total(self) -> int:
        """The largest sum at one time."""
        steady = self.weights + self.gradients + self.optimizer + self.buffers
        return steady + max(self.activations, self.step)

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            "buffers": self.buffers,
            "activations at most": self.activations,
        }
        listed = ", ".join(f"{name} {_size(value)}" for name, value in parts.items() if value)
        return f"{_size(self.total)} ({listed})"


def estimate_memory(recipe: FineTuneRecipe, stage: FineTuneStage, launch: Launch) -> MemoryEstimate:
    """Return what one process of a stage will need.

    Args:
        recipe: The recipe; of its base only the settings are read.
        stage: The stage, which may differ from those of the recipe.
        launch: How many processes there are, and what is divided among them.

    Raises:
        ModelFileError: The settings of the base are not on this machine.
    """
    compute = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        network = _network(recipe.base)
        if stage.lora_rank:
            add_low_rank(network.llm, stage, recipe.seed)
    if isinstance(network.adapter, SelectingAdapter):
        network.adapter.learn_by(stage.gate)
    model = FineTuneModel(network).train()
    choose_trained(model, stage)
    if launch.sharding:
        network.to(compute)
    elif compute != torch.float32:
        cast_frozen(model, compute)
    with FakeTensorMode():
        make_fake(network)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        autocast = compute if compute != torch.float32 and not launch.sharding else None
        tokens = stage.max_tokens
        answers = max(1, tokens - stage.frames[0] * network.config.adapter.out_token_num)
        activations = activation_bytes(
            network,
            Shape(stage.batch, stage.batch * stage.frames[1], tokens, stage.batch * answers),
            autocast,
            again=stage.gradient_checkpointing,
        )
    return _of_process(model, trained, stage, launch, compute.itemsize, activations)


def _of_process(
    model: nn.Module,
    trained: Sequence[nn.Parameter],
    stage: FineTuneStage,
    launch: Launch,
    compute: int,
    activations: int,
) -> MemoryEstimate:
    """Sum up; ``compute`` is the size of a number in the computation."""
    everything, learnt = _count(model.parameters()), _count(trained)
    count = launch.processes
    share = -(-learnt // count)
    if launch.sharding == "zero2":
        buffers = _REDUCED_TOGETHER * compute
        return MemoryEstimate(compute * everything, compute * share, 12 * share, buffers, activations, _WHOLE * share)
    if launch.sharding == "zero3":
        buffers = (min(_GATHERED_AT_ONCE, everything) + min(_REDUCED_TOGETHER, learnt)) * compute
        weights = compute * -(-everything // count)
        return MemoryEstimate(weights, compute * share, 12 * share, buffers, activations, _WHOLE * share)
    if launch.sharding == "fsdp":
        weights = _WHOLE * -(-everything // count)
        buffers = compute * _gathered_by_fsdp(model)
        return MemoryEstimate(weights, _WHOLE * share, 8 * share, buffers, activations, _WHOLE * share)
    states = _states_of(trained, embeddings_of(model), eight_bit=stage.optimizer == "adamw8bit")
    step = 0 if stage.optimizer == "adamw8bit" else _WHOLE * learnt
    buffers = _WHOLE * learnt if count > 1 else 0
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return MemoryEstimate(weights, _WHOLE * learnt, states, buffers, activations, step)


def _states_of(trained: Sequence[nn.Parameter], embeddings: Sequence[nn.Parameter], *, eight_bit: bool) -> int:
    kept = {id(parameter) for parameter in embeddings}
    total = 0
    for parameter in trained:
        count = parameter.numel()
        if eight_bit and id(parameter) not in kept and count >= SMALLEST:
            total += 2 * (count + _WHOLE * -(-count // BLOCK))
        else:
            total += 2 * _WHOLE * count
    return total


def _gathered_by_fsdp(model: nn.Module) -> int:
    """Numbers that are whole in each process: two blocks and what is in none, and the gradients of one and of those."""
    network: Any = model.get_submodule("network")
    blocks = [list(layer.parameters()) for layer in layers_of(network)]
    largest = max(blocks, key=_count, default=[])
    inside = {id(parameter) for block in blocks for parameter in block}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    learnt = [parameter for parameter in (*largest, *rest) if parameter.requires_grad]
    return 2 * _count(largest) + _count(rest) + _count(learnt)


def _count(parameters: Sequence[nn.Parameter] | Iterator[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _network(base: BaseConfig) -> ElysiumNetwork:
    """Build the network of a base from its settings, with fake weights."""
    here = Path()
    if base.checkpoint:
        here = checkpoint_folder(base.checkpoint)
        config = ElysiumConfig.from_file(here / CONFIG_NAME)
        vision, llm = base_settings(config.vision, here), base_settings(config.llm, here)
        return ElysiumNetwork(config, vision_config(*vision), llm_size(*llm))
    vision, llm = base_settings(base.vision, here), base_settings(base.llm, here)
    patches, width = token_shape(vision_config(*vision))
    adapter = AdapterConfig(base.adapter, patches, base.visual_tokens, width)
    config = ElysiumConfig(llm="llm", vision="vision", adapter=adapter, system_text=base.system_text)
    return ElysiumNetwork(config, vision_config(*vision), llm_size(*llm))


def _size(count: int) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB / 10 else f"{count / 1e6:.1f} MB"
