"""Recipes: one YAML file describes a run; every key is known, typed and checked.

Whether the values of a recipe make sense together; all problems are found in one go.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elysium_core.data.synthetic.assets import SYSTEM_PHOTO_FOLDERS, held_out_names, trainable_names
from elysium_core.data.synthetic.scene import MAX_SIDE_PX, MIN_SIDE_PX
from elysium_core.network.token_selector import GATES
from elysium_core.training.recipe_file import STAGE_NAME, TAKEN_NAMES, read_recipe, read_settings


@dataclass(frozen=True, slots=True)
class NanoModelConfig:
    """Sizes of a model that is trained from scratch.

    Attributes:
        side_px: Input side of the vision encoder [px].
        patch_px: Patch side [px].
        vision_width: Width of the vision encoder.
        vision_layers: Its layers.
        vision_heads: Its attention heads.
        llm_width: Width of the language model.
        llm_layers: Its layers.
        llm_heads: Its attention heads.
        llm_mlp: Width of its MLP.
        visual_tokens: Tokens a frame that the T-Selector keeps.
        vocab_size: Most entries of the tokenizer.
        system_text: Opening of every prompt, with its closing blank; empty, because it only costs time here.
    """

    side_px: int = 128
    patch_px: int = 16
    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    llm_width: int = 128
    llm_layers: int = 4
    llm_heads: int = 4
    llm_mlp: int = 384
    visual_tokens: int = 24
    vocab_size: int = 1024
    system_text: str = ""

    @property
    def patch_count(self) -> int:
        """Patches a frame."""
        return (self.side_px // self.patch_px) ** 2


@dataclass(frozen=True, slots=True)
class SyntheticDataConfig:
    """What the generated training clips look like.

    Attributes:
        names: Size of the vocabulary: the first so many names that may be trained on.
        frames: Numbers of frames a clip.
        frame_weights: Their shares.
        objects: Numbers of objects a clip.
        object_weights: Their shares.
        gaps: Range of the time between frames, for each entry of ``frames`` [time units].
        max_turns: Most questions asked about one clip.
        absent_share: Share of questions about something that is not in the picture.
        vanish_share: Share of clips of several frames in which an object disappears.
        twin_share: Share of clips of several objects in which two have the same name.
        dye_share: Share of objects that are dyed in a colour.
        plain_share: Share of questions that use the mere name where that is enough; the
            others name colour, size or place.
        photo_folders: Where background photos are searched; procedural backgrounds alone if empty.
        seed: Seed of everything; each stage and step adds its own number.
    """

    names: int = 40
    frames: tuple[int, ...] = (1, 2, 3, 4)
    frame_weights: tuple[float, ...] = (0.25, 0.5, 0.1, 0.15)
    objects: tuple[int, ...] = (1, 2, 3, 4)
    object_weights: tuple[float, ...] = (0.1, 0.3, 0.3, 0.3)
    gaps: tuple[tuple[float, float], ...] = ((0.5, 2.5), (0.5, 12.0), (0.5, 5.0), (0.5, 3.0))
    max_turns: int = 4
    absent_share: float = 0.0
    vanish_share: float = 0.0
    twin_share: float = 0.0
    dye_share: float = 0.0
    plain_share: float = 1.0
    photo_folders: tuple[str, ...] = tuple(map(str, SYSTEM_PHOTO_FOLDERS))
    seed: int = 1


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage of a run.

    Attributes:
        kind: ``vision``, ``language``, ``distil`` or ``joint`` (:mod:`elysium_core.training.nano.stages`).
        steps: Optimiser steps.
        batch_frames: Frames a step; a step holds ``batch_frames / T`` clips of T frames.
        lr: Peak learning rate of everything but the vision encoder.
        vision_lr: Peak learning rate of vision encoder, selector and projector.
        warmup_steps: Steps of linear warm-up.
        decay_from: Share of the steps after which the rate falls linearly to ``final_lr`` of its peak, 0..1.
        final_lr: Last rate as a share of the peak.
        frames: Overrides the data's ``frames`` with one number; 0 = as the data says.
        objects: Overrides the data's ``objects``, each number as often; empty = as the data says. What is
            learnt from single patches is learnt faster from crowds: a picture of 8 shows 3 times as many
            things as one of 2 or 3.
        init: Stages whose weights this one starts from, a later one over an earlier one.
        after: Stages that must be finished first (those of ``init`` always must).
        parts: For each entry of ``init``, prefixes of the weights taken; empty = all.
        align_names: Before the first step, let the oracle's names and the word embeddings agree with
            how the vision encoder tells names apart; needs ``patch_heads`` of a stage in ``init``.
        pointing_weight: Weight of the pointing loss.
        gate: How answers train the T-Selector's gate (:mod:`elysium_core.network.token_selector`);
            ``hard`` leaves it to its own loss.
        frozen: Prefixes of weights that this stage leaves as they are.
        words_frozen: Keep word embeddings and oracle as they are, because a projector is
            trained towards them.
        weight_decay: AdamW's weight decay.
        threads: CPU threads of the training process.
        evaluate_every: Steps between two looks at clips never trained on: their losses, and pictures
            of what the model says about them; 0 = never.
    """

    kind: str
    steps: int
    batch_frames: int = 32
    lr: float = 1.2e-3
    vision_lr: float = 1.5e-3
    warmup_steps: int = 60
    decay_from: float = 0.5
    final_lr: float = 0.03
    frames: int = 0
    objects: tuple[int, ...] = ()
    init: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    align_names: bool = False
    pointing_weight: float = 0.5
    gate: str = "hard"
    frozen: tuple[str, ...] = ()
    words_frozen: bool = False
    weight_decay: float = 0.01
    threads: int = 1
    evaluate_every: int = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole run from scratch.

    Attributes:
        name: Name of the run; its files lie in ``runs/<name>``.
        model: Sizes.
        data: Generated clips.
        stages: Stages by name, in the order of the file.
        export: Stage whose weights become the checkpoint.
        device: Where to train: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: str
    stages: dict[str, StageConfig]
    export: str
    model: NanoModelConfig = field(default_factory=NanoModelConfig)
    data: SyntheticDataConfig = field(default_factory=SyntheticDataConfig)
    device: str = "auto"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of training from scratch and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or has unknown keys, wrong types or values
            out of range; all of them are named at once.
    """
    return read_recipe(path, read_settings(path, overrides), Recipe, check_recipe)


KINDS = ("vision", "language", "distil", "joint")
"""What a stage can train; :mod:`elysium_core.training.nano.stages` has one step function for each."""

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
