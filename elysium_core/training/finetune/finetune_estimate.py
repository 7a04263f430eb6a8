"""What a stage of fine-tuning needs, told before it starts: memory by counting, time by a measured rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from elysium_core.checkpoint.base_settings import llm_size, vision_config
from elysium_core.checkpoint.locations import base_settings, checkpoint_folder
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.model_config import CONFIG_NAME, AdapterConfig, ElysiumConfig
from elysium_core.training.acceleration import training_device
from elysium_core.training.finetune.base_model import FineTuneModel, choose_trained
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, FineTuneStage

_QUESTION_TOKENS = 64
_PROBE_SIDE = 1024
_PROBE_S = 0.2
# Gradient and two moments of AdamW, float32.
_TRAINED_BYTES = 12
_WEIGHT_BYTES = 4


@dataclass(frozen=True, slots=True)
class FineTuneEstimate:
    """What a stage needs in one process with whole weights.

    Attributes:
        name: The stage.
        steps: Steps still to do.
        weights: Weights of the model.
        trained: Weights the stage trains.
        tokens: Tokens a step and process, about.
        shortest_s: Time of a step at the rate at which this device multiplies matrices [s]: no step is faster.
    """

    name: str
    steps: int
    weights: int
    trained: int
    tokens: int
    shortest_s: float

    @property
    def state_bytes(self) -> int:
        """Memory of weights, gradients and optimiser [B], activations not counted."""
        return _WEIGHT_BYTES * self.weights + _TRAINED_BYTES * self.trained

    def __str__(self) -> str:
        hours = self.steps * self.shortest_s / 3600
        return (
            f"{self.name}: {self.steps} steps of about {self.tokens} tokens; {self.weights / 1e6:.1f} M weights, "
            f"{self.trained / 1e6:.1f} M of them trained: {self.state_bytes / 1e9:.2f} GB without activations (ZeRO "
            f"and FSDP divide it by the processes); on this device at least {hours:.2g} h"
        )


def estimate_finetune(recipe: FineTuneRecipe, steps_done: dict[str, int]) -> list[FineTuneEstimate]:
    """Estimate every stage that is not finished, without loading a weight.

    Raises:
        ModelFileError: The base's settings cannot be read.
        BackendError: There is no such device.
    """
    rate = matmul_rate(training_device(recipe.device), recipe.precision)
    network = _empty_network(recipe)
    found = []
    for name, stage in recipe.stages.items():
        left = stage.steps - steps_done.get(name, 0)
        if left > 0:
            found.append(_estimate(name, stage, left, network, rate))
    return found


def _estimate(name: str, stage: FineTuneStage, left: int, network: ElysiumNetwork, rate: float) -> FineTuneEstimate:
    weights = sum(parameter.numel() for parameter in network.parameters())
    groups = choose_trained(FineTuneModel(network), stage)
    trained = sum(parameter.numel() for group in groups for parameter in group["params"])
    frames = sum(stage.frames) / 2 * stage.batch * stage.accumulate
    samples = stage.batch * stage.accumulate
    kept, patches = network.config.adapter.out_token_num, network.visual_encoder.token_count
    read = frames * kept + samples * _QUESTION_TOKENS
    # Two operations a weight and token forward; twice that backward through everything above what is trained.
    llm = 6 * sum(p.numel() for p in network.llm.model.layers.parameters()) * read
    seen = sum(p.numel() for p in network.visual_encoder.parameters()) * frames * patches
    vision = (6 if "vision" in stage.trained else 2) * seen
    return FineTuneEstimate(name, left, weights, trained, round(read), (llm + vision) / rate)


def _empty_network(recipe: FineTuneRecipe) -> ElysiumNetwork:
    """The network with shapes but without memory."""
    base = recipe.base
    if base.checkpoint:
        folder = checkpoint_folder(base.checkpoint)
        config = ElysiumConfig.from_file(folder / CONFIG_NAME)
        vision_raw, llm_raw = base_settings(config.vision, folder), base_settings(config.llm, folder)
    else:
        vision_raw, llm_raw = base_settings(base.vision, Path()), base_settings(base.llm, Path())
        vision = vision_config(*vision_raw)
        patches = (vision.image_size // vision.patch_size) ** 2
        adapter = AdapterConfig(base.adapter, patches, base.visual_tokens, vision.hidden_size)
        config = ElysiumConfig(base.llm, base.vision, adapter)
    with torch.device("meta"):
        return ElysiumNetwork(config, vision_config(*vision_raw), llm_size(*llm_raw))


def matmul_rate(device: torch.device, precision: str) -> float:
    """Measured floating point operations a second of one large matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    matrix = torch.randn(_PROBE_SIDE, _PROBE_SIDE, device=device).to(dtype)
    matrix @ matrix
    _synchronize(device)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_S:
        matrix @ matrix
        _synchronize(device)
        count += 1
    return 2 * _PROBE_SIDE**3 * count / (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
