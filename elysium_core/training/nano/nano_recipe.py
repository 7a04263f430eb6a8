"""Schema of recipes for training from scratch: model sizes, generated clips and stages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from elysium_core.data.synthetic.assets import SYSTEM_PHOTO_FOLDERS, held_out_names, trainable_names
from elysium_core.data.synthetic.scene import MAX_SIDE_PX, MIN_SIDE_PX
from elysium_core.network.token_selector import GATES
from elysium_core.training.recipe_file import (
    Amount,
    Count,
    Flag,
    NotNegative,
    Problem,
    RecipePart,
    Share,
    Text,
    Whole,
    checked,
    one_of,
    stage_problems,
)
from elysium_core.training.run_tokenizer import SMALLEST_VOCABULARY

KINDS = ("vision", "language", "distil", "joint", "adapter")
"""Kinds of stages; :mod:`elysium_core.training.nano.stages` has one step function for each."""

ADAPTER_TYPES = ("t_selector", "none", "cross_attention", "concatenation")
"""Token adapters that a model from scratch may have: those of the paper's table 7."""

_MOST_FRAMES = 32


class NanoModelConfig(RecipePart):
    """Sizes of a model that is trained from scratch.

    Attributes:
        side_px: Input side of the vision encoder [px].
        patch_px: Patch side [px].
        vision_width: Width of the vision encoder.
        vision_layers: Layers of the vision encoder.
        vision_heads: Attention heads of the vision encoder.
        llm_width: Width of the language model.
        llm_layers: Layers of the language model.
        llm_heads: Attention heads of the language model.
        llm_mlp: Width of its MLP.
        visual_tokens: Tokens per frame that the adapter gives.
        adapter: Token adapter: ``t_selector`` or, for stages of the kind ``adapter`` only, another one of
            :data:`elysium_core.network.adapters.ADAPTERS`.
        vocab_size: Most entries of the tokenizer.
        system_text: Text at the start of every prompt, with a space at its end; empty by default, to save time.
    """

    side_px: Annotated[Whole, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX)] = 128
    patch_px: Count = 16
    vision_width: Count = 128
    vision_layers: Count = 4
    vision_heads: Count = 4
    llm_width: Count = 128
    llm_layers: Count = 4
    llm_heads: Count = 4
    llm_mlp: Count = 384
    visual_tokens: Count = 24
    adapter: Annotated[Text, one_of(ADAPTER_TYPES)] = "t_selector"
    vocab_size: Annotated[Whole, Field(ge=SMALLEST_VOCABULARY)] = 1024
    system_text: Text = ""

    @property
    def patch_count(self) -> int:
        """Patches per frame."""
        return (self.side_px // self.patch_px) ** 2

    @model_validator(mode="after")
    def _sizes_fit(self) -> NanoModelConfig:
        return checked(self, _model_problems(self))


def _model_problems(model: NanoModelConfig) -> Iterator[Problem]:
    if model.side_px % model.patch_px:
        yield ("side_px",), f"is not a multiple of model.patch_px = {model.patch_px}"
    elif model.visual_tokens > model.patch_count:
        yield ("visual_tokens",), f"must be at most {model.patch_count}, the patches of a frame"
    elif model.adapter == "none" and model.visual_tokens != model.patch_count:
        yield ("visual_tokens",), f"must be {model.patch_count}, all patches of a frame, without an adapter"
    elif model.adapter == "concatenation" and model.patch_count % model.visual_tokens:
        yield ("visual_tokens",), f"must divide {model.patch_count}, the patches of a frame, for concatenation"
    for part in ("vision", "llm"):
        width, heads = getattr(model, f"{part}_width"), getattr(model, f"{part}_heads")
        if width % (2 * heads):
            yield (f"{part}_width",), f"is not a multiple of twice model.{part}_heads = {heads}"


Gap = tuple[Amount, Amount]


class SyntheticDataConfig(RecipePart):
    """Settings of the generated training clips.

    Attributes:
        names: Size of the vocabulary: the first N of the names that may be trained on.
        frames: Numbers of frames per clip.
        frame_weights: Shares of these numbers.
        objects: Numbers of objects per clip.
        object_weights: Shares of these numbers.
        gaps: Range of the time between frames, for each entry of ``frames`` [time units].
        max_turns: Most questions about one clip.
        absent_share: Share of questions about an object that is not in the image.
        vanish_share: Share of clips of several frames in which an object disappears.
        twin_share: Share of clips of several objects in which two have the same name.
        dye_share: Share of objects that are recoloured.
        plain_share: Share of questions with the name only, if it is unambiguous; the others
            add colour, size or place.
        photo_folders: Folders with background photos; only procedural backgrounds if empty.
        seed: Seed of all random numbers; each stage and step derives another one from it.
    """

    names: Count = 40
    frames: Annotated[tuple[Annotated[Count, Field(le=_MOST_FRAMES)], ...], Field(min_length=1)] = (1, 2, 3, 4)
    frame_weights: tuple[Amount, ...] = (0.25, 0.5, 0.1, 0.15)
    objects: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3, 4)
    object_weights: tuple[Amount, ...] = (0.1, 0.3, 0.3, 0.3)
    gaps: tuple[Gap, ...] = ((0.5, 2.5), (0.5, 12.0), (0.5, 5.0), (0.5, 3.0))
    max_turns: Count = 4
    absent_share: Share = 0.0
    vanish_share: Share = 0.0
    twin_share: Share = 0.0
    dye_share: Share = 0.0
    plain_share: Share = 1.0
    photo_folders: tuple[Text, ...] = tuple(map(str, SYSTEM_PHOTO_FOLDERS))
    seed: NotNegative = 1

    @model_validator(mode="after")
    def _mixture_fits(self) -> SyntheticDataConfig:
        return checked(self, _data_problems(self))


