"""Schema of fine-tuning recipes: base model, data sets and stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS
from elysium_core.data.readers.refcoco import SPLITS
from elysium_core.data.readers.video_qa import READERS as VIDEO_QA
from elysium_core.device import DTYPES
from elysium_core.errors import DataError
from elysium_core.network.adapters import ADAPTERS
from elysium_core.network.model_config import PUBLISHED_SYSTEM_TEXT
from elysium_core.network.token_selector import GATES
from elysium_core.prompt.questions import REC, REG, RSOT, SOT, VIDEO_REG
from elysium_core.training.acceleration import PRECISIONS
from elysium_core.training.recipe_file import (
    Amount,
    Count,
    Flag,
    NotNegative,
    Number,
    Problem,
    RecipePart,
    Share,
    Text,
    checked,
    one_of,
    stage_problems,
)

MODULES = {
    "vision": "network.visual_encoder",
    "selector": "network.adapter",
    "projector": "network.llm_proj",
    "llm": "network.llm",
}
"""Modules of a model that a stage can train -> prefix of their weights."""

PUBLISHED_SETS = (
    "grit",
    "cogvlm-sft",
    "coco-qa",
    "gqa",
    "visual7w",
    "flickr30k-entities",
    "visual-genome",
    "videochat",
)
"""Training sets of the paper that are read in the form in which they are published."""

READER_NAMES = (
    "conversation",
    "grounding",
    *PUBLISHED_SETS,
    *SPLITS,
    *TRACKING_BENCHMARKS,
    "elysiumtrack",
    *VIDEO_QA,
)
"""Layouts of data sets; :mod:`elysium_core.training.finetune.sources` reads them, docs/training.md describes them."""

VQA = "vqa"
"""The task of the questions that a line of ElysiumTrack brings along."""

TASKS = (REC, REG, SOT, RSOT, VIDEO_REG, VQA)
_MOST_FRAMES = 32

OPTIMIZERS = ("adamw", "adamw8bit")
"""Optimisers of a stage: AdamW of torch, and AdamW of bitsandbytes with its states in 8 bits."""

Module = Annotated[Text, one_of(MODULES)]
Frames = Annotated[Count, Field(le=_MOST_FRAMES)]


class BaseConfig(RecipePart):
    """The model that the first stage starts from: a checkpoint, or a vision encoder and a language model.

    Attributes:
        checkpoint: Folder or hub id of a model in the published layout.
        vision: Without a checkpoint: folder or hub id of a CLIP (vision) model.
        llm: Without a checkpoint: folder or hub id of a LLaMA model.
        adapter: Token adapter between them, as in :mod:`elysium_core.network.adapters`.
        visual_tokens: Tokens per frame that it keeps.
        system_text: Text at the start of every conversation.
        allow_pickle_weights: Read weights that are published as ``.bin`` only, through a separate process; for files
            from people you trust.
    """

    checkpoint: Text = ""
    vision: Text = ""
    llm: Text = ""
    adapter: Annotated[Text, one_of(ADAPTERS)] = "t_selector"
    visual_tokens: Count = 108
    system_text: Text = PUBLISHED_SYSTEM_TEXT
    allow_pickle_weights: Flag = False

    @model_validator(mode="after")
    def _one_start(self) -> BaseConfig:
        return checked(self, _base_problems(self))


def _base_problems(base: BaseConfig) -> Iterator[Problem]:
    if base.checkpoint and (base.vision or base.llm):
        yield ("checkpoint",), "is named beside base.vision or base.llm; keep one of the two"
    for given, other in (("vision", "llm"), ("llm", "vision")):
        if getattr(base, given) and not getattr(base, other):
            yield (given,), f"needs base.{other} beside it"


class SourceConfig(RecipePart):
    """One data set.

    Attributes:
        reader: Layout: one of :data:`READER_NAMES`.
        path: Annotation file, or folder of the data set.
        media: Folder that image and video names are relative to; the folder of ``path`` if empty.
        split: Name of a split, for layouts that have several.
        tasks: Tasks to train on boxes (``rec``, ``reg``, ``sot``, ``rsot``, ``video_reg``), and ``vqa``; all that fit
            if empty.
    """

    reader: Annotated[Text, one_of(READER_NAMES)]
    path: Text = ""
    media: Text = ""
    split: Text = ""
    tasks: tuple[Annotated[Text, one_of(TASKS)], ...] = ()


class FineTuneStage(RecipePart):
    """One stage.

    Attributes:
        steps: Optimiser steps.
        mixture: Shares of the data sets; they need not add up to 1.
        lr: Peak learning rate.
        lr_scale: Factors of the learning rate for ``vision``, ``selector``, ``projector`` or ``llm``; default 1.
        trained: Modules that are trained; the others are frozen.
        batch: Samples per batch of one process.
        accumulate: Batches per step of one process.
        frames: Fewest and most frames of a video, drawn at random.
        interval: Shortest and longest distance between them [frames], drawn at random.
        max_turns: Most questions about one sample.
        max_tokens: Longest sample; questions that do not fit are left out.
        warmup_share: Share of the steps for linear warm-up, 0..1; half a cosine follows.
        final_lr: Last learning rate as a share of the peak, 0..1.
        optimizer: One of :data:`OPTIMIZERS`; ``adamw8bit`` cannot be sharded.
        weight_decay: Weight decay of AdamW, for matrices only.
        clip_norm: Largest norm of a gradient.
        gate: How the T-Selector's gate is trained (:mod:`elysium_core.network.token_selector`).
        digit_weight: Weight of a box's digits in the loss.
        format_weight: Weight of the other tokens of answers that are boxes.
        text_weight: Weight of every other answer token.
        gradient_checkpointing: Recompute activations in the backward pass instead of storing them.
        lora_rank: Rank of adapters (LoRA) that are trained in place of the language model's weights; 0 = none.
        lora_alpha: Scale of the adapters: their output is multiplied by ``lora_alpha / lora_rank``.
        ema: Decay of a running average of the weights, which is saved as the result; 0 = none.
        init: Stage whose checkpoint this one starts from; the recipe's base if empty.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
        evaluate_every: Steps between two evaluations on the validation data; 0 = never.
        workers: Processes that read data, per training process; 0 = the training process itself.
        threads: CPU threads of a training process.
    """

    steps: Count
    mixture: Annotated[dict[Text, Annotated[Number, Field(gt=0)]], Field(min_length=1)]
    lr: Amount
    lr_scale: dict[Module, Amount] = Field(default_factory=dict)
    trained: Annotated[tuple[Module, ...], Field(min_length=1)] = tuple(MODULES)
    batch: Count = 16
    accumulate: Count = 1
    frames: tuple[Frames, Frames] = (1, 1)
    interval: tuple[Count, Count] = (1, 60)
    max_turns: Count = 8
    max_tokens: Count = 2048
    warmup_share: Share = 0.03
    final_lr: Share = 0.0
    optimizer: Annotated[Text, one_of(OPTIMIZERS)] = "adamw"
    weight_decay: Amount = 0.0
    clip_norm: Amount = 1.0
    gate: Annotated[Text, one_of(GATES)] = "straight_through"
    digit_weight: Amount = 1.0
    format_weight: Amount = 1.0
    text_weight: Amount = 1.0
    gradient_checkpointing: Flag = False
    lora_rank: NotNegative = 0
    lora_alpha: Amount = 16.0
    ema: Annotated[Amount, Field(lt=1)] = 0.0
    init: Text = ""
    log_every: Count = 20
    save_every_s: Amount = 1800.0
    evaluate_every: NotNegative = 0
    workers: NotNegative = 2
    threads: Count = 1

    @model_validator(mode="after")
    def _ranges_ascend(self) -> FineTuneStage:
        ranges = {"frames": self.frames, "interval": self.interval}
        falling = [key for key, (low, high) in ranges.items() if low > high]
        problems: list[Problem] = [((key,), "must be the fewest and the most, in this order") for key in falling]
        if self.lora_rank and "llm" not in self.trained:
            problems.append((("lora_rank",), "trains adapters of llm, which is not in trained"))
        return checked(self, problems)


class FineTuneRecipe(RecipePart):
    """A run of fine-tuning.

    Attributes:
        name: Name of the run; its files are in ``runs/<name>``.
        base: Model that the first stage starts from.
        data: Data sets by name.
        stages: Stages by name, run in the order of the file.
        export: Stage whose checkpoint is the result.
        validation: Data sets for evaluations; no stage may train on them.
        precision: Precision of the computation, ``bfloat16`` or ``float32``; weights stay in float32.
        stored_as: Type of the weights in the checkpoints: ``bfloat16``, ``float16`` or ``float32``. Stages that another
            stage starts from are stored in float32.
        device: Device for training without a launcher: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of all random numbers.
    """

    name: Text
    base: BaseConfig
    data: Annotated[dict[Text, SourceConfig], Field(min_length=1)]
    stages: Annotated[dict[Text, FineTuneStage], Field(min_length=1)]
    export: Text
    validation: tuple[Text, ...] = ()
    precision: Annotated[Text, one_of(PRECISIONS)] = "bfloat16"
    stored_as: Annotated[Text, one_of(DTYPES)] = "bfloat16"
    device: Text = "auto"
    seed: NotNegative = 1

    @model_validator(mode="after")
    def _parts_fit(self) -> FineTuneRecipe:
        return checked(self, [*stage_problems(self.stages, self.export), *_reference_problems(self)])


def _reference_problems(recipe: FineTuneRecipe) -> Iterator[Problem]:
    """Yield problems with names of data sets and stages that do not exist."""
    if unknown := [name for name in recipe.validation if name not in recipe.data]:
        yield ("validation",), f"names {', '.join(unknown)}, which is not in data"
    before: list[str] = []
    for name, stage in recipe.stages.items():
        for source in stage.mixture:
            if source not in recipe.data:
                yield ("stages", name, "mixture", source), "gives a share to a data set that is not in data"
            elif source in recipe.validation:
                yield ("stages", name, "mixture", source), "gives a share to a data set that is for validation"
        if stage.evaluate_every and not recipe.validation:
            yield ("stages", name, "evaluate_every"), "needs data sets in validation"
        if stage.init and stage.init not in before:
            yield ("stages", name, "init"), "is not a stage before it"
        before.append(name)


def require_inputs(recipe: FineTuneRecipe) -> None:
    """Check that all files and folders of a run exist, before anything is loaded.

    Raises:
        DataError: Paths are empty or do not exist; one sentence names all of them.
    """
    missing = list(_missing_base(recipe.base))
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


def _missing_base(base: BaseConfig) -> Iterator[str]:
    if not (base.checkpoint or base.vision or base.llm):
        yield "base.checkpoint is not filled in (or base.vision and base.llm)"
    for key in ("checkpoint", "vision", "llm"):
        value = getattr(base, key)
        # A name that is not a path may be a hub id; whether it was pulled is checked when it is loaded.
        if value.startswith(("/", ".", "~")) and not Path(value).expanduser().exists():
            yield f"base.{key} = {value!r} does not exist"
