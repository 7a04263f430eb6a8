"""The training loop: one stage from its first step, or from where it was killed, to its last."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, IterableDataset

from elysium_core.data.synthetic.assets import load_backgrounds, sprite_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.errors import ConfigError, DataError
from elysium_core.model.token_selector import TokenSelector
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.auxiliary import Oracle, PatchHeads, PointingHeads
from elysium_core.training.batches import Batch, BatchBuilder
from elysium_core.training.config import Recipe, StageConfig
from elysium_core.training.nano_model import build_network, build_tokenizer
from elysium_core.training.optimizer import MixedOptimizer
from elysium_core.training.stages import TrainingModel, parameter_groups

_LOG = logging.getLogger(__name__)
_LOG_EVERY = 20
_SAVE_EVERY_S = 60.0
_CLIP_NORM = 1.0


class ClipStream(IterableDataset[Batch]):
    """An endless stream of generated batches; a stage that resumes gets new clips, not the old ones again."""

    def __init__(self, recipe: Recipe, stage_name: str, tokenizer_folder: Path, start_step: int) -> None:
        self._recipe, self._stage_name = recipe, stage_name
        self._tokenizer_folder, self._start_step = tokenizer_folder, start_step

    def __iter__(self) -> Iterator[Batch]:
        recipe, stage = self._recipe, self._recipe.stages[self._stage_name]
        number = list(recipe.stages).index(self._stage_name)
        seed = int(np.random.SeedSequence([recipe.data.seed, number, self._start_step]).generate_state(1)[0])
        scene = SceneConfig(side_px=recipe.model.side_px, vanish_share=recipe.data.vanish_share)
        names = sprite_names()[: recipe.data.names]
        generator = ClipGenerator(names, load_backgrounds("train"), seed, scene)
        tokenizer = TextTokenizer.from_folder(self._tokenizer_folder)
        builder = BatchBuilder(
            generator, recipe.data, tokenizer, recipe.model.visual_tokens, recipe.model.patch_px, seed
        )
        yield from builder.batches(stage.batch_frames, stage.frames)


def build_training_model(recipe: Recipe, tokenizer: TextTokenizer, pointing_weight: float) -> TrainingModel:
    """Build network and training-only modules with their first weights."""
    names = sprite_names()[: recipe.data.names]
    if len(names) < recipe.data.names:
        raise ConfigError(f"data.names = {recipe.data.names}, but the atlas has {len(names)}")
    model = recipe.model
    network = build_network(model, names, tokenizer.vocab_size, recipe.data.seed)
    middle, late = max(1, model.llm_layers // 2), max(1, model.llm_layers - 1)
    pointing = PointingHeads(model.llm_width, layers=((middle, late), (late,), (middle,)))
    return TrainingModel(
        network,
        PatchHeads(model.vision_width, len(names)),
        Oracle(names, tokenizer, model.llm_width),
        pointing,
        pointing_weight,
    )


def learning_rate_factor(stage: StageConfig, step: int) -> float:
    """Share of the peak rate at a step: linear warm-up, flat, linear decay."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    progress = step / stage.steps
    if progress <= stage.decay_from:
        return warm
    left = (1 - progress) / max(1e-9, 1 - stage.decay_from)
    return warm * (stage.final_lr + (1 - stage.final_lr) * left)


