"""Saved states of a stage, written atomically, so that a killed stage always has a complete state."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.losses import Sums
from elysium_core.training.optimizer import TrainingOptimizer, WeightAverage

WEIGHTS_NAME = "state.safetensors"
BAD_BATCH_NAME = "bad_batch.pt"

_LOG = logging.getLogger(__name__)
_PREFIX = "step-"
_OPTIMIZER_NAME, _AVERAGE_NAME, _PROGRESS_NAME, _SHARDS = "optimizer.pt", "ema.safetensors", "progress.json", "shards"


class Snapshots:
    """Folders ``step-00000120`` of one stage; the newest one is always complete.

    A folder holds weights, optimiser and counters of one step. It appears in one rename,
    and only then the previous folder is removed.

    Args:
        folder: The stage's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> Path | None:
        """Folder of the newest state, None before the first save."""
        return max(self._folder.glob(f"{_PREFIX}*"), default=None)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save one state; after a failure the previous state remains.

        Args:
            step: Steps done.
            write: Function that writes all files of the state into a folder.

        Raises:
            OSError: A file cannot be written.
        """
        draft = self.draft(step)
        try:
            self.open_draft(draft)
            write(draft)
            self.publish(draft, step)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def draft(self, step: int) -> Path:
        """Return the temporary folder in which the state of a step is written."""
        return self._folder / f".{_PREFIX}{step:08d}.partial"

    def open_draft(self, draft: Path) -> None:
        """Make an empty temporary folder; files of a killed process in it are removed."""
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)

    def publish(self, draft: Path, step: int) -> None:
        """Rename the temporary folder to the newest state, and remove the previous one."""
        target = self._folder / f"{_PREFIX}{step:08d}"
        if not target.is_dir():
            os.replace(draft, target)
        self._remove(keep=target)

    def clear(self) -> None:
        """Remove all states."""
        self._remove(keep=None)

    def _remove(self, keep: Path | None) -> None:
        for folder in self._folder.glob(f"{_PREFIX}*"):
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)


def find_weights(stage_folder: Path) -> Path | None:
    """Return the weights of a finished stage, or the newest ones of a running stage; None if there are none."""
    finished = stage_folder / WEIGHTS_NAME
    if finished.is_file():
        return finished
    newest = Snapshots(stage_folder).newest()
    return None if newest is None else newest / WEIGHTS_NAME


def load_weights(model: nn.Module, path: Path, prefixes: tuple[str, ...] = ()) -> None:
    """Load saved weights, or the part of them whose names start with one of ``prefixes``.

    Raises:
        DataError: They belong to another model.
    """
    weights = load_file(path)
    chosen = {key: value for key, value in weights.items() if not prefixes or key.startswith(prefixes)}
    try:
        unexpected = model.load_state_dict(chosen, strict=False).unexpected_keys
    except RuntimeError as error:
        raise DataError(f"{path} belongs to a model of other sizes; choose another --out") from error
    if unexpected:
        raise DataError(f"{path} has weights this recipe's model lacks: {', '.join(unexpected[:3])} ...")


def save_bad_batch(folder: Path, batch: Any, step: int, rank: int) -> Path:
    """Save a batch (a dataclass) whose loss or gradient is not finite; return the file."""
    path = folder / (BAD_BATCH_NAME if rank == 0 else f"rank{rank}_{BAD_BATCH_NAME}")
    content = {member.name: getattr(batch, member.name) for member in fields(batch)}
    with atomic_path(path) as temporary:
        torch.save(content | {"step": step}, temporary)
    return path


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a stage.

    Attributes:
        step: Steps done.
        seconds: Time they took [s].
        sums: Running sums of losses and metrics.
    """

    step: int = 0
    seconds: float = 0.0
    sums: Sums = field(default_factory=dict)


