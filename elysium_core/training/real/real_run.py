"""A stage of ``kind: real``: what :mod:`elysium_core.training.loop` runs on pairs of stills or on made-up readings."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.data.photos.cutout_cache import CutoutCache
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.pair_batches import PairBatches
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.prompt.layout import PromptLayout
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.loop import DONE_NAME, TrainingLoop
from elysium_core.training.losses import Losses
from elysium_core.training.optimizer import BETAS, ScheduledAdamW, linear_factor
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.real.follow_prompts import FollowPrompts
from elysium_core.training.real.pair_answers import answer_pairs, answer_sheet
from elysium_core.training.real.pair_features import BLOCK_PAIRS, FreshPairs, PairEncoder, PairFeatures, PooledPairs
from elysium_core.training.real.readings import ReadingBatches, ReadingTokens
from elysium_core.training.real.real_model import build_network, crop_encoder, run_tokenizer
from elysium_core.training.real.real_recipe import POOL_FOLDER, RealRecipe
from elysium_core.training.real.real_stages import TRAINED, RealTrainingModel, best_boxes, parameter_groups
from elysium_core.training.sample_answers import training_runtime
from elysium_core.training.seeds import batch_seed
from elysium_core.training.snapshots import WEIGHTS_NAME, load_weights
from elysium_core.training.stage_work import LoopSettings

_TIED = frozenset({"network.llm.lm_head.weight"})
# Numbers of batches that no training reaches.
_HELD_OUT = 1 << 40
_PICTURED = 24


class RealStageRun:
    """One stage of a run, with its files in ``<folder>/<stage>``.

    When it is finished, ``state.safetensors`` holds all weights, those of training-only modules included; the stages
    that start from it take what it has trained.

    Args:
        recipe: The recipe.
        name: Stage name.
        folder: Folder of the whole run.

    Raises:
        DataError: The encoder's weights cannot be read.
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
        self.model = build_training_model(recipe, name, folder).to(self.device)
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
        if self.loop.resume():
            return
        for other in self.stage.init:
            path = self.run_folder / other / WEIGHTS_NAME
            if not path.exists():
                raise DataError(f"stage {self.name} starts from {other}, which has left no {path}; run it first")
            load_weights(self.model, path, self._handed_on(other))

    def _handed_on(self, name: str) -> tuple[str, ...]:
        """What a stage has trained, and what it has from the stages it started from."""
        prefixes = set(TRAINED[self.recipe.stages[name].kind])
        for other in self.recipe.stages[name].init:
            prefixes |= set(self._handed_on(other))
        return tuple(sorted(prefixes))

    def run(self) -> None:
        """Train to the last step; see :meth:`TrainingLoop.run`."""
        self.loop.run()

    @cached_property
    def batches(self) -> Dataset[Any]:
        """Readings, or pairs of photos that are trained on."""
        stage, model, data = self.stage, self.recipe.model, self.recipe.data
        if stage.kind == "read":
            return ReadingBatches(model.crop.live_cells, stage.batch, batch_seed(data.seed, self.number))
        generator, encoder = self._generator(held_out=False), self._pair_encoder
        if not data.pool:
            # Each stage has batches of its own; so many that no training reaches their end.
            seed = batch_seed(data.seed, self.number) % (1 << 62)
            return FreshPairs(PairBatches(generator, stage.batch, seed, _HELD_OUT), encoder)
        blocks = PairBatches(generator, BLOCK_PAIRS, data.seed, max(1, data.pool // BLOCK_PAIRS))
        seed = batch_seed(data.seed, self.number)
        return PooledPairs(blocks, encoder, self._pool_folder, stage.batch, seed, self._drawn_before())

    def _drawn_before(self) -> int:
        """Blocks that earlier stages have drawn."""
        before = list(self.recipe.stages.values())[: self.number]
        return sum(stage.steps * stage.batch for stage in before if stage.kind != "read") // BLOCK_PAIRS

    @property
    def _pool_folder(self) -> Path:
        """Where drawn pairs are kept: other data or another encoder have another folder."""
        model = self.recipe.model
        settings = self.recipe.data.model_dump(mode="json", exclude={"pool", "held_out"})
        settings |= {key: getattr(model, key) for key in ("contrast", "live_px", "anchor_px")}
        settings["encoder"] = hash_file(Path(model.encoder_weights))
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.run_folder / POOL_FOLDER / name

    @cached_property
    def _pair_encoder(self) -> PairEncoder:
        # A copy of its own on the CPU: worker processes must not hold the model that is trained.
        network = build_network(self.recipe.model, self.model.tokenizer.vocab_size, self.recipe.data.seed)
        return PairEncoder(crop_encoder(network).eval().requires_grad_(requires_grad=False))

    def _generator(self, *, held_out: bool) -> PairGenerator:
        data = self.recipe.data
        teachers = [Path(path) if path else None for path in data.teachers]
        photos = PhotoSet.open([Path(path) for path in data.photos], teachers).part(held_out=held_out)
        library = CutoutLibrary(CutoutCache(Path(data.cutouts)) if data.cutouts else None).part(held_out=held_out)
        return PairGenerator(photos, library, data.pair_settings(self.recipe.model))

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
    def _looked_at(self) -> list[Any]:
        count, data = self.recipe.data.held_out, self.recipe.data
        if self.stage.kind == "read":
            return [ReadingBatches(self.recipe.model.crop.live_cells, count, data.seed)[_HELD_OUT]]
        pairs = PairBatches(self._generator(held_out=True), count, data.seed, 1)
        return [self._pair_encoder.encode(pairs[0], keep_pixels=True)]

    def held_out(self) -> list[Any]:
        """One batch of pairs of held-out photos, the same in every stage; of readings never trained on."""
        return self._looked_at

    @torch.no_grad()
    def pictures(self, model: nn.Module, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """A sheet of the first held-out pairs with what the model says about them."""
        if not isinstance(model, RealTrainingModel):
            raise TypeError(f"the model became a {type(model).__name__}")
        if not isinstance(batch, PairFeatures) or batch.live_pixels is None:
            return {}
        shown = batch.rows(torch.arange(min(_PICTURED, len(batch.live_box)), device=batch.live_box.device))
        anchors, live, boxes = model.look(shown)
        answers = None
        if self.stage.kind == "joint":
            told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
            runtime = training_runtime(model.network, model.tokenizer)
            answers = answer_pairs(runtime, model.prompts, told, seen, shown.anchor_box)
        return {"pairs": answer_sheet(shown, best_boxes(live, boxes), answers)}

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write all weights."""
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(weights, temporary)


def build_training_model(recipe: RealRecipe, name: str, folder: Path) -> RealTrainingModel:
    """Build network and training-only modules of a stage with their first weights.

    Raises:
        DataError: The encoder's weights cannot be read.
    """
    model, tokenizer = recipe.model, run_tokenizer(recipe, folder)
    network = build_network(model, tokenizer.vocab_size, recipe.data.seed)
    reading = ReadingTokens(model.crop.live_cells, model.anchor_tokens, model.token_width, model.llm_width)
    middle, late = max(1, model.llm_layers // 2), max(1, model.llm_layers - 1)
    pointing = PointingHeads(model.llm_width, layers=(tuple(sorted({middle, late})),))
    prompts = FollowPrompts(PromptLayout(tokenizer, model.system_text), model.anchor_tokens, model.live_tokens)
    return RealTrainingModel(network, reading, pointing, prompts, tokenizer, recipe.stages[name])