def _data_problems(data: SyntheticDataConfig) -> Iterator[Problem]:
    known = len(trainable_names())
    if data.names > known:
        yield ("names",), f"must be at most {known}; {len(held_out_names())} other sprites are held out for tests"
    if max(data.objects) >= data.names:
        yield ("objects",), f"must be numbers under data.names = {data.names}"
    for key, entries in (("frame_weights", "frames"), ("object_weights", "objects")):
        shares, count = getattr(data, key), len(getattr(data, entries))
        if len(shares) != count or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            yield (key,), f"must be {count} shares that add up to 1, one for each of data.{entries}"
    if len(data.gaps) != len(data.frames) or not all(low <= high for low, high in data.gaps):
        yield (
            ("gaps",),
            f"must be {len(data.frames)} pairs [shortest, longest], one for each of data.frames = {list(data.frames)}",
        )


class StageConfig(RecipePart):
    """One stage of a run.

    Attributes:
        kind: ``vision``, ``language``, ``distil``, ``joint`` or ``adapter``
            (:mod:`elysium_core.training.nano.stages`).
        steps: Optimiser steps.
        batch_frames: Frames per step; a step has ``batch_frames / T`` clips of T frames.
        lr: Peak learning rate of everything but the vision encoder.
        vision_lr: Peak learning rate of vision encoder, selector and projector.
        warmup_steps: Steps of linear warm-up.
        decay_from: Share of the steps after which the rate falls linearly to ``final_lr`` of its peak, 0..1.
        final_lr: Last rate as a share of the peak.
        frames: Number of frames per clip in this stage; 0 = ``frames`` of the data.
        objects: Numbers of objects per clip in this stage, equally frequent; empty = ``objects`` of the data.
            Stages that learn from single patches are faster with many objects: an image of 8 has about 3
            times as many as one of 2 or 3.
        init: Stages whose weights this one starts from; later ones override earlier ones.
        after: Stages that must be finished first, in addition to those of ``init``.
        parts: For each entry of ``init``, prefixes of the weights to load; empty = all.
        align_names: Before the first step, set the oracle's names from the vision encoder and adapt the word
            embeddings to them; needs ``patch_heads`` of a stage in ``init``.
        pointing_weight: Weight of the pointing loss.
        gate: How answers train the T-Selector's gate (:mod:`elysium_core.network.token_selector`);
            with ``hard`` only the loss on patches trains it.
        frozen: Prefixes of weights that this stage does not train.
        words_frozen: Whether to freeze word embeddings and oracle, because a projector is
            trained towards them.
        weight_decay: AdamW's weight decay.
        threads: CPU threads of the training process.
        evaluate_every: Steps between two evaluations on held-out clips, with losses and images of the
            model's answers; 0 = never.
    """

    kind: Annotated[Text, one_of(KINDS)]
    steps: Count
    batch_frames: Count = 32
    lr: Amount = 1.2e-3
    vision_lr: Amount = 1.5e-3
    warmup_steps: NotNegative = 60
    decay_from: Share = 0.5
    final_lr: Share = 0.03
    frames: NotNegative = 0
    objects: tuple[Count, ...] = ()
    init: tuple[Text, ...] = ()
    after: tuple[Text, ...] = ()
    parts: tuple[tuple[Text, ...], ...] = ()
    align_names: Flag = False
    pointing_weight: Amount = 0.5
    gate: Annotated[Text, one_of(GATES)] = "hard"
    frozen: tuple[Text, ...] = ()
    words_frozen: Flag = False
    weight_decay: Amount = 0.01
    threads: Count = 1
    evaluate_every: NotNegative = 500

    @model_validator(mode="after")
    def _init_fits(self) -> StageConfig:
        return checked(self, _init_problems(self))


def _init_problems(stage: StageConfig) -> Iterator[Problem]:
    if stage.parts and len(stage.parts) != len(stage.init):
        yield ("parts",), f"must have one list for each of init = {list(stage.init)}"
    if stage.align_names and not stage.init:
        yield ("align_names",), "needs a stage in init whose patch_heads are loaded"


class Recipe(RecipePart):
    """A run of training from scratch.

    Attributes:
        name: Name of the run; its files are in ``runs/<name>``.
        model: Sizes.
        data: Generated clips.
        stages: Stages by name, in the order of the file.
        export: Stage whose weights become the checkpoint.
        device: Device for training: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: Text
    stages: Annotated[dict[Text, StageConfig], Field(min_length=1)]
    export: Text
    model: NanoModelConfig = Field(default_factory=NanoModelConfig)
    data: SyntheticDataConfig = Field(default_factory=SyntheticDataConfig)
    device: Text = "auto"

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        return checked(self, [*stage_problems(self.stages, self.export), *_order_problems(self)])


def _order_problems(recipe: Recipe) -> Iterator[Problem]:
    data = recipe.data
    before: list[str] = []
    for name, stage in recipe.stages.items():
        for key in ("init", "after"):
            if unknown := [other for other in getattr(stage, key) if other not in before]:
                yield ("stages", name, key), f"names {', '.join(unknown)}, which is not a stage before it"
        if recipe.model.adapter != "t_selector" and stage.kind not in ("language", "adapter"):
            yield (
                ("stages", name, "kind"),
                f"{stage.kind!r} trains a T-Selector, not model.adapter = {recipe.model.adapter!r}",
            )
        if stage.frames and stage.frames not in data.frames:
            yield ("stages", name, "frames"), f"is not one of data.frames = {list(data.frames)}"
        if stage.objects and max(stage.objects) >= data.names:
            yield ("stages", name, "objects"), f"must be numbers under data.names = {data.names}"
        before.append(name)
