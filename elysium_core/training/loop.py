"""The training loop: one stage from its first step, or from where it was killed, to its last."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from elysium_core.data.synthetic.assets import sprite_names
from elysium_core.errors import BackendError, ConfigError, DataError
from elysium_core.io.files import atomic_path
from elysium_core.model.token_selector import TokenSelector
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.auxiliary import Oracle, PatchHeads, PointingHeads
from elysium_core.training.batches import Batch
from elysium_core.training.clip_batches import ClipBatches, step_seed
from elysium_core.training.config import Recipe, StageConfig
from elysium_core.training.nano_model import build_network, build_tokenizer
from elysium_core.training.optimizer import MixedOptimizer
from elysium_core.training.snapshots import WEIGHTS_NAME, Snapshots
from elysium_core.training.stages import TrainingModel, parameter_groups

DONE_NAME = "done"
LOG_NAME = "log.jsonl"
TOKENIZER_FOLDER = "tokenizer"

_LOG = logging.getLogger(__name__)
_LOG_EVERY = 20
_SAVE_EVERY_S = 60.0
_CLIP_NORM = 1.0
_MEMORY = 0.95


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


def training_device(name: str) -> torch.device:
    """The device to train on.

    Args:
        name: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BackendError: There is no such device.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cards else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackendError(f"{name!r} is not a device; use auto, cpu, cuda or cuda:N", code="DEVICE") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= cards):
        raise BackendError(f"there is no device {name!r} to train on; this machine has {cards} CUDA devices", "DEVICE")
    return device


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

    Files: ``step-*`` (weights, optimiser and counters to go on from), ``log.jsonl`` (one
    line every 20 steps) and, when finished, ``state.safetensors`` (all weights) and ``done``.

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
        self.tokenizer_folder = folder / TOKENIZER_FOLDER
        names = sprite_names()[: recipe.data.names]
        self.tokenizer = build_tokenizer(names, recipe.model.vocab_size, self.tokenizer_folder)
        self.device = training_device(recipe.device)
        self.model = build_training_model(recipe, self.tokenizer, self.stage.pointing_weight).to(self.device)
        if isinstance(self.model.network.adapter, TokenSelector):
            self.model.network.adapter.gate = self.stage.gate
        groups = parameter_groups(self.model, self.stage)
        self.optimizer = MixedOptimizer(groups, self.stage.weight_decay)
        self.snapshots = Snapshots(self.folder)
        self.step = 0
        self.seconds = 0.0
        self._averages: dict[str, float] = {}

    @property
    def done(self) -> bool:
        """Whether the stage has finished."""
        return (self.folder / DONE_NAME).exists()

    def start(self) -> None:
        """Load what was saved, or the weights this stage starts from.

        Raises:
            DataError: A stage it starts from is not finished, or weights do not fit.
        """
        saved = self.snapshots.newest()
        if saved is not None:
            self._resume(saved)
            return
        for position, other in enumerate(self.stage.init):
            path = self.run_folder / other / WEIGHTS_NAME
            if not path.exists():
                raise DataError(f"stage {self.name} starts from {other}, which has left no {path}; run it first")
            parts = self.stage.parts[position] if self.stage.parts else ()
            self._load(path, tuple(part + "." for part in parts))

    def _resume(self, saved: Path) -> None:
        progress = json.loads((saved / "progress.json").read_text(encoding="utf-8"))
        self._load(saved / WEIGHTS_NAME)
        self.optimizer.load_state_dict(torch.load(saved / "optimizer.pt", self.device, weights_only=True))
        self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
        self._averages = progress["averages"]
        self._cut_log()

    def _load(self, path: Path, prefixes: tuple[str, ...] = ()) -> None:
        weights = load_file(path)
        chosen = {key: value for key, value in weights.items() if not prefixes or key.startswith(prefixes)}
        try:
            unexpected = self.model.load_state_dict(chosen, strict=False).unexpected_keys
        except RuntimeError as error:
            raise DataError(f"{path} belongs to a model of other sizes; choose another --out") from error
        if unexpected:
            raise DataError(f"{path} has weights this recipe's model lacks: {', '.join(unexpected[:3])} ...")

    def _cut_log(self) -> None:
        """Drop the lines behind the step to go on from: those steps come again."""
        path = self.folder / LOG_NAME
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def save(self) -> None:
        """Save the state to go on from; a failure leaves the one before it."""
        self.snapshots.save(self.step, self._write_state)

    def _write_state(self, folder: Path) -> None:
        save_file(self._weights(), folder / WEIGHTS_NAME)
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        progress = {"step": self.step, "seconds": round(self.seconds, 1), "averages": self._averages}
        (folder / "progress.json").write_text(json.dumps(progress | {"stage": asdict(self.stage)}), encoding="utf-8")

    def _weights(self) -> dict[str, Tensor]:
        # Tied weights are written once: safetensors refuses shared memory.
        state = self.model.state_dict()
        return {key: value.contiguous() for key, value in state.items() if key != "network.llm.lm_head.weight"}

    def run(self) -> None:
        """Train to the last step, saving about once a minute.

        Raises:
            DataError: Loss or gradient is not finite; the batch is saved beside the log.
            OSError: A state cannot be saved; the one before it is kept.
        """
        torch.set_num_threads(self.stage.threads)
        self.model.train()
        batches = ClipBatches(self.recipe, self.name, self.tokenizer_folder)
        steps = range(self.step, self.stage.steps)
        saved_at = started = time.monotonic()
        before = self.seconds
        for batch in DataLoader(batches, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=4):
            self._count(self.train_step(batch))
            self.seconds = before + time.monotonic() - started
            if self.step % _LOG_EVERY == 0 or self.step == self.stage.steps:
                self._log()
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self.save()
                saved_at = time.monotonic()
        self._finish()

    def _finish(self) -> None:
        with atomic_path(self.folder / WEIGHTS_NAME) as temporary:
            save_file(self._weights(), temporary)
        (self.folder / DONE_NAME).write_text("", encoding="utf-8")
        self.snapshots.clear()

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch; return its losses.

        Raises:
            DataError: Loss or gradient is not finite; no weight is changed then.
        """
        batch = batch.to(self.device)
        # Noise and choices inside the model depend on the step alone, as the clips do.
        torch.manual_seed(step_seed(self.recipe, self.name, self.step))
        self.optimizer.set_factor(learning_rate_factor(self.stage, self.step))
        losses = self.model(self.stage.kind, batch)
        losses["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, _CLIP_NORM)
        for what, value in (("loss", losses["total"]), ("gradient", norm)):
            if not torch.isfinite(value):
                path = self._save_batch(batch)
                raise DataError(f"the {what} of step {self.step} is {value.item()}; its batch is saved as {path}")
        self.optimizer.step()
        return {key: float(value.detach()) for key, value in losses.items()}

    def _save_batch(self, batch: Batch) -> Path:
        path = self.folder / "bad_batch.pt"
        content: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        with atomic_path(path) as temporary:
            torch.save(content | {"step": self.step}, temporary)
        return path

    def _count(self, losses: dict[str, float]) -> None:
        self.step += 1
        for key, value in losses.items():
            self._averages[key] = _MEMORY * self._averages.get(key, value) + (1 - _MEMORY) * value

    def _log(self) -> None:
        averages = {key: round(value, 4) for key, value in self._averages.items()}
        line = {"step": self.step, "seconds": round(self.seconds, 1)} | averages
        with (self.folder / LOG_NAME).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if self.step % (10 * _LOG_EVERY) == 0 or self.step == self.stage.steps:
            _LOG.info("%s %s", self.name, json.dumps(line))
