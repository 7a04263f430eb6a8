"""The training loop: runs one stage from its newest saved state, or its first step, to its last step.

The loop counts steps, writes files and waits for processes.
:class:`elysium_core.training.stage_work.StageWork` is what is learnt from a batch;
:class:`elysium_core.training.acceleration.Acceleration` is how the work lies on devices.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from elysium_core.errors import DataError, ElysiumError
from elysium_core.io.stop_request import StopRequest
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.losses import Losses, Sums, add_up, decayed, detached, means
from elysium_core.training.optimizer import TrainingOptimizer, WeightAverage
from elysium_core.training.records import StageRecords
from elysium_core.training.snapshots import Progress, StageState, save_bad_batch
from elysium_core.training.stage_work import StageWork

DONE_NAME = "done"

_LOG = logging.getLogger(__name__)
_MEMORY = 0.95
_TELL_EVERY = 10


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
            KeyboardInterrupt: Ctrl-C or SIGTERM came. The step was finished and the state is saved; a second Ctrl-C
                does not wait for that.
            DataError: Loss or gradient is not finite; the batch is saved beside the log.
            OSError: A state or a record cannot be written; the state before it is kept.
        """
        torch.set_num_threads(self.settings.threads)
        self.records = StageRecords(self.folder, self.step, active=self.acceleration.is_main)
        try:
            with StopRequest() as stop:
                self._run(stop)
        finally:
            self.records.close()
        self._finish()

    def _run(self, stop: StopRequest) -> None:
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
            # The clocks of the processes differ, and saving takes all of them. One that is asked to stop stops all.
            due = float(time.monotonic() - saved_at > self.settings.save_every_s)
            wanted = self.acceleration.mean({"due": due, "stop": float(stop.is_set)})
            if wanted["stop"] > 0 and self.step < self.settings.steps:
                self._stop()
            if wanted["due"] >= 1:
                self.save()
                saved_at = time.monotonic()

    def _stop(self) -> None:
        """Save and end; the log says how to go on."""
        self.save()
        if self.acceleration.is_main:
            _LOG.warning(
                "%s: stopped at step %d of %d; its state is saved in %s, and the same command goes on from there",
                self.work.name,
                self.step,
                self.settings.steps,
                self.folder,
            )
        raise KeyboardInterrupt

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
            # A forked worker may wait for ever for a lock that a thread of OpenCV or torch held, and must not use a GPU
            # or process group that was open. A spawned one starts two seconds later: it imports everything anew.
            multiprocessing_context="spawn" if settings.workers else None,
        )
        with _new_processes_ignore_ctrl_c():
            batches = iter(loader)
        while group := self._next(batches):
            yield group

    def _next(self, batches: Iterator[Any]) -> list[Any]:
        """The batches of the next step; none behind the last one."""
        try:
            return list(islice(batches, self.settings.accumulate))
        except ElysiumError as error:
            # An error of a worker comes as the text of its traceback, which ends with its type and its sentence.
            sentence = str(error).strip().rpartition("\n")[2].partition("Error: ")[2]
            raise type(error)(sentence or str(error)) from error

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
                with self.acceleration.computing():
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


@contextmanager
def _new_processes_ignore_ctrl_c() -> Iterator[None]:
    """Ctrl-C reaches the processes that draw batches, too; the loop still needs them for its step, and ends them."""
    if threading.current_thread() is not threading.main_thread():  # only that one may change how signals are handled
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a new process inherits that a signal is ignored
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