class StageRun:
    """One stage of a run, with its files in ``<folder>/<stage>``.

    Files: ``state.safetensors`` (all weights), ``optimizer.pt`` and ``progress.json``
    (to resume), ``log.jsonl`` (one line every 20 steps), ``done`` (when finished).

    Args:
        recipe: The recipe.
        name: Stage name.
        folder: Folder of the whole run.
    """

    def __init__(self, recipe: Recipe, name: str, folder: Path) -> None:
        self.recipe, self.name = recipe, name
        self.stage = recipe.stages[name]
        self.run_folder = folder
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer_folder = folder / "tokenizer"
        if not (self.tokenizer_folder / "tokenizer_config.json").exists():
            names = sprite_names()[: recipe.data.names]
            build_tokenizer(names, recipe.model.vocab_size, self.tokenizer_folder)
        self.tokenizer = TextTokenizer.from_folder(self.tokenizer_folder)
        self.model = build_training_model(recipe, self.tokenizer, self.stage.pointing_weight)
        if isinstance(self.model.network.adapter, TokenSelector):
            self.model.network.adapter.gate = self.stage.gate
        groups = parameter_groups(self.model, self.stage)
        self.optimizer = MixedOptimizer(groups, self.stage.weight_decay)
        self.step = 0
        self.seconds = 0.0

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / "done").exists()

    def start(self) -> None:
        """Load what was saved, or the weights this stage starts from.

        Raises:
            DataError: A stage it starts from has not been run.
        """
        if (self.folder / "progress.json").exists():
            self._resume()
            return
        for position, other in enumerate(self.stage.init):
            path = self.run_folder / other / "state.safetensors"
            if not path.exists():
                raise DataError(f"stage {self.name} starts from {other}, which has left no {path}; run it first")
            weights = load_file(path)
            parts = self.stage.parts[position] if self.stage.parts else ()
            chosen = {k: v for k, v in weights.items() if not parts or k.startswith(tuple(p + "." for p in parts))}
            unexpected = self.model.load_state_dict(chosen, strict=False).unexpected_keys
            if unexpected:
                raise DataError(f"{path} has weights this recipe's model lacks: {', '.join(unexpected[:3])} ...")

    def _resume(self) -> None:
        progress = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        self.model.load_state_dict(load_file(self.folder / "state.safetensors"), strict=False)
        saved = torch.load(self.folder / "optimizer.pt", weights_only=True)
        self.optimizer.load_state_dict(saved)
        self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
        torch.manual_seed(self.recipe.data.seed + self.step)

    def save(self) -> None:
        """Write weights, optimiser and progress; each file is replaced only when complete."""
        # Tied weights are written once: safetensors refuses shared memory.
        weights = {k: v.contiguous() for k, v in self.model.state_dict().items() if k != "network.llm.lm_head.weight"}
        _replace(self.folder / "state.safetensors", lambda path: save_file(weights, path))
        _replace(self.folder / "optimizer.pt", lambda path: torch.save(self.optimizer.state_dict(), path))
        progress = {"step": self.step, "seconds": round(self.seconds, 1), "stage": asdict(self.stage)}
        _replace(self.folder / "progress.json", lambda path: path.write_text(json.dumps(progress), encoding="utf-8"))

    def run(self) -> None:
        """Train to the last step, saving about once a minute.

        Raises:
            DataError: The loss is not finite; the batch is saved beside the log.
        """
        torch.set_num_threads(self.stage.threads)
        self.model.train()
        dataset = ClipStream(self.recipe, self.name, self.tokenizer_folder, self.step)
        loader = DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)
        averages: dict[str, float] = {}
        saved_at = started = time.monotonic()
        before = self.seconds
        batches = iter(loader)
        while self.step < self.stage.steps:
            losses = self._train_step(next(batches))
            for key, value in losses.items():
                averages[key] = value if key not in averages else 0.95 * averages[key] + 0.05 * value
            self.step += 1
            self.seconds = before + time.monotonic() - started
            if self.step % _LOG_EVERY == 0 or self.step == self.stage.steps:
                self._log(averages)
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self.save()
                saved_at = time.monotonic()
        self.save()
        (self.folder / "done").write_text("", encoding="utf-8")

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self.optimizer.set_factor(learning_rate_factor(self.stage, self.step))
        losses = self.model(self.stage.kind, batch)
        total = losses["total"]
        if not torch.isfinite(total):
            path = self.folder / "bad_batch.pt"
            torch.save({"step": self.step, "token_ids": batch.token_ids, "images": batch.images}, path)
            raise DataError(f"the loss of step {self.step} is {total.item()}; its batch is saved as {path}")
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, _CLIP_NORM)
        self.optimizer.step()
        return {key: float(value.detach()) for key, value in losses.items()}

    def _log(self, averages: dict[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1)} | {k: round(v, 4) for k, v in averages.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if self.step % (10 * _LOG_EVERY) == 0 or self.step == self.stage.steps:
            _LOG.info("%s %s", self.name, json.dumps(line))


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(path.name + ".partial")
    write(temporary)
    os.replace(temporary, path)
