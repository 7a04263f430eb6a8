"""A stage of fine-tuning on real data, run by :mod:`elysium_core.training.loop`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.device import DTYPES
from elysium_core.errors import ConfigError, DataError
from elysium_core.network.adapters import SelectingAdapter
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.prompt.vocabulary import extended_names
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.finetune.base_model import (
    FineTuneModel,
    StartingPoint,
    cast_frozen,
    checkpoint_activations,
    choose_trained,
    load_base,
    starting_point,
)
from elysium_core.training.finetune.eight_bit import EightBitAdamW, embeddings_of
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.low_rank import add_low_rank, merged
from elysium_core.training.finetune.mixed_batches import DataBatches, FineTuneBatch, ModelInput
from elysium_core.training.loop import DONE_NAME, TrainingLoop
from elysium_core.training.losses import Losses
from elysium_core.training.optimizer import ScheduledAdamW, TrainingOptimizer, WeightAverage, cosine_factor
from elysium_core.training.sample_answers import answer_questions, draw_sample, training_runtime
from elysium_core.training.stage_work import LoopSettings

CHECKPOINT_FOLDER = "checkpoint"

_NETWORK = "network."
_TIED = frozenset({"network.llm.lm_head.weight"})
_EVALUATION_BATCHES = 4
_MOST_PICTURES = 4
_VALIDATION_SALT = 1_000_003


class FineTuneStageRun:
    """One stage of a run. Its files, with the resulting checkpoint, are in ``<folder>/<stage>``.

    Args:
        recipe: The recipe.
        name: Stage name.
        folder: Folder of the whole run.

    Raises:
        DataError: The stage it starts from is not finished.
        ConfigError: Its settings cannot be used with this kind of processes.
        ModelFileError: The base cannot be loaded.
    """

    def __init__(self, recipe: FineTuneRecipe, name: str, folder: Path) -> None:
        self.recipe, self.name = recipe, name
        self.stage = recipe.stages[name]
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.acceleration = Acceleration(recipe.device, recipe.precision, self.stage.accumulate)
        self.start = _starting_point(recipe, name, folder)
        network = self.start.network
        self.settings = _loop_settings(self.stage, tied=network.llm.size.tied)
        if isinstance(network.adapter, SelectingAdapter):
            network.adapter.learn_by(self.stage.gate)
        self.input = ModelInput(
            str(self.start.llm_folder),
            self.start.config.system_text,
            self.start.config.adapter.out_token_num,
            network.visual_encoder.side_px,
        )
        self._number = list(recipe.stages).index(name)
        if self.stage.lora_rank:
            add_low_rank(network.llm, self.stage, recipe.seed + self._number)
        self._held_out: list[FineTuneBatch] = []
        model = FineTuneModel(network)
        optimizer, average = _learning(model, name, self.stage, self.acceleration)
        self.loop = TrainingLoop(self, model, optimizer, self.acceleration, self.folder, average)

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / DONE_NAME).exists()

    @property
    def batches(self) -> DataBatches:
        """The stage's mixture."""
        return DataBatches(self.recipe, self.stage, self.stage.mixture, self.input, self._number)

    def run(self) -> None:
        """Train to the last step, starting from the newest saved state.

        Raises:
            DataError: A data set cannot be read at all, or loss or gradient is not finite.
            OSError: A state or a record cannot be written; the state before it is kept.
        """
        self.batches.sizes()
        self.loop.resume()
        self.loop.run()

    def seed(self, number: int) -> int:
        """Return the seed of PyTorch for a batch; the model itself draws no random numbers."""
        return int(np.random.SeedSequence([self.recipe.seed, self._number, number]).generate_state(1)[0])

    def rate_factor(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak."""
        stage = self.stage
        return cosine_factor(step, stage.steps, warmup_share=stage.warmup_share, final=stage.final_lr)

    def weight(self, batch: FineTuneBatch) -> float:
        """Return the sum of the weights of a batch's answer tokens."""
        return float(batch.label_weight[:, 1:].sum())

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Return the losses of the answers."""
        losses: Losses = model(batch)
        return losses

    def held_out(self) -> list[FineTuneBatch]:
        """Return batches of validation data: the same for any number of processes, each of which gets all of them."""
        if not self._held_out:
            shares = dict.fromkeys(self.recipe.validation, 1.0)
            batches = DataBatches(self.recipe, self.stage, shares, self.input, _VALIDATION_SALT)
            self._held_out = [batches[number] for number in range(_EVALUATION_BATCHES)]
        return self._held_out

    def pictures(self, model: nn.Module, batch: FineTuneBatch) -> dict[str, NDArray[np.uint8]]:
        """Return the model's answers, drawn on the first samples of a batch that have images."""
        if not isinstance(model, FineTuneModel):
            raise TypeError(f"the model became a {type(model).__name__}")
        runtime = training_runtime(model.network, TextTokenizer.from_folder(self.input.tokenizer_folder))
        ends = batch.frame_counts.cumsum(0).tolist()
        pictures: dict[str, NDArray[np.uint8]] = {}
        for row, (count, end) in enumerate(zip(batch.frame_counts.tolist(), ends, strict=True)):
            if count and len(pictures) < _MOST_PICTURES:
                images = batch.images[end - count : end].cpu().numpy()
                tokens = (batch.token_ids[row], batch.branch[row], batch.label_weight[row])
                pictures[f"answers-{row}"] = draw_sample(list(images), answer_questions(runtime, images, *tokens))
        return pictures

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the checkpoint."""
        network = self._with_frozen({key.removeprefix(_NETWORK): value for key, value in weights.items()})
        if self.stage.lora_rank:
            network = merged(network, self.stage)
        config = self.start.config
        # A model of few names knows afterwards those that it was taught.
        names = extended_names(config.vocabulary, self.batches.expressions()) if config.vocabulary else ()
        longest = max(config.clip_length, self.stage.frames[1])
        start = replace(self.start, config=replace(config, clip_length=longest, vocabulary=names))
        start.save(self.folder / CHECKPOINT_FOLDER, network, DTYPES[stored_type(self.recipe, self.name)])

    def _with_frozen(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add frozen weights that were held rounded, or that DeepSpeed does not return, as they were at the start."""
        names = [name for name in self.start.network.state_dict() if _NETWORK + name not in self.settings.tied]
        missing = [name for name in names if name not in weights or weights[name].dtype == torch.bfloat16]
        if not missing:
            return weights
        before = _starting_point(self.recipe, self.name, self.folder.parent).network.state_dict()
        # peft has put the layers with adapters one level deeper.
        return weights | {name: before[name.replace(".base_layer.", ".")] for name in missing}


def stored_type(recipe: FineTuneRecipe, name: str) -> str:
    """Return the type of the weights in the checkpoint of a stage.

    A stage that another one starts from keeps float32: rounding would undo updates that are small beside their weight.
    """
    goes_on = any(stage.init == name for stage in recipe.stages.values())
    return "float32" if goes_on else recipe.stored_as


def _starting_point(recipe: FineTuneRecipe, name: str, folder: Path) -> StartingPoint:
    init = recipe.stages[name].init
    if not init:
        return load_base(recipe.base, recipe.seed)
    before = folder / init
    if not (before / DONE_NAME).exists():
        raise DataError(f"stage {name} starts from {init}, which is not finished; run it first")
    return starting_point(load_checkpoint(before / CHECKPOINT_FOLDER, dtype=DTYPES["float32"]))


def _loop_settings(stage: FineTuneStage, *, tied: bool) -> LoopSettings:
    return LoopSettings(
        steps=stage.steps,
        batch=stage.batch,
        accumulate=stage.accumulate,
        clip_norm=stage.clip_norm,
        log_every=stage.log_every,
        save_every_s=stage.save_every_s,
        evaluate_every=stage.evaluate_every,
        workers=stage.workers,
        threads=stage.threads,
        tied=_TIED if tied else frozenset(),
    )


def _learning(
    model: FineTuneModel, name: str, stage: FineTuneStage, acceleration: Acceleration
) -> tuple[TrainingOptimizer, WeightAverage | None]:
    """Freeze and group the weights; return the optimiser, and the running average if there is one.

    Raises:
        ConfigError: There is nothing to train, or the optimiser or a running average cannot be sharded.
        BackendError: The optimiser needs a package, or cannot run on this device.
    """
    groups = choose_trained(model, stage)
    if not groups:
        raise ConfigError(f"stages.{name}.trained = {list(stage.trained)} has nothing to learn: gate is hard")
    if stage.gradient_checkpointing:
        checkpoint_activations(model)
    if acceleration.sharded:
        _require_shardable(name, stage)
    else:
        if acceleration.precision == "bfloat16":
            cast_frozen(model, torch.bfloat16)
        model.to(acceleration.device)
    average = WeightAverage(model, stage.ema) if stage.ema else None
    if stage.optimizer == "adamw8bit":
        return EightBitAdamW(groups, stage.weight_decay, embeddings_of(model)), average
    return ScheduledAdamW(groups, stage.weight_decay), average


def _require_shardable(name: str, stage: FineTuneStage) -> None:
    """Refuse what needs whole weights in each process."""
    for key, value, other in (("ema", stage.ema, 0.0), ("optimizer", stage.optimizer, "adamw")):
        if value != other:
            raise ConfigError(
                f"stages.{name}.{key} = {value} needs whole weights in each process; set it to {other}, or launch "
                "with training/accelerate/data_parallel.yaml"
            )