class StageState:
    """The state of a stage that is saved and loaded: weights, running average, optimiser and progress.

    Args:
        folder: The stage's folder.
        model: Its model, wrapped for the processes.
        optimizer: Its optimiser, wrapped for the processes.
        acceleration: The processes.
        average: The running average of the weights, if there is one.
        tied: Names of weights that share memory with another weight and are not saved.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: TrainingOptimizer,
        acceleration: Acceleration,
        average: WeightAverage | None = None,
        tied: frozenset[str] = frozenset(),
    ) -> None:
        self._snapshots = Snapshots(folder)
        self._model, self._optimizer, self._acceleration = model, optimizer, acceleration
        self._average, self._tied = average, tied

    def save(self, progress: Progress) -> None:
        """Save the state; after a failure the previous state remains. Every process must call it.

        Raises:
            OSError: A file cannot be written.
        """
        if self._acceleration.sharded:
            self._save_shards(progress)
        else:
            self._acceleration.on_main(
                lambda: self._snapshots.save(progress.step, lambda folder: self._write(folder, progress))
            )

    def load(self) -> Progress | None:
        """Load the newest saved state; return None if there is none.

        Raises:
            DataError: It belongs to another model, or to another number of processes.
        """
        saved = self._snapshots.newest()
        if saved is None:
            return None
        raw = json.loads((saved / _PROGRESS_NAME).read_text(encoding="utf-8"))
        self._check_processes(saved, int(raw.get("processes", 1)))
        if self._acceleration.sharded:
            self._acceleration.load_shards(saved / _SHARDS)
        else:
            load_weights(self._acceleration.unwrap(self._model), saved / WEIGHTS_NAME)
            state = torch.load(saved / _OPTIMIZER_NAME, self._acceleration.device, weights_only=True)
            self._optimizer.load_state_dict(state)
        if self._average is not None:
            self._average.load(saved / _AVERAGE_NAME)
        # States of older versions lack the weights of the averages; these averages start anew.
        sums = {name: (pair[0], pair[1]) for name, pair in raw.get("sums", {}).items()}
        return Progress(int(raw["step"]), float(raw["seconds"]), sums)

    def clear(self) -> None:
        """Remove all saved states."""
        self._snapshots.clear()

    def saved_form(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights without tensors that share memory, which safetensors refuses."""
        return {key: value.contiguous() for key, value in weights.items() if key not in self._tied}

    def _check_processes(self, saved: Path, processes: int) -> None:
        sharded, now = self._acceleration.sharded, self._acceleration.world
        if (saved / _SHARDS).is_dir() != sharded:
            was = "of whole weights" if sharded else "sharded (DeepSpeed or FSDP)"
            raise DataError(f"{saved} is a state {was}; launch with the same accelerate config, or remove it")
        if processes != now:
            message = f"{saved} was saved by {processes} processes, and now there are {now}"
            if sharded:
                raise DataError(f"{message}; launch as many as then")
            _LOG.warning("%s: training goes on, with other batches than it would have seen", message)

    def _save_shards(self, progress: Progress) -> None:
        draft = self._snapshots.draft(progress.step)
        self._acceleration.on_main(lambda: self._snapshots.open_draft(draft))
        self._acceleration.save_shards(draft / _SHARDS)
        self._acceleration.wait()
        self._acceleration.on_main(lambda: self._close_draft(draft, progress))

    def _close_draft(self, draft: Path, progress: Progress) -> None:
        self._write_progress(draft, progress)
        self._snapshots.publish(draft, progress.step)

    def _write(self, folder: Path, progress: Progress) -> None:
        weights = self._acceleration.unwrap(self._model).state_dict()
        save_file(self.saved_form(weights), folder / WEIGHTS_NAME)
        torch.save(self._optimizer.state_dict(), folder / _OPTIMIZER_NAME)
        self._write_progress(folder, progress)

    def _write_progress(self, folder: Path, progress: Progress) -> None:
        if self._average is not None:
            self._average.save(folder / _AVERAGE_NAME)
        content = {"step": progress.step, "seconds": round(progress.seconds, 1), "sums": progress.sums}
        (folder / _PROGRESS_NAME).write_text(
            json.dumps(content | {"processes": self._acceleration.world}), encoding="utf-8"
        )
