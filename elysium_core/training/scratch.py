"""A stage of training from scratch on generated clips: what :mod:`elysium_core.training.loop` runs for nano."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.files import atomic_path
from elysium_core.model.token_selector import TokenSelector
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.auxiliary import Oracle, PatchHeads, PointingHeads
from elysium_core.training.batches import Batch
from elysium_core.training.clip_batches import ClipBatches, step_seed
from elysium_core.training.config import Recipe
from elysium_core.training.loop import DONE_NAME, TrainingLoop, load_weights
from elysium_core.training.nano_model import build_network, build_tokenizer
from elysium_core.training.optimizer import MixedOptimizer
from elysium_core.training.records import Evaluation
from elysium_core.training.schedule import linear_factor
from elysium_core.training.scratch_pictures import draw_answers
from elysium_core.training.snapshots import WEIGHTS_NAME
from elysium_core.training.stage_work import LoopSettings
from elysium_core.training.stages import TrainingModel, parameter_groups

TOKENIZER_FOLDER = "tokenizer"

_TIED = frozenset({"network.llm.lm_head.weight"})
# Numbers of batches that no training reaches: they are looked at, never learnt from.
_HELD_OUT = 1 << 40
_EVALUATION_BATCHES = 4


def build_training_model(recipe: Recipe, tokenizer: TextTokenizer, pointing_weight: float) -> TrainingModel:
    """Build network and training-only modules with their first weights."""
    names = trainable_names()[: recipe.data.names]
    if len(names) < recipe.data.names:
        raise ConfigError(f"data.names = {recipe.data.names}, but the atlas has {len(names)}")
    model = recipe.model
    network = build_network(model, names, tokenizer.vocab_size, recipe.data.seed)
    middle, late = max(1, model.llm_layers // 2), max(1, model.llm_layers - 1)
    pointing = PointingHeads(model.llm_width, layers=((middle, late), (late,), (middle,)))
    return TrainingModel(
        network,
        PatchHeads(model.vision_width, len(names)),
        Oracle(names, tokenizer, model.llm_width, model.vision_width),
        pointing,
        pointing_weight,
    )


class StageRun:
    """One stage of a run, with its files in ``<folder>/<stage>``.

    When it is finished, ``state.safetensors`` holds all weights, those of training-only
    modules included; the stages that start from it take what they need.

    Args:
        recipe: The recipe.
        name: Stage name.
        folder: Folder of the whole run.
    """

    def __init__(self, recipe: Recipe, name: str, folder: Path) -> None:
        self.recipe, self.name = recipe, name
        self.stage = recipe.stages[name]
        self.run_folder, self.folder = folder, folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer_folder = folder / TOKENIZER_FOLDER
        names = trainable_names()[: recipe.data.names]
        self.tokenizer = build_tokenizer(names, recipe.model.vocab_size, self.tokenizer_folder)
        self.settings = LoopSettings(
            steps=self.stage.steps,
            evaluate_every=self.stage.evaluate_every,
            threads=self.stage.threads,
            tied=_TIED,
        )
        acceleration = Acceleration(recipe.device, find_unused=True)
        self.device = acceleration.device
        self.model = build_training_model(recipe, self.tokenizer, self.stage.pointing_weight).to(self.device)
        if isinstance(self.model.network.adapter, TokenSelector):
            self.model.network.adapter.gate = self.stage.gate
        self.optimizer = MixedOptimizer(parameter_groups(self.model, self.stage), self.stage.weight_decay)
        self.loop = TrainingLoop(self, self.model, self.optimizer, acceleration, self.folder)
        self._held_out: list[Batch] = []

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / DONE_NAME).exists()

    @property
    def batches(self) -> ClipBatches:
        """Generated clips and questions about them."""
        return ClipBatches(self.recipe, self.name, self.tokenizer_folder)

    def start(self) -> None:
        """Load what was saved, or the weights this stage starts from.

        Raises:
            DataError: A stage it starts from is not finished, or weights do not fit.
        """
        if self.loop.resume():
            return
        for position, other in enumerate(self.stage.init):
            path = self.run_folder / other / WEIGHTS_NAME
            if not path.exists():
                raise DataError(f"stage {self.name} starts from {other}, which has left no {path}; run it first")
            parts = self.stage.parts[position] if self.stage.parts else ()
            load_weights(self.model, path, tuple(part + "." for part in parts))
        if self.stage.align_names:
            self.model.oracle.align(self.model.patch_heads, self.model.network.llm.model.embed_tokens)

    def run(self) -> None:
        """Train to the last step; see :meth:`TrainingLoop.run`."""
        self.loop.run()

    def seed(self, number: int) -> int:
        """Seed of the noise in one batch."""
        return step_seed(self.recipe, self.name, number)

    def rate_factor(self, step: int) -> float:
        """Learning rate of a step as a share of the peak."""
        stage = self.stage
        return linear_factor(
            step, stage.steps, warmup_steps=stage.warmup_steps, decay_from=stage.decay_from, final=stage.final_lr
        )

    def weight(self, batch: Any) -> float:
        """Every batch counts the same: it has several losses, each with a count of its own."""
        return 1.0

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Losses of the stage's kind."""
        losses: dict[str, Tensor] = model(self.stage.kind, batch)
        return losses

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Losses on clips never trained on, and answers drawn over the first of them."""
        batches = self.batches
        self._held_out = self._held_out or [batches[_HELD_OUT + number] for number in range(_EVALUATION_BATCHES)]
        sums: dict[str, float] = {}
        for batch in self._held_out:
            for key, value in model(self.stage.kind, batch.to(self.device)).items():
                sums[key] = sums.get(key, 0.0) + float(value) / _EVALUATION_BATCHES
        first = self._held_out[0].to(self.device)
        return Evaluation(sums, draw_answers(self.model, self.stage.kind, first, self.tokenizer))

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write all weights."""
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(weights, temporary)
