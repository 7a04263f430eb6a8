"""The training loop: one stage from its first step, or from where it was killed, to its last.

The loop counts steps, writes files and waits for processes. :class:`StageWork` is what is learnt from a batch;
:class:`elysium_core.training.acceleration.Acceleration` is how the work lies on devices.
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
    """How a stage is run.

    Attributes:
        steps: Optimiser steps.
        batch: Samples a batch of one process.
        accumulate: Batches a step and process.
        clip_norm: Largest norm of a step's gradient.
        log_every: Steps between two lines of the log.
        save_every_s: Time between two saved states [s].
        evaluate_every: Steps between two evaluations; 0 = never.
        workers: Processes that draw batches, for each training process.
        threads: CPU threads of a training process.
        tied: Names of weights that are another weight's memory, and so are not saved.
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
    """What a stage learns, and from what."""

    name: str
    settings: LoopSettings

    @property
    def batches(self) -> Dataset[Any]:
        """Batches by number; each has ``to(device)`` and may have ``skipped``, reasons why data was not used."""
        ...

    def seed(self, number: int) -> int:
        """Seed of what is random inside the model for one batch."""
        ...

    def rate_factor(self, step: int) -> float:
        """Learning rate of a step as a share of the peak."""
        ...

    def weight(self, batch: Any) -> float:
        """How much a batch counts among those of its step: over its answer tokens, for example."""
        ...

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Losses of a batch; ``total`` is minimised. Always the same names."""
        ...

    def held_out(self) -> Sequence[Any]:
        """Batches that are never trained on, at least one; the same in every process."""
        ...

    def pictures(self, model: nn.Module, batch: Any) -> dict[str, NDArray[np.uint8]]:
        """Pictures by name of what the model, in evaluation mode, answers about a held-out batch; may be none."""
        ...

    def finish(self, weights: dict[str, Tensor]) -> None:
        """Write the stage's result; asked of the main process alone."""
        ...


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
        self.state = StageState(folder, self.model, optimizer, acceleration, average, self.settings.tied)
        self.records = StageRecords(folder, active=False)
        self.step = 0
        self.seconds = 0.0
        self._sums: Sums = {}

    def resume(self) -> bool:
        """Go on from the newest saved state; False if there is none.

        Raises:
            DataError: It belongs to another model, or to another number of processes.
        """
        progress = self.state.load()
        if progress is not None:
            self.step, self.seconds, self._sums = progress.step, progress.seconds, progress.sums
        return progress is not None

    def save(self) -> None:
        """Save the state to go on from; a failure leaves the one before it."""
        self.state.save(Progress(self.step, self.seconds, self._sums))

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

    def train_step(self, batches: Sequence[Any]) -> Sums:
        """Learn from the batches of one step; return its losses, summed over batches and processes.

        Raises:
            DataError: Loss or gradient is not finite. No weight is changed then, except by DeepSpeed,
                which finds it when it has made the step; the saved state stays what it was.
        """
        self.optimizer.set_factor(self.work.rate_factor(self.step))
        shares = self._shares(batches)
        found: list[Losses] = []
        for place, (drawn, share) in enumerate(zip(batches, shares, strict=True)):
            batch = drawn.to(self.acceleration.device)
            # Noise and choices inside the model depend on the batch's number alone, as the batch does.
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
    """How workers are started: a process that has opened a GPU or a process group must not be forked."""
    return "spawn" if acceleration.device.type == "cuda" or acceleration.world > 1 else None
