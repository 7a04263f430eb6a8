"""A stage of training from scratch on generated clips, run by :mod:`elysium_core.training.loop`.

Each stage also draws sample images of its predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path
from elysium_core.io.overlay import draw_boxes
from elysium_core.network.adapters import SelectingAdapter
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.loop import DONE_NAME, TrainingLoop
from elysium_core.training.losses import Losses
from elysium_core.training.nano.auxiliary import Oracle, PatchHeads
from elysium_core.training.nano.clip_batches import Batch, ClipBatches, step_seed
from elysium_core.training.nano.nano_model import build_network, build_tokenizer
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.stages import TrainingModel, parameter_groups
from elysium_core.training.optimizer import MixedOptimizer, linear_factor
from elysium_core.training.pointing import PointingHeads
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER
from elysium_core.training.sample_answers import answer_questions, draw_sample, training_runtime
from elysium_core.training.snapshots import WEIGHTS_NAME, load_weights
from elysium_core.training.stage_work import LoopSettings

_MOST_CLIPS = 4
_PICTURE_PX = 256
_SMALLEST_SIDE = 0.01


def draw_answers(
    model: TrainingModel, kind: str, batch: Batch, tokenizer: TextTokenizer
) -> dict[str, NDArray[np.uint8]]:
    """Draw predictions of a model for the first clips of a batch.

    ``vision`` and ``distil`` draw the boxes predicted from patches, ``joint`` the answers to
    questions. ``language`` uses no pixels, so nothing is drawn.

    Args:
        model: The model in evaluation mode.
        kind: Kind of the stage.
        batch: The batch, on the model's device.
        tokenizer: Tokenizer of the model.

    Returns:
        Images by name.
    """
    if kind in ("vision", "distil"):
        return _patch_pictures(model, batch)
    return _question_pictures(model, batch, tokenizer) if kind in ("joint", "adapter") else {}


def _question_pictures(model: TrainingModel, batch: Batch, tokenizer: TextTokenizer) -> dict[str, NDArray[np.uint8]]:
    runtime = training_runtime(model.network, tokenizer)
    pictures = {}
    for row in range(min(_MOST_CLIPS, len(batch.token_ids))):
        images = batch.images[row * batch.frames : (row + 1) * batch.frames].cpu().numpy()
        answers = answer_questions(runtime, images, batch.token_ids[row], batch.branch[row], batch.label_weight[row])
        pictures[f"answers-{row}"] = draw_sample(list(images), answers)
    return pictures


@torch.no_grad()
def _patch_pictures(model: TrainingModel, batch: Batch) -> dict[str, NDArray[np.uint8]]:
    frames = min(_MOST_CLIPS, len(batch.images))
    tokens = model.network.visual_encoder(model.transform.normalize(batch.images[:frames]))
    *_, told = model.patch_heads(tokens)
    pictures = {}
    for frame in range(frames):
        owners, truth = batch.patch_object[frame], batch.patch_box[frame]
        picture = batch.images[frame].cpu().numpy()
        scale = _PICTURE_PX / picture.shape[0]
        for number in sorted(set(owners.tolist()) - {-1}):
            own = owners == number
            boxes = [_box(truth[own][0].tolist()), _box(told[frame][own].mean(0).tolist())]
            for box, label in zip(boxes, (str(number), f"{number}?"), strict=True):
                picture = draw_boxes(picture, [box], label=label, scale=scale)
                scale = 1.0
        pictures[f"patches-{frame}"] = picture
    return pictures


def _box(values: list[float]) -> Box | None:
    """Return the box of four predicted numbers, clamped to the frame; None if it has almost no area."""
    x1, y1, x2, y2 = (min(1.0, max(0.0, value)) for value in values)
    return Box(x1, y1, x2, y2) if x2 - x1 > _SMALLEST_SIDE and y2 - y1 > _SMALLEST_SIDE else None


_TIED = frozenset({"network.llm.lm_head.weight"})
# First number of the validation batches; training never reaches it.
_HELD_OUT = 1 << 40
_EVALUATION_BATCHES = 4


def build_training_model(recipe: Recipe, tokenizer: TextTokenizer, pointing_weight: float) -> TrainingModel:
    """Build network and training-only modules with their initial weights."""
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
    """One stage of a run. Its files are in ``<folder>/<stage>``.

    After the last step, ``state.safetensors`` holds all weights, including those of
    training-only modules. Later stages load the parts that they need.

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
        self.tokenizer = build_tokenizer(
            names, recipe.model.vocab_size, self.tokenizer_folder, recipe.model.system_text
        )
        self.settings = LoopSettings(
            steps=self.stage.steps,
            evaluate_every=self.stage.evaluate_every,
            threads=self.stage.threads,
            tied=_TIED,
        )
        self._held_out: list[Batch] = []
        acceleration = Acceleration(recipe.device, find_unused=True)
        self.device = acceleration.device
        self.model = build_training_model(recipe, self.tokenizer, self.stage.pointing_weight).to(self.device)
        if isinstance(self.model.network.adapter, SelectingAdapter):
            self.model.network.adapter.learn_by(self.stage.gate)
        self.optimizer = MixedOptimizer(parameter_groups(self.model, self.stage), self.stage.weight_decay)
        self.loop = TrainingLoop(self, self.model, self.optimizer, acceleration, self.folder)

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / DONE_NAME).exists()

    @property
    def batches(self) -> ClipBatches:
        """Generated clips and questions about them."""
        return ClipBatches(self.recipe, self.name, self.tokenizer_folder)

    def start(self) -> None:
        """Load the saved state, or the weights that this stage starts from.

        Raises:
            DataError: A stage it starts from is not finished, or weights do not fit.
        """
        if self.loop.resume():
            return
        for position, other in enumerate(self.stage.init):
            path = self.run_folder / other / WEIGHTS_NAME
            if not path.exists():
                raise DataError(f"stage {self.name} starts from {other}, but there is no {path}; run {other} first")
            parts = self.stage.parts[position] if self.stage.parts else ()
            load_weights(self.model, path, tuple(part + "." for part in parts))
        if self.stage.align_names:
            self.model.oracle.align(self.model.patch_heads, self.model.network.llm.model.embed_tokens)

    def run(self) -> None:
        """Train to the last step; see :meth:`TrainingLoop.run`."""
        self.loop.run()

    def seed(self, number: int) -> int:
        """Return the seed of the noise in one batch."""
        return step_seed(self.recipe, self.name, number)

    def rate_factor(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak."""
        stage = self.stage
        return linear_factor(
            step, stage.steps, warmup_steps=stage.warmup_steps, decay_from=stage.decay_from, final=stage.final_lr
        )

    def weight(self, batch: Any) -> float:
        """Return 1: all batches have equal weight, because their losses have different units (patches, tokens)."""
        return 1.0

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Return the losses for this kind of stage."""
        losses: Losses = model(self.stage.kind, batch)
        return losses

    def held_out(self) -> list[Batch]:
        """Return held-out clips."""
        batches = self.batches
        self._held_out = self._held_out or [batches[_HELD_OUT + number] for number in range(_EVALUATION_BATCHES)]
        return self._held_out

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, NDArray[np.uint8]]:
        """Return images of the predictions for the first clips of a batch."""
        if not isinstance(model, TrainingModel):
            raise TypeError(f"the model became a {type(model).__name__}")
        return draw_answers(model, self.stage.kind, batch, self.tokenizer)

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write all weights."""
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(weights, temporary)
