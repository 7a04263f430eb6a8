"""Recipes of fine-tuning: what to start from, which data, which stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from elysium_core.network.model_config import PUBLISHED_SYSTEM_TEXT

MODULES = {
    "vision": "network.visual_encoder",
    "selector": "network.adapter",
    "projector": "network.llm_proj",
    "llm": "network.llm",
}
"""Parts of a model that a stage trains or leaves, and where their weights are."""


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """What the first stage starts from: a checkpoint, or a vision encoder and a language model.

    Attributes:
        checkpoint: Folder or hub id of a model in the published layout.
        vision: Otherwise: folder or hub id of a CLIP (vision) model with safetensors weights.
        llm: And of a LLaMA model.
        adapter: Token adapter between them, as in :mod:`elysium_core.network.adapters`.
        visual_tokens: Tokens a frame that it keeps.
        system_text: Opening of every conversation.
    """

    checkpoint: str = ""
    vision: str = ""
    llm: str = ""
    adapter: str = "t_selector"
    visual_tokens: int = 108
    system_text: str = PUBLISHED_SYSTEM_TEXT


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One data set.

    Attributes:
        reader: Its layout: one of :data:`elysium_core.training.finetune.sources.READERS`.
        path: Its annotation file, or the folder that the reader looks in.
        media: Folder that pictures and videos are named relative to; that of ``path`` if empty.
        split: Where the reader knows splits.
        tasks: Tasks asked about boxes (``rec``, ``reg``, ``sot``, ``rsot``, ``video_reg``); all that fit if empty.
    """

    reader: str
    path: str = ""
    media: str = ""
    split: str = ""
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FineTuneStage:
    """One stage.

    Attributes:
        steps: Optimiser steps.
        mixture: Shares of the data sets; they need not add up to 1.
        lr: Peak learning rate.
        lr_scale: What multiplies it for ``vision``, ``selector``, ``projector`` or ``llm``; 1 where not named.
        trained: Modules that learn; the others are left as they are.
        batch: Samples a batch of one process.
        accumulate: Batches a step of one process.
        frames: Fewest and most frames of a video, drawn at random.
        interval: Shortest and longest distance between them [frames], drawn at random.
        max_turns: Most questions asked about one sample.
        max_tokens: Longest sample; what does not fit is left out question by question.
        warmup_share: Share of the steps for linear warm-up, 0..1; behind it half a cosine.
        final_lr: Last rate as a share of the peak, 0..1.
        weight_decay: AdamW's, of matrices.
        clip_norm: Largest norm of a gradient.
        gate: How the T-Selector's gate learns (:mod:`elysium_core.network.token_selector`).
        digit_weight: Weight of a box's digits in the loss.
        format_weight: Weight of what stands around them in answers that are boxes.
        text_weight: Weight of every other answer token.
        gradient_checkpointing: Keep no activations inside layers; compute them again.
        ema: Decay of a running average of the weights, which is then what is saved; 0 = none.
        init: Stage whose checkpoint this one starts from; the recipe's base if empty.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
        evaluate_every: Steps between two looks at the validation data; 0 = never.
        workers: Processes that read data, for each training process; 0 = the training process itself.
        threads: CPU threads of a training process.
    """

    steps: int
    mixture: dict[str, float]
    lr: float
    lr_scale: dict[str, float] = field(default_factory=dict)
    trained: tuple[str, ...] = tuple(MODULES)
    batch: int = 16
    accumulate: int = 1
    frames: tuple[int, int] = (1, 1)
    interval: tuple[int, int] = (1, 60)
    max_turns: int = 8
    max_tokens: int = 2048
    warmup_share: float = 0.03
    final_lr: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    gate: str = "straight_through"
    digit_weight: float = 1.0
    format_weight: float = 1.0
    text_weight: float = 1.0
    gradient_checkpointing: bool = False
    ema: float = 0.0
    init: str = ""
    log_every: int = 20
    save_every_s: float = 1800.0
    evaluate_every: int = 0
    workers: int = 2
    threads: int = 1


@dataclass(frozen=True, slots=True)
class FineTuneRecipe:
    """A run of fine-tuning.

    Attributes:
        name: Name of the run; its files lie in ``runs/<name>``.
        base: What the first stage starts from.
        data: Data sets by name.
        stages: Stages by name, run in the order of the file.
        export: Stage whose checkpoint is the result.
        validation: Data sets that evaluations look at; no stage may train on them.
        precision: ``bfloat16`` computes in half precision, with float32 weights; or ``float32``.
        stored_as: Type of the weights in the checkpoints: ``bfloat16``, ``float16`` or ``float32``.
        device: Where to train, without a launcher: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: Seed of everything random.
    """

    name: str
    base: BaseConfig
    data: dict[str, SourceConfig]
    stages: dict[str, FineTuneStage]
    export: str
    validation: tuple[str, ...] = ()
    precision: str = "bfloat16"
    stored_as: str = "bfloat16"
    device: str = "auto"
    seed: int = 1
