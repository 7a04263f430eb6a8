"""Whether the values of a recipe make sense together; all problems are found in one go."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from elysium_core.data.synthetic.assets import held_out_names, trainable_names
from elysium_core.data.synthetic.scene import MAX_SIDE_PX, MIN_SIDE_PX
from elysium_core.model.token_selector import GATES

if TYPE_CHECKING:
    from elysium_core.training.config import NanoModelConfig, Recipe, StageConfig, SyntheticDataConfig

KINDS = ("vision", "language", "distil", "joint")
"""What a stage can train; :mod:`elysium_core.training.stages` has one step function for each."""

STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
# Names of other things in the folder of a run.
TAKEN_NAMES = {"tokenizer", "checkpoint"}
_MOST_FRAMES = 32
# 256 bytes, 3 special tokens, and the letters that the texts of the tasks need.
_SMALLEST_VOCABULARY = 320


def check_recipe(recipe: Recipe) -> list[str]:
    """Return every problem of a recipe whose values have the right types."""
    return [*_check_model(recipe.model), *_check_data(recipe.data), *_check_stages(recipe)]


def _check_model(model: NanoModelConfig) -> Iterator[str]:
    if not MIN_SIDE_PX <= model.side_px <= MAX_SIDE_PX or model.patch_px < 1 or model.side_px % model.patch_px:
        yield (
            f"model.side_px = {model.side_px} must be in {MIN_SIDE_PX}..{MAX_SIDE_PX} and a multiple of "
            f"model.patch_px = {model.patch_px}"
        )
    elif not 1 <= model.visual_tokens <= model.patch_count:
        yield f"model.visual_tokens = {model.visual_tokens} is not in 1..{model.patch_count}, the patches of a frame"
    for part in ("vision", "llm"):
        width, heads = getattr(model, f"{part}_width"), getattr(model, f"{part}_heads")
        if heads < 1 or width < 1 or width % (2 * heads):
            yield f"model.{part}_width = {width} must be a multiple of twice model.{part}_heads = {heads}"
    for name in ("vision_layers", "llm_layers", "llm_mlp"):
        if getattr(model, name) < 1:
            yield f"model.{name} = {getattr(model, name)} is under 1"
    if model.vocab_size < _SMALLEST_VOCABULARY:
        yield f"model.vocab_size = {model.vocab_size} is under {_SMALLEST_VOCABULARY}"


def _check_data(data: SyntheticDataConfig) -> Iterator[str]:
    known = len(trainable_names())
    if not 1 <= data.names <= known:
        held_out = len(held_out_names())
        yield f"data.names = {data.names} is not in 1..{known}; {held_out} other sprites are held out for tests"
    if not data.objects or min(data.objects) < 1 or max(data.objects) >= data.names:
        yield f"data.objects = {list(data.objects)} must be numbers from 1 to under data.names = {data.names}"
    if not data.frames or min(data.frames) < 1 or max(data.frames) > _MOST_FRAMES:
        yield f"data.frames = {list(data.frames)} must be numbers in 1..{_MOST_FRAMES}"
    yield from _check_shares("frame_weights", data.frame_weights, "frames", len(data.frames))
    yield from _check_shares("object_weights", data.object_weights, "objects", len(data.objects))
    if len(data.gaps) != len(data.frames) or not all(0 <= low <= high for low, high in data.gaps):
        yield f"data.gaps needs one pair [shortest, longest] for each of the {len(data.frames)} entries of data.frames"
    if data.max_turns < 1:
        yield f"data.max_turns = {data.max_turns} is under 1"
    for name in ("absent_share", "vanish_share", "twin_share", "dye_share", "plain_share"):
        if not 0 <= getattr(data, name) <= 1:
            yield f"data.{name} = {getattr(data, name)} is not in 0..1"
    if data.seed < 0:
        yield f"data.seed = {data.seed} is negative"


def _check_shares(name: str, shares: tuple[float, ...], of: str, count: int) -> Iterator[str]:
    if len(shares) != count or any(share < 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        yield f"data.{name} = {list(shares)} must be {count} shares that add up to 1, one for each of data.{of}"


def _check_stages(recipe: Recipe) -> Iterator[str]:
    seen: set[str] = set()
    for name, stage in recipe.stages.items():
        where = f"stages.{name}"
        if not STAGE_NAME.match(name) or name in TAKEN_NAMES:
            yield f"{where}: a stage cannot be called {name!r}"
        for other in (*stage.init, *stage.after):
            if other not in seen:
                yield f"{where} needs {other!r}, which is not a stage before it"
        if stage.parts and len(stage.parts) != len(stage.init):
            yield f"{where} has {len(stage.parts)} parts for {len(stage.init)} init stages"
        if stage.frames and stage.frames not in recipe.data.frames:
            yield f"{where}.frames = {stage.frames} is not one of data.frames = {list(recipe.data.frames)}"
        if stage.objects and not 1 <= min(stage.objects) <= max(stage.objects) < recipe.data.names:
            names = recipe.data.names
            yield f"{where}.objects = {list(stage.objects)} must be numbers from 1 to under data.names = {names}"
        if stage.align_names and not stage.init:
            yield f"{where}.align_names needs a stage in init whose patch_heads tell the names"
        yield from _check_numbers(where, stage)
        seen.add(name)
    if recipe.export not in recipe.stages:
        yield f"export names {recipe.export!r}, which is not a stage"


def _check_numbers(where: str, stage: StageConfig) -> Iterator[str]:
    if stage.kind not in KINDS:
        yield f"{where}.kind = {stage.kind!r} is not one of {', '.join(KINDS)}"
    if stage.gate not in GATES:
        yield f"{where}.gate = {stage.gate!r} is not one of {', '.join(GATES)}"
    for name in ("steps", "batch_frames", "threads"):
        if getattr(stage, name) < 1:
            yield f"{where}.{name} = {getattr(stage, name)} is under 1"
    if stage.evaluate_every < 0:
        yield f"{where}.evaluate_every = {stage.evaluate_every} is negative"
    for name in ("lr", "vision_lr", "warmup_steps", "weight_decay", "pointing_weight"):
        value = getattr(stage, name)
        if not (math.isfinite(value) and value >= 0):
            yield f"{where}.{name} = {value} is not a number from 0 on"
    for name in ("decay_from", "final_lr"):
        if not 0 <= getattr(stage, name) <= 1:
            yield f"{where}.{name} = {getattr(stage, name)} is not in 0..1"
