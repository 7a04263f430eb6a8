"""The memory of a stage in words: as it is configured, and in other ways, with what the device has."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import psutil
import torch

from elysium_core.device import resolve_device
from elysium_core.errors import BackendError, ElysiumError
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.memory import estimate_memory
from elysium_core.training.launch import Launch

_RANK = 16
_PROCESSES = 8  # of the shipped configs


def memory_line(recipe: FineTuneRecipe, name: str, launch: Launch) -> str:
    """Return what a process of a stage will need and whether it fits the device, or why that is not known."""
    stage = recipe.stages[name]
    return _line(recipe, stage, launch, f"{_way(stage)}, {launch}")


def other_memory_lines(recipe: FineTuneRecipe, name: str, launch: Launch) -> Iterator[str]:
    """Yield the same for other ways to run a stage: optimiser in 8 bits, LoRA, weights divided among processes."""
    stage = recipe.stages[name]
    whole = stage.model_copy(update={"lora_rank": 0, "optimizer": "adamw"})
    one = Launch()
    ways = [(whole, one), (whole.model_copy(update={"optimizer": "adamw8bit"}), one)]
    if "llm" in stage.trained and find_spec("peft") is not None:
        rank = stage.lora_rank or _RANK
        ways += [(way.model_copy(update={"lora_rank": rank}), one) for way, _ in tuple(ways)]
    count = launch.processes if launch.processes > 1 else _PROCESSES
    ways += [(whole, Launch(count, sharding)) for sharding in ("zero2", "zero3", "fsdp")]
    for way, processes in ways:
        if (way, processes) != (stage, launch):
            yield _line(recipe, way, processes, f"{_way(way)}, {processes}")


def _line(recipe: FineTuneRecipe, stage: FineTuneStage, launch: Launch, way: str) -> str:
    base = recipe.base
    if launch.sharding and stage.optimizer != "adamw":
        return f"{way}: {stage.optimizer} cannot be sharded; set it to adamw, or launch it data-parallel"
    if not (base.checkpoint or (base.vision and base.llm)):
        return "memory is not estimated: base.checkpoint is not filled in (or base.vision and base.llm)"
    try:
        needed = estimate_memory(recipe, stage, launch)
    except (ElysiumError, ValueError) as error:
        return f"memory is not estimated: {error}"
    return f"{way}: {needed}{_verdict(recipe, needed.total, launch)}"


def _way(stage: FineTuneStage) -> str:
    trained = f"LoRA of rank {stage.lora_rank}" if stage.lora_rank else "without LoRA"
    return f"{trained}, {stage.optimizer}, batch {stage.batch}"


def _verdict(recipe: FineTuneRecipe, needed: int, launch: Launch) -> str:
    try:
        device = resolve_device(recipe.device)
    except BackendError:
        return ""
    if device.type == "cuda":
        total = int(torch.cuda.get_device_properties(device).total_memory)
        place = f"{torch.cuda.get_device_name(device)} has"
    else:
        total = psutil.virtual_memory().total // launch.processes
        place = "this computer has" if launch.processes == 1 else "each process has on this computer"
    fits = "fits" if needed <= total else "does not fit"
    return f"; {place} {total / 1e9:.1f} GB: {fits}"
