"""Recipes of ``kind: real``: photos, what is drawn of them, stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.errors import DataError
from elysium_core.training.real.real_sizes import RealModelConfig
from elysium_core.training.recipe_file import (
    Amount,
    Count,
    NotNegative,
    Number,
    Problem,
    RecipePart,
    Share,
    Text,
    Whole,
    checked,
    one_of,
    stage_problems,
)

KINDS = ("read", "select", "joint", "cells", "find")
"""What a stage can train; :mod:`elysium_core.training.real.real_stages` has one step function for each."""
FRAME_KINDS = ("cells", "find")
"""Kinds that see whole frames alone; what follows objects stays what it is."""
WHOLE_KINDS = ("joint", "find")
"""Kinds that leave a model which can be used."""
PAIRS_FOLDER, FRAMES_FOLDER = "pairs", "frames"
"""Folders of a run that hold drawn pairs and frames; no stage has their names."""

_PAIRS = PairSettings()


class PhotoDataConfig(RecipePart):
    """Photos, and the pairs of stills that are drawn from them.

    Attributes:
        photos: Folders of photos, in any layout of :func:`elysium_core.data.photos.photo_folders.read_photos`.
        teachers: For each folder a file with a teacher's boxes, or an empty text; may be shorter.
        cutouts: Cache folder of cut-outs; sprites alone if empty.
        held_out: Pairs of held-out photos that evaluations look at.
        pool: Number of pairs that are kept on disk and used again; 0 = every pair is drawn anew.
        frame_pool: Likewise of whole frames.
        held_out_frames: Held-out photos that evaluations look at.
        seed: Seed of everything.
        cutout_share: This and the following: see :class:`elysium_core.data.photos.pair_settings.PairSettings`.
    """

    photos: tuple[Text, ...] = ()
    teachers: tuple[Text, ...] = ()
    cutouts: Text = ""
    held_out: Annotated[Whole, Field(ge=2)] = 256
    pool: NotNegative = 0
    frame_pool: NotNegative = 0
    held_out_frames: Count = 64
    seed: NotNegative = 1
    cutout_share: Share = _PAIRS.cutout_share
    true_box_share: Share = _PAIRS.true_box_share
    absent_share: Share = _PAIRS.absent_share
    look_alike_share: Share = _PAIRS.look_alike_share
    gone_share: Share = _PAIRS.gone_share
    sprite_share: Share = _PAIRS.sprite_share
    distractor_share: Share = _PAIRS.distractor_share
    distractor_like_share: Share = _PAIRS.distractor_like_share
    twin_share: Share = _PAIRS.twin_share
    occluder_share: Share = _PAIRS.occluder_share
    far_share: Share = _PAIRS.far_share
    wide_share: Share = _PAIRS.wide_share

    @model_validator(mode="after")
    def _shares_fit(self) -> PhotoDataConfig:
        return checked(self, _data_problems(self))

    def pair_settings(self, model: RealModelConfig) -> PairSettings:
        """What pairs are drawn from, for a model's sizes of crops."""
        shares = {key: getattr(self, key) for key in type(self).model_fields if key.endswith("_share")}
        return PairSettings(anchor_px=model.anchor_px, live_px=model.live_px, **shares)


def _data_problems(data: PhotoDataConfig) -> Iterator[Problem]:
    for key, other in (("cutout_share", "true_box_share"), ("look_alike_share", "gone_share")):
        if getattr(data, key) + getattr(data, other) > 1 + 1e-9:
            yield (key,), f"and data.{other} = {getattr(data, other):g} are more than 1 together"
    if len(data.teachers) > len(data.photos) > 0:
        yield ("teachers",), f"must have at most {len(data.photos)} entries, one for each of data.photos"


class RealStageConfig(RecipePart):
    """One stage.

    Attributes:
        kind: ``read``: the language model learns to read boxes and names off made-up tokens, without pictures.
            ``select``: the selectors learn to find objects. ``joint``: all of it. ``find``: the selector of frames and
            the encoder's blocks that only frames run through; what follows objects stays bit for bit what it is.
            ``cells``: the same by what cells tell, without the language model and so ten times as fast.
        steps: Optimiser steps.
        batch: Pairs a step.
        frame_batch: Whole frames a step, of a model that knows names.
        answer_frames: Frames of a step that the language model is asked about in training; the others teach the
            selector alone, which takes a tenth of the time. 0 = all of them.
        questions: Questions about each of those.
        word_weight: Weight of the losses of whole frames.
        lr: Peak learning rate of language model and projector.
        selector_lr: Of the selector.
        encoder_lr: Of the encoder's blocks that only frames run through; 0 = they stay as they are.
        warmup_steps: Steps of linear warm-up.
        decay_from: Share of the steps after which the rate falls linearly to ``final_lr`` of its peak, 0..1.
        final_lr: Last rate as a share of the peak.
        init: Stages whose weights this one starts from, a later one over an earlier one; of each, what it has trained.
        average: Stages whose weights are averaged with those (Wortsman et al. 2022); stages that go on from each other
            are near enough for that.
        keep: Share of the weights it started from in those it leaves (Wortsman et al. 2022b): less is forgotten of
            what its own data do not show.
        after: Stages that must be finished first (those of ``init`` always must).
        name_weight: Weight of the names that the language model writes.
        readout_weight: Weight of the loss that draws tokens on objects to the words for them.
        distil_weight: Weight of the loss that draws the selector's tokens to those of a ``read`` stage.
        pointing_weight: Weight of the pointing loss.
        weight_decay: AdamW's, of matrices.
        clip_norm: Largest norm of a gradient.
        threads: CPU threads of the training process.
        workers: Processes that draw pairs.
        evaluate_every: Steps between two looks at held-out pairs; 0 = never.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
    """

    kind: Annotated[Text, one_of(KINDS)]
    steps: Count
    batch: Annotated[Whole, Field(ge=2, le=4096)] = 32
    frame_batch: Annotated[Whole, Field(ge=2, le=4096)] = 16
    answer_frames: NotNegative = 0
    questions: Annotated[Whole, Field(ge=2, le=64)] = 6
    word_weight: Amount = 1.0
    lr: Amount = 1e-3
    selector_lr: Amount = 4e-4
    encoder_lr: Amount = 0.0
    warmup_steps: NotNegative = 60
    decay_from: Share = 0.3
    final_lr: Share = 0.01
    init: tuple[Text, ...] = ()
    average: tuple[Text, ...] = ()
    keep: Share = 0.0
    after: tuple[Text, ...] = ()
    name_weight: Amount = 0.06
    readout_weight: Amount = 0.1
    distil_weight: Amount = 0.0
    pointing_weight: Amount = 0.5
    weight_decay: Amount = 0.01
    clip_norm: Annotated[Number, Field(gt=0)] = 2.0
    threads: Count = 1
    workers: NotNegative = 1
    evaluate_every: NotNegative = 500
    log_every: Count = 20
    save_every_s: Amount = 60.0

    @model_validator(mode="after")
    def _settings_fit(self) -> RealStageConfig:
        idle = ("distil_weight", "encoder_lr") if self.kind == "read" else ()
        said = "has no effect in a stage of kind read: it has no pictures"
        return checked(self, [((key,), said) for key in idle if getattr(self, key)])


