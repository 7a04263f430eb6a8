"""Whether a recipe of fine-tuning makes sense, and whether what it names is there; all problems in one go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from elysium_core.device import DTYPES
from elysium_core.errors import DataError
from elysium_core.network.adapters import ADAPTERS
from elysium_core.network.token_selector import GATES
from elysium_core.prompt.questions import REC, REG, RSOT, SOT, VIDEO_REG
from elysium_core.training.acceleration import PRECISIONS
from elysium_core.training.finetune.finetune_recipe import MODULES, BaseConfig, FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.sources import READERS
from elysium_core.training.recipe_file import STAGE_NAME, TAKEN_NAMES

TASKS = (REC, REG, SOT, RSOT, VIDEO_REG)
MOST_FRAMES = 32


def check_finetune(recipe: FineTuneRecipe) -> Iterator[str]:
    """Yield every problem of a recipe whose values have the right types."""
    yield from _check_base(recipe.base)
    for name, source in recipe.data.items():
        if source.reader not in READERS:
            yield f"data.{name}.reader = {source.reader!r} is not one of {', '.join(READERS)}"
        for task in set(source.tasks) - set(TASKS):
            yield f"data.{name}.tasks has {task!r}, which is not one of {', '.join(TASKS)}"
    for name in set(recipe.validation) - set(recipe.data):
        yield f"validation names {name!r}, which is not in data"
    for key, known in (("precision", PRECISIONS), ("stored_as", tuple(DTYPES))):
        if getattr(recipe, key) not in known:
            yield f"{key} = {getattr(recipe, key)!r} is not one of {', '.join(known)}"
    if recipe.seed < 0:
        yield f"seed = {recipe.seed} is negative"
    seen: set[str] = set()
    for name, stage in recipe.stages.items():
        yield from _check_stage(f"stages.{name}", name, stage, recipe)
        if stage.init and stage.init not in seen:
            yield f"stages.{name}.init names {stage.init!r}, which is not a stage before it"
        seen.add(name)
    if recipe.export not in recipe.stages:
        yield f"export names {recipe.export!r}, which is not a stage"


def _check_base(base: BaseConfig) -> Iterator[str]:
    if base.checkpoint and (base.vision or base.llm):
        yield "base names a checkpoint and also vision or llm; keep one of the two"
    if bool(base.vision) != bool(base.llm):
        yield "base needs both vision and llm, or a checkpoint"
    if base.adapter not in ADAPTERS:
        yield f"base.adapter = {base.adapter!r} is not one of {', '.join(ADAPTERS)}"
    if base.visual_tokens < 1:
        yield f"base.visual_tokens = {base.visual_tokens} is under 1"


def _check_stage(where: str, name: str, stage: FineTuneStage, recipe: FineTuneRecipe) -> Iterator[str]:
    if not STAGE_NAME.match(name) or name in TAKEN_NAMES:
        yield f"{where}: a stage cannot be called {name!r}"
    yield from _check_mixture(where, stage, recipe)
    for key in ("trained", "lr_scale"):
        for module in set(getattr(stage, key)) - set(MODULES):
            yield f"{where}.{key} names {module!r}, which is not one of {', '.join(MODULES)}"
    if not stage.trained:
        yield f"{where}.trained is empty"
    for key, smallest, largest in (("frames", 1, MOST_FRAMES), ("interval", 1, math.inf)):
        low, high = getattr(stage, key)
        if not smallest <= low <= high <= largest:
            yield f"{where}.{key} = [{low}, {high}] must be fewest and most in {smallest}..{largest}"
    if stage.gate not in GATES:
        yield f"{where}.gate = {stage.gate!r} is not one of {', '.join(GATES)}"
    if stage.evaluate_every and not recipe.validation:
        yield f"{where}.evaluate_every = {stage.evaluate_every}, but validation names no data"
    yield from _check_numbers(where, stage)


def _check_mixture(where: str, stage: FineTuneStage, recipe: FineTuneRecipe) -> Iterator[str]:
    for source, share in stage.mixture.items():
        if source not in recipe.data:
            yield f"{where}.mixture names {source!r}, which is not in data"
        if source in recipe.validation:
            yield f"{where}.mixture names {source!r}, which is for validation"
        if not (math.isfinite(share) and share > 0):
            yield f"{where}.mixture.{source} = {share} is not a number above 0"


def _check_numbers(where: str, stage: FineTuneStage) -> Iterator[str]:
    for key in ("steps", "batch", "accumulate", "max_turns", "max_tokens", "log_every", "threads"):
        if getattr(stage, key) < 1:
            yield f"{where}.{key} = {getattr(stage, key)} is under 1"
    for key in ("evaluate_every", "workers"):
        if getattr(stage, key) < 0:
            yield f"{where}.{key} = {getattr(stage, key)} is negative"
    for key in ("lr", "weight_decay", "clip_norm", "digit_weight", "format_weight", "text_weight", "save_every_s"):
        value = getattr(stage, key)
        if not (math.isfinite(value) and value >= 0):
            yield f"{where}.{key} = {value} is not a number from 0 on"
    for module, scale in stage.lr_scale.items():
        if not (math.isfinite(scale) and scale >= 0):
            yield f"{where}.lr_scale.{module} = {scale} is not a number from 0 on"
    for key in ("warmup_share", "final_lr"):
        if not 0 <= getattr(stage, key) <= 1:
            yield f"{where}.{key} = {getattr(stage, key)} is not in 0..1"
    if not 0 <= stage.ema < 1:
        yield f"{where}.ema = {stage.ema} is not in 0..1"


def require_inputs(recipe: FineTuneRecipe) -> None:
    """Check that everything a run reads is there, before anything is loaded.

    Raises:
        DataError: Paths are not filled in, or lead nowhere; one sentence names all of them.
    """
    missing = list(_missing_base(recipe))
    used = {source for stage in recipe.stages.values() for source in stage.mixture} | set(recipe.validation)
    for name in (name for name in recipe.data if name in used):
        for key in ("path", "media"):
            value = getattr(recipe.data[name], key)
            if not value and key == "path":
                missing.append(f"data.{name}.{key} is not filled in")
            elif value and not Path(value).exists():
                missing.append(f"data.{name}.{key} = {value!r} does not exist")
    if missing:
        raise DataError(f"recipe {recipe.name}: {'; '.join(missing)}; set them in the file or as key=value")


def _missing_base(recipe: FineTuneRecipe) -> Iterator[str]:
    base = recipe.base
    if not (base.checkpoint or base.vision or base.llm):
        yield "base.checkpoint is not filled in (or base.vision and base.llm)"
    for key in ("checkpoint", "vision", "llm"):
        value = getattr(base, key)
        # A name without a leading path may be a hub id; whoever loads it says whether it was pulled.
        if value.startswith(("/", ".", "~")) and not Path(value).expanduser().exists():
            yield f"base.{key} = {value!r} does not exist"
