"""The training loop: one stage from its first step, or from where it was killed, to its last.

The loop knows steps, files and processes. What is learnt from a batch is the business of the
stage's :class:`StageWork`; what a GPU more or less changes is that of
:class:`elysium_core.training.acceleration.Acceleration`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.optimizer import TrainingOptimizer, WeightAverage
from elysium_core.training.records import WEIGHTS_NAME, Evaluation, Snapshots, StageRecords
from elysium_core.training.stage_work import StageWork

DONE_NAME = "done"
BAD_BATCH_NAME = "bad_batch.pt"

_LOG = logging.getLogger(__name__)
_MEMORY = 0.95
_TELL_EVERY = 10
_OPTIMIZER_NAME, _AVERAGE_NAME, _PROGRESS_NAME, _SHARDS = "optimizer.pt", "ema.safetensors", "progress.json", "shards"


class TrainingLoop:
    """Runs one stage, with its files in one folder.

    Files: ``step-*`` (weights, optimiser and counters to go on from), the records of
    :class:`StageRecords` and, when finished, what the work writes, and ``done``.

    Args:
        work: The stage.
        model: Its model, first weights loaded.
        optimizer: Of the weights it trains.
        acceleration: The processes.
        folder: The stage's folder.
        average: Keeps a running average of the weights, if wanted.
    """

    def __init__(
        self,
        work: StageWork,
        model: nn.Module,
        optimizer: TrainingOptimizer,
        acceleration: Acceleration,
        folder: Path,
        average: WeightAverage | None = None,
    ) -> None:
        self.work, self.settings = work, work.settings
        self.acceleration, self.folder, self.average = acceleration, folder, average
        self.optimizer = optimizer
        self.model, prepared = acceleration.prepare(
            model, optimizer.shardable, batch=self.settings.batch, clip_norm=self.settings.clip_norm
        )
        if prepared is not None:
            optimizer.adopt(prepared)
        self.snapshots = Snapshots(folder)
        self.records = StageRecords(folder, active=False)
        self.step = 0
        self.seconds = 0.0
        self._averages: dict[str, float] = {}

    def resume(self) -> bool:
        """Go on from the newest saved state; False if there is none.

        Raises:
            DataError: It belongs to another model, or to another number of processes.
        """
        saved = self.snapshots.newest()
        if saved is None:
            return False
        progress = json.loads((saved / _PROGRESS_NAME).read_text(encoding="utf-8"))
        self._check_processes(saved, int(progress.get("processes", 1)))
        if self.acceleration.sharded:
            self.acceleration.load_shards(saved / _SHARDS)
        else:
            load_weights(self.acceleration.unwrap(self.model), saved / WEIGHTS_NAME)
            state = torch.load(saved / _OPTIMIZER_NAME, self.acceleration.device, weights_only=True)
            self.optimizer.load_state_dict(state)
        if self.average is not None:
            self.average.load(saved / _AVERAGE_NAME)
        self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
        self._averages = progress["averages"]
        return True

    def _check_processes(self, saved: Path, processes: int) -> None:
        if (saved / _SHARDS).is_dir() != self.acceleration.sharded:
            was = "sharded (DeepSpeed or FSDP)" if not self.acceleration.sharded else "of whole weights"
            raise DataError(f"{saved} is a state {was}; launch with the same accelerate config, or remove it")
        if processes != self.acceleration.world:
            message = f"{saved} was saved by {processes} processes, and now there are {self.acceleration.world}"
            if self.acceleration.sharded:
                raise DataError(f"{message}; launch as many as then")
            _LOG.warning("%s: training goes on, with other batches than it would have seen", message)

    def save(self) -> None:
        """Save the state to go on from; a failure leaves the one before it."""
        if self.acceleration.sharded:
            self._save_shards()
        else:
            self.acceleration.on_main(lambda: self.snapshots.save(self.step, self._write_state))

    def _save_shards(self) -> None:
        draft = self.snapshots.draft(self.step)
        self.acceleration.on_main(lambda: self.snapshots.open_draft(draft))
        self.acceleration.save_shards(draft / _SHARDS)
        self.acceleration.wait()
        self.acceleration.on_main(lambda: self._close_draft(draft))

    def _close_draft(self, draft: Path) -> None:
        self._write_progress(draft)
        self.snapshots.publish(draft, self.step)

    def _write_state(self, folder: Path) -> None:
        save_file(self._weights(), folder / WEIGHTS_NAME)
        torch.save(self.optimizer.state_dict(), folder / _OPTIMIZER_NAME)
        self._write_progress(folder)

    def _write_progress(self, folder: Path) -> None:
        if self.average is not None:
            self.average.save(folder / _AVERAGE_NAME)
        progress = {"step": self.step, "seconds": round(self.seconds, 1), "averages": self._averages}
        (folder / _PROGRESS_NAME).write_text(
            json.dumps(progress | {"processes": self.acceleration.world}), encoding="utf-8"
        )

    def _weights(self) -> dict[str, Tensor]:
        """Weights as safetensors wants them: no memory twice."""
        state = self.acceleration.unwrap(self.model).state_dict()
        return {key: value.contiguous() for key, value in state.items() if key not in self.settings.tied}

    def run(self) -> None:
        """Train to the last step, saving now and then.

        Raises:
            DataError: Loss or gradient is not finite; the batch is saved beside the log.
            OSError: A state or a record cannot be written; the state before it is kept.
        """
        torch.set_num_threads(self.settings.threads)
        self.records = StageRecords(self.folder, self.step, active=self.acceleration.is_main)
        try:
            self._run()
        finally:
            self.records.close()
        self._finish()

    def _run(self) -> None:
        self.model.train()
        saved_at = started = time.monotonic()
        before = self.seconds
        for batches in self._steps():
            self._count(self.train_step(batches))
            self.seconds = before + time.monotonic() - started
            self.records.skipped(reason for batch in batches for reason in getattr(batch, "skipped", ()))
            if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
                self._log()
            if self.settings.evaluate_every and self.step % self.settings.evaluate_every == 0:
                self._evaluate()
            # The clocks of the processes differ, and saving takes all of them.
            due = float(time.monotonic() - saved_at > self.settings.save_every_s)
            if self.acceleration.mean({"due": due})["due"] >= 1:
                self.save()
                saved_at = time.monotonic()

    def _steps(self) -> Iterator[list[Any]]:
        """The batches of every step that is left; each process has its own, by number."""
        settings, world = self.settings, self.acceleration.world
        numbers = range(self._number(0), settings.steps * settings.accumulate * world, world)
        loader = DataLoader(
            self.work.batches,
            batch_size=None,
            sampler=numbers,
            num_workers=settings.workers,
            prefetch_factor=4 if settings.workers else None,
            multiprocessing_context=_worker_context(self.acceleration) if settings.workers else None,
        )
        batches = iter(loader)
        while group := list(islice(batches, settings.accumulate)):
            yield group

    def train_step(self, batches: Sequence[Any]) -> dict[str, float]:
        """Learn from the batches of one step; return its losses, means over batches and processes.

        Raises:
            DataError: Loss or gradient is not finite. No weight is changed then, except by DeepSpeed,
                which finds it when it has made the step; the saved state stays what it was.
        """
        self.optimizer.set_factor(self.work.rate_factor(self.step))
        shares = self._shares(batches)
        sums: dict[str, float] = {}
        for place, (drawn, share) in enumerate(zip(batches, shares, strict=True)):
            batch = drawn.to(self.acceleration.device)
            # Noise and choices inside the model depend on the batch's number alone, as the batch does.
            torch.manual_seed(self.work.seed(self._number(place)))
            with self.acceleration.accumulating(self.model):
                losses = self.work.losses(self.model, batch)
                self._require_finite("loss", float(losses["total"].detach()), batch)
                self.acceleration.backward(losses["total"] * share if share != 1 else losses["total"])
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) * share
        norm = self.acceleration.clip(self.model, self.optimizer.parameters, self.settings.clip_norm)
        self._require_finite("gradient", norm, batches[-1])
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.acceleration.unwrap(self.model))
        return self.acceleration.mean(sums)

    def _number(self, place: int) -> int:
        """Number of a batch of the present step among all batches of all processes."""
        return (self.step * self.settings.accumulate + place) * self.acceleration.world + self.acceleration.rank

    def _shares(self, batches: Sequence[Any]) -> list[float]:
        """What each batch's mean loss counts in the step, so that every answer token counts the same.

        Gradients are averaged over processes, so the shares of a step add up to the number of processes.
        """
        weights = [self.work.weight(batch) for batch in batches]
        mean = self.acceleration.mean({"weight": sum(weights)})["weight"]
        return [weight / mean if mean else 0.0 for weight in weights]

    def _require_finite(self, what: str, value: float, batch: Any) -> None:
        bad = not torch.isfinite(torch.tensor(value))
        anywhere = self.acceleration.mean({"bad": float(bad)})["bad"] > 0
        if bad:
            path = self._save_batch(batch)
            raise DataError(f"the {what} of step {self.step} is {value}; its batch is saved as {path}")
        if anywhere:
            raise DataError(f"the {what} of step {self.step} is not finite in another process; see its message")

    def _save_batch(self, batch: Any) -> Path:
        rank = self.acceleration.rank
        path = self.folder / (BAD_BATCH_NAME if rank == 0 else f"rank{rank}_{BAD_BATCH_NAME}")
        content: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        with atomic_path(path) as temporary:
            torch.save(content | {"step": self.step}, temporary)
        return path

    def _count(self, losses: dict[str, float]) -> None:
        self.step += 1
        for key, value in losses.items():
            self._averages[key] = _MEMORY * self._averages.get(key, value) + (1 - _MEMORY) * value

    def _log(self) -> None:
        line = self.records.losses(self.step, self.seconds, self._averages)
        last = self.step == self.settings.steps
        if self.acceleration.is_main and (self.step % (_TELL_EVERY * self.settings.log_every) == 0 or last):
            _LOG.info("%s %s", self.work.name, json.dumps(line))

    def _evaluate(self) -> None:
        self.model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            found = self.work.evaluate(self.model)
        self.model.train()
        values = self.acceleration.mean(found.values)
        self.records.evaluation(self.step, Evaluation(values, found.pictures))

    def _finish(self) -> None:
        state = self.acceleration.whole_state(self.model)
        if self.average is not None and state is not None:
            state |= self.average.weights
        self.acceleration.on_main(lambda: self._write_result(state or {}))

    def _write_result(self, state: dict[str, Tensor]) -> None:
        self.work.finish({key: value.contiguous() for key, value in state.items() if key not in self.settings.tied})
        (self.folder / DONE_NAME).write_text("", encoding="utf-8")
        self.snapshots.clear()


def load_weights(model: nn.Module, path: Path, prefixes: tuple[str, ...] = ()) -> None:
    """Load a saved state, or the part of it whose names start with one of ``prefixes``.

    Raises:
        DataError: It belongs to another model.
    """
    weights = load_file(path)
    chosen = {key: value for key, value in weights.items() if not prefixes or key.startswith(prefixes)}
    try:
        unexpected = model.load_state_dict(chosen, strict=False).unexpected_keys
    except RuntimeError as error:
        raise DataError(f"{path} belongs to a model of other sizes; choose another --out") from error
    if unexpected:
        raise DataError(f"{path} has weights this recipe's model lacks: {', '.join(unexpected[:3])} ...")


def _worker_context(acceleration: Acceleration) -> str | None:
    """How workers are started: forking a process that has opened a GPU or a process group is asking for trouble."""
    return "spawn" if acceleration.device.type == "cuda" or acceleration.world > 1 else None
