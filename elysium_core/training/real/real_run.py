"""A stage of ``kind: real``: what :mod:`elysium_core.training.loop` runs on photos or on made-up readings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.prompt.layout import PromptLayout
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.loop import DONE_NAME, TrainingLoop
from elysium_core.training.losses import Losses
from elysium_core.training.optimizer import BETAS, ScheduledAdamW, linear_factor
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.frame_losses import WordWeights
from elysium_core.training.real.frame_prompts import FramePrompts
from elysium_core.training.real.frame_questions import QuestionDrawer
from elysium_core.training.real.grown_weights import EMBEDDING, KnownNames, earlier_weights, has_other_encoder, new_rows
from elysium_core.training.real.held_out_sheets import held_out_sheets
from elysium_core.training.real.readings import ReadingTokens
from elysium_core.training.real.real_model import build_network, run_tokenizer, vision_settings
from elysium_core.training.real.real_recipe import WHOLE_KINDS, RealRecipe
from elysium_core.training.real.real_stages import RealTrainingModel, StepBatch
from elysium_core.training.real.stage_data import StageData
from elysium_core.training.real.trained_weights import TRAINED, parameter_groups
from elysium_core.training.real.word_parts import WordParts
from elysium_core.training.seeds import batch_seed
from elysium_core.training.snapshots import WEIGHTS_NAME, load_weights
from elysium_core.training.stage_work import LoopSettings

_TIED = frozenset({"network.llm.lm_head.weight"})
_POINTING_LAYERS = (2, 3)


class RealStageRun:
    """One stage of a run, with its files in ``<folder>/<stage>``.

    When it is finished, ``state.safetensors`` holds all weights, those of training-only modules included; the stages
    that start from it take what it has trained.

    Args:
        recipe: The recipe.
        name: Stage name.
        folder: Folder of the whole run.

    Raises:
        DataError: The encoder's weights cannot be read, or a name that the model shall know is in no photo.
    """

    def __init__(self, recipe: RealRecipe, name: str, folder: Path) -> None:
        self.recipe, self.name = recipe, name
        self.stage = recipe.stages[name]
        self.run_folder, self.folder = folder, folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.number = list(recipe.stages).index(name)
        stage = self.stage
        self.settings = LoopSettings(
            steps=stage.steps,
            batch=stage.batch,
            clip_norm=stage.clip_norm,
            log_every=stage.log_every,
            save_every_s=stage.save_every_s,
            evaluate_every=stage.evaluate_every,
            workers=stage.workers,
            threads=stage.threads,
            tied=_TIED,
        )
        acceleration = Acceleration(recipe.device, find_unused=True)
        self.device = acceleration.device
        self.data = StageData(recipe, name, folder)
        # Only here are questions about photos drawn.
        counts = self.data.photo_counts if recipe.model.words and stage.kind in WHOLE_KINDS else None
        self.model = build_training_model(recipe, name, folder, counts).to(self.device)
        self.optimizer = ScheduledAdamW(parameter_groups(self.model, stage), stage.weight_decay, BETAS)
        self.loop = TrainingLoop(self, self.model, self.optimizer, acceleration, self.folder)

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / DONE_NAME).exists()

    def start(self) -> None:
        """Load what was saved, or the weights this stage starts from.

        Raises:
            DataError: A stage it starts from is not finished, or weights do not fit.
        """
        if not self.loop.resume():
            self._load_first_weights()

    def _load_first_weights(self) -> None:
        for other in self.stage.init:
            load_weights(self.model, self._left_by(other), self._handed_on(other))
        if self.recipe.extends and not self.stage.init:
            first = build_training_model(self.recipe, self.name, self.run_folder).state_dict()
            self.model.load_state_dict(earlier_weights(self.recipe, first, self.model.tokenizer), strict=False)
        if self.stage.average:
            add_to_average(self.model, [self._left_by(other) for other in self.stage.average])

    def _left_by(self, name: str) -> Path:
        path = self.run_folder / name / WEIGHTS_NAME
        if not path.exists():
            raise DataError(f"stage {self.name} starts from {name}, which has left no {path}; run it first")
        return path

    def _handed_on(self, name: str) -> tuple[str, ...]:
        """What a stage has trained, and what it has from the stages it started from."""
        if self.recipe.extends:
            return ()
        prefixes = set(TRAINED[self.recipe.stages[name].kind])
        for other in self.recipe.stages[name].init:
            prefixes |= set(self._handed_on(other))
        return tuple(sorted(prefixes))

    def run(self) -> None:
        """Train to the last step; see :meth:`TrainingLoop.run`."""
        self.loop.run()

    @cached_property
    def batches(self) -> Dataset[Any]:
        """Readings, or pairs and whole photos that are trained on."""
        return self.data.batches()

    def seed(self, number: int) -> int:
        """Seed of the noise in one batch."""
        return batch_seed(self.recipe.data.seed, self.number, number)

    def rate_factor(self, step: int) -> float:
        """Learning rate of a step as a share of the peak."""
        stage = self.stage
        return linear_factor(
            step, stage.steps, warmup_steps=stage.warmup_steps, decay_from=stage.decay_from, final=stage.final_lr
        )

    def weight(self, batch: Any) -> float:
        """Every batch counts the same: all have as many pairs."""
        return 1.0

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Losses of the stage's kind; in evaluation mode also what the model writes."""
        losses: Losses = model(batch)
        return losses

    @cached_property
    def _looked_at(self) -> StepBatch:
        return self.data.held_out()

    def held_out(self) -> list[Any]:
        """One batch of pairs and frames of held-out photos, the same in every stage; of readings never trained on."""
        return [self._looked_at]

    @torch.no_grad()
    def pictures(self, model: nn.Module, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """Sheets of the first held-out pairs and frames with what the model says about them."""
        if not isinstance(model, RealTrainingModel):
            raise TypeError(f"the model became a {type(model).__name__}")
        return {} if self.stage.kind == "read" else held_out_sheets(model, batch)

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write all weights, averaged with the first ones as the stage wants it."""
        if keep := self.stage.keep:
            last = {name: value.clone() for name, value in weights.items()}
            self._load_first_weights()
            first = self.model.state_dict()
            weights = {name: torch.lerp(value, first[name], keep) for name, value in last.items()}
            if (rows := self.model.new_rows) is not None:
                # Their first values were random.
                weights[EMBEDDING][rows] = last[EMBEDDING][rows]
            self.model.load_state_dict(weights, strict=False)
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(weights, temporary)


def add_to_average(model: nn.Module, paths: Sequence[Path]) -> None:
    """Replace a model's weights by the mean of them and of saved ones.

    Raises:
        DataError: Those belong to another model.
    """
    share = 1 / (len(paths) + 1)
    total = {name: value * share for name, value in model.state_dict().items() if value.is_floating_point()}
    for path in paths:
        load_weights(model, path)
        for name, value in model.state_dict().items():
            if name in total:
                total[name] += value * share
    model.load_state_dict(total, strict=False)


def build_training_model(
    recipe: RealRecipe, name: str, folder: Path, counts: NDArray[np.int64] | None = None
) -> RealTrainingModel:
    """Build network and training-only modules of a stage with their first weights.

    Args:
        recipe: The recipe.
        name: The stage.
        folder: Of the run.
        counts: (V,) number of photos that show each name; the same for all if omitted.

    Raises:
        DataError: The encoder's weights cannot be read.
    """
    model, tokenizer = recipe.model, run_tokenizer(recipe, folder)
    stage, layout = recipe.stages[name], PromptLayout(tokenizer, model.system_text)
    network = build_network(model, tokenizer.vocab_size, recipe.data.seed)
    reading = ReadingTokens(model.crop.live_cells, model.anchor_tokens, model.token_width, model.llm_width)
    layers = tuple(sorted({min(layer, model.llm_layers) for layer in _POINTING_LAYERS}))
    pointing = PointingHeads(model.llm_width, layers=(layers,))
    words = None
    if model.words:
        prompts = FramePrompts(layout, model.frame_tokens, model.words)
        drawer = QuestionDrawer(model.words, np.ones(len(model.words), np.int64) if counts is None else counts)
        grid = vision_settings(model).grid
        weights = WordWeights(stage.name_weight, stage.readout_weight)
        words = WordParts(prompts, drawer, grid, stage.questions, model.token_width, model.llm_width, weights)
    follow = FollowPrompts(layout, model.anchor_tokens, model.live_tokens)
    rows = None
    if recipe.extends:
        before, now = KnownNames.of_checkpoint(recipe.extends), KnownNames(model.words, tokenizer)
        rows = new_rows(before, now, all_names=has_other_encoder(recipe))
    return RealTrainingModel(network, reading, pointing, words, follow, tokenizer, stage, rows)