class RealRecipe(RecipePart):
    """A whole run.

    Attributes:
        kind: ``real``; tells this recipe from others.
        name: Name of the run; its files lie in ``runs/<name>``.
        stages: Stages by name, in the order of the file.
        export: Stage whose weights become the checkpoint; of kind ``joint`` or ``find``.
        data: Photos and pairs.
        model: Sizes.
        extends: A checkpoint of this kind (``real``, or a folder) that stages without ``init`` start from;
            ``model.words`` has its names and further ones. Empty = they start from scratch. Stages are then of kind
            ``cells`` or ``find``, which also train the language model's rows of the further names. If the model has
            another vision encoder than that checkpoint, its selector of frames starts from scratch, and the rows of all
            names are trained.
        device: Where to train: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    kind: Literal["real"]
    name: Text
    stages: Annotated[dict[Text, RealStageConfig], Field(min_length=1)]
    export: Text
    data: PhotoDataConfig = Field(default_factory=PhotoDataConfig)
    model: RealModelConfig = Field(default_factory=RealModelConfig)
    extends: Text = ""
    device: Text = "auto"

    @model_validator(mode="after")
    def _stages_fit(self) -> RealRecipe:
        return checked(self, [*stage_problems(self.stages, self.export), *_order_problems(self)])

    def has_read(self, name: str) -> bool:
        """Whether a stage starts, over any number of others, from one of kind ``read``."""
        return any(self.stages[other].kind == "read" or self.has_read(other) for other in self.stages[name].init)


def _order_problems(recipe: RealRecipe) -> Iterator[Problem]:
    before: list[str] = []
    for name, stage in recipe.stages.items():
        known = True
        for key in ("init", "average", "after"):
            if unknown := [other for other in getattr(stage, key) if other not in before]:
                known = False
                yield ("stages", name, key), f"names {', '.join(unknown)}, which is not a stage before it"
        if known and stage.distil_weight and not recipe.has_read(name):
            yield ("stages", name, "distil_weight"), "needs a stage of kind read in init, whose tokens are the model"
        for key in ("average", "keep"):
            if getattr(stage, key) and not stage.init and not (key == "keep" and recipe.extends):
                yield ("stages", name, key), "needs a stage in init, with which weights are averaged"
        if stage.kind in FRAME_KINDS and not recipe.model.words:
            yield ("stages", name, "kind"), f"is {stage.kind}, but model.words is empty: there is nothing to find"
        if name in (PAIRS_FOLDER, FRAMES_FOLDER):
            yield ("stages", name), f"cannot be the name of a stage; it is the folder of the drawn {name}"
        if recipe.extends and stage.kind not in FRAME_KINDS:
            kinds = " or ".join(FRAME_KINDS)
            yield ("stages", name, "kind"), f"is not {kinds}, as stages of a run that extends a checkpoint have to be"
        before.append(name)
    if recipe.export in recipe.stages and recipe.stages[recipe.export].kind not in WHOLE_KINDS:
        yield ("export",), "is not a stage of kind joint or find; the others do not leave a whole model"


def require_files(recipe: RealRecipe) -> None:
    """Check that everything a run reads is there, before anything is loaded.

    Raises:
        DataError: Paths are not filled in, or lead nowhere; one sentence names all of them.
    """
    missing = []
    weights, data = recipe.model.encoder_weights, recipe.data
    if not weights:
        missing.append(
            "model.encoder_weights is not filled in; make the file with `python training/import_efficientnet.py`"
        )
    elif not Path(weights).is_file():
        missing.append(f"model.encoder_weights = {weights!r} does not exist")
    if not data.photos:
        missing.append("data.photos is not filled in (folders of photos, see docs/data.md)")
    for key in ("photos", "teachers"):
        missing += [
            f"data.{key}: {path!r} does not exist" for path in getattr(data, key) if path and not Path(path).exists()
        ]
    if data.cutouts and not Path(data.cutouts).is_dir():
        missing.append(
            f"data.cutouts = {data.cutouts!r} does not exist; make it with `python training/photo_data.py cutouts`"
        )
    if missing:
        raise DataError(f"recipe {recipe.name}: {'; '.join(missing)}; set them in the file or as key=value")
