"""The training loop: runs one stage from its newest saved state, or its first step, to its last step.

The loop counts steps, writes files and synchronises processes. :class:`StageWork` defines batches and losses;
:class:`elysium_core.training.acceleration.Acceleration` handles devices and processes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from elysium_core.errors import DataError
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.losses import Losses, Sums, add_up, decayed, detached, means
from elysium_core.training.optimizer import TrainingOptimizer, WeightAverage
from elysium_core.training.records import StageRecords
from elysium_core.training.snapshots import Progress, StageState, save_bad_batch

DONE_NAME = "done"

_LOG = logging.getLogger(__name__)
_MEMORY = 0.95
_TELL_EVERY = 10


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Settings of the loop for one stage.

    Attributes:
        steps: Optimiser steps.
        batch: Samples per batch of one process.
        accumulate: Batches per step and process.
        clip_norm: Largest norm of a step's gradient.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
        evaluate_every: Steps between two evaluations; 0 = never.
        workers: Processes that prepare batches, per training process.
        threads: CPU threads of a training process.
        tied: Names of weights that share memory with another weight and are not saved.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    clip_norm: float = 1.0
    log_every: int = 20
    save_every_s: float = 60.0
    evaluate_every: int = 0
    workers: int = 1
    threads: int = 1
    tied: frozenset[str] = frozenset()


class StageWork(Protocol):
    """Interface of a stage: its batches, losses and result."""

    name: str
    settings: LoopSettings

    @property
    def batches(self) -> Dataset[Any]:
        """Batches by number; each has ``to(device)`` and may have ``skipped``, reasons why data was not used."""
        ...

    def seed(self, number: int) -> int:
        """Return the seed of the model's random numbers for one batch."""
        ...

    def rate_factor(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak."""
        ...

    def weight(self, batch: Any) -> float:
        """Return the weight of a batch within its step, such as the number of its answer tokens."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Return the losses of a batch; ``total`` is minimised. The names are always the same."""
        ...

    def held_out(self) -> Sequence[Any]:
        """Return validation batches that are never trained on: at least one, the same in every process."""
        ...

    def pictures(self, model: nn.Module, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """Return images by name that show the answers of the model (in evaluation mode) to a validation batch."""
        ...

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the result of the stage; called in the main process only."""
        ...


class TrainingLoop:
    """Runs one stage, with its files in one folder.

    Files: ``step-*`` (saved state: weights, optimiser and counters), the records of
    :class:`StageRecords` and, when finished, the result of the stage and ``done``.

    Args:
        work: The stage.
        model: Its model with initial weights.
        optimizer: Optimiser of the trained weights.
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
        self.state = StageState(folder, self.model, optimizer, acceleration, average, self.settings.tied)
        self.records = StageRecords(folder, active=False)
        self.step = 0
        self.seconds = 0.0
        self._sums: Sums = {}

    def resume(self) -> bool:
        """Load the newest saved state; return False if there is none.

        Raises:
            DataError: It belongs to another model, or to another number of processes.
        """
        progress = self.state.load()
        if progress is not None:
            self.step, self.seconds, self._sums = progress.step, progress.seconds, progress.sums
        return progress is not None

    def save(self) -> None:
        """Save the state; after a failure the previous state remains."""
        self.state.save(Progress(self.step, self.seconds, self._sums))

    def run(self) -> None:
        """Train to the last step, with regular saves.

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
            # All processes must save together, but their clocks differ: they save when a save is due in all of them.
            due = float(time.monotonic() - saved_at > self.settings.save_every_s)
            if self.acceleration.mean({"due": due})["due"] >= 1:
                self.save()
                saved_at = time.monotonic()

    def _steps(self) -> Iterator[list[Any]]:
        """Yield the batches of this process for all remaining steps."""
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

    def train_step(self, batches: Sequence[Any]) -> Sums:
        """Train on the batches of one step; return its losses, summed over batches and processes.

        Raises:
            DataError: Loss or gradient is not finite. The weights are unchanged then, except with DeepSpeed,
                which computes the norm after the step; the saved state remains.
        """
        self.optimizer.set_factor(self.work.rate_factor(self.step))
        shares = self._shares(batches)
        found: list[Losses] = []
        for place, (drawn, share) in enumerate(zip(batches, shares, strict=True)):
            batch = drawn.to(self.acceleration.device)
            # Random numbers of the model depend only on the batch number, as the batch itself does.
            torch.manual_seed(self.work.seed(self._number(place)))
            with self.acceleration.accumulating(self.model):
                losses = self.work.losses(self.model, batch)
                found.append(detached(losses))
                loss = losses["total"].value
                self._require_finite("loss", float(loss.detach()), batch)
                self.acceleration.backward(loss * share if share != 1 else loss)
        norm = self.acceleration.clip(self.model, self.optimizer.parameters, self.settings.clip_norm)
        self._require_finite("gradient", norm, batches[-1])
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.acceleration.unwrap(self.model))
        return self.acceleration.mean_sums(add_up(found))

    def _number(self, place: int) -> int:
        """Return the number of a batch of the current step among all batches of all processes."""
        return (self.step * self.settings.accumulate + place) * self.acceleration.world + self.acceleration.rank

    def _shares(self, batches: Sequence[Any]) -> list[float]:
        """Return the weight of each batch's mean loss in the step, so that every answer token has equal weight.

        Gradients are averaged over processes, so the shares of a step add up to the number of processes.
        """
        weights = [self.work.weight(batch) for batch in batches]
        mean = self.acceleration.mean({"weight": sum(weights)})["weight"]
        return [weight / mean if mean else 0.0 for weight in weights]

    def _require_finite(self, what: str, value: float, batch: Any) -> None:
        bad = not torch.isfinite(torch.tensor(value))
        anywhere = self.acceleration.mean({"bad": float(bad)})["bad"] > 0
        if bad:
            path = save_bad_batch(self.folder, batch, self.step, self.acceleration.rank)
            raise DataError(f"the {what} of step {self.step} is {value}; its batch is saved as {path}")
        if anywhere:
            raise DataError(f"the {what} of step {self.step} is not finite in another process; see its message")

    def _count(self, losses: Sums) -> None:
        self.step += 1
        self._sums = decayed(self._sums, losses, _MEMORY)

    def _log(self) -> None:
        line = self.records.losses(self.step, self.seconds, means(self._sums))
        last = self.step == self.settings.steps
        if self.acceleration.is_main and (self.step % (_TELL_EVERY * self.settings.log_every) == 0 or last):
            _LOG.info("%s %s", self.work.name, json.dumps(line))

    def _evaluate(self) -> None:
        self.model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            sums = self.acceleration.mean_sums(add_up(self._losses_held_out()))
            pictures: dict[str, NDArray[np.uint8]] = {}
            if self.acceleration.is_main and self.acceleration.whole_weights:
                batch = self.work.held_out()[0].to(self.acceleration.device)
                pictures = self.work.pictures(self.acceleration.unwrap(self.model), batch)
        self.model.train()
        self.records.evaluation(self.step, means(sums), pictures)

    def _losses_held_out(self) -> Iterator[Losses]:
        for batch in self.work.held_out():
            yield self.work.losses(self.model, batch.to(self.acceleration.device))

    def _finish(self) -> None:
        state = self.acceleration.whole_state(self.model)
        if self.average is not None and state is not None:
            state |= self.average.weights
        self.acceleration.on_main(lambda: self._write_result(state or {}))

    def _write_result(self, state: dict[str, Tensor]) -> None:
        self.work.finish(self.state.saved_form(state))
        (self.folder / DONE_NAME).write_text("", encoding="utf-8")
        self.state.clear()


def _worker_context(acceleration: Acceleration) -> str | None:
    """Return the start method of workers: a process with an open GPU or process group must not be forked."""
    return "spawn" if acceleration.device.type == "cuda" or acceleration.world > 1 else None
