"""The node's engine room: inference thread, model, mailboxes and what follows targets, through its life. Knows no ROS.

Loaded (the model is in memory), open (images are looked at), closed, freed: the lifecycle of the node drives these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeVar

from elysium_core.types import ModelInfo, PerceptionModel, TrackingConfig
from elysium_ros.perception.answers import Answer, describe_target, next_due
from elysium_ros.perception.mailbox import Delivery, Mailbox
from elysium_ros.perception.perception import Hooks, Perception
from elysium_ros.perception.targets import EndReason
from elysium_ros.perception.worker import Worker, WorkerError

MODEL_TIMEOUT_S = 30.0
"""How long a caller waits for the model unless it says otherwise [s]."""

_STOP_TIMEOUT_S = 3.0

Result = TypeVar("Result")


class Runtime:
    """Everything that runs the model.

    Args:
        hooks: What the node does with what happens.
        on_description: Hears of every finished periodic description.
        is_shutting_down: Whether the process is ending; no one waits for the model then.
        why_inactive: Says for a caller why nothing can be done now and what to do.
    """

    def __init__(
        self,
        hooks: Hooks,
        on_description: Callable[[Answer], object],
        is_shutting_down: Callable[[], bool],
        why_inactive: Callable[[], str],
    ) -> None:
        self.describe_period_s = 0.0
        self._why_inactive = why_inactive
        self._hooks = hooks
        self._on_description = on_description
        self._is_shutting_down = is_shutting_down
        self._ids: Iterator[int] = count(1)
        self._worker: Worker | None = None
        self._model: PerceptionModel | None = None
        self._model_key: Hashable = None
        self._perception: Perception | None = None
        self._mailboxes: tuple[Mailbox, ...] = ()

    def load(self, load: Callable[[], PerceptionModel], key: Hashable) -> bool:
        """Load the model in the inference thread, unless it is loaded already.

        Args:
            load: Loads it.
            key: What it is loaded from; a model loaded from something else is freed before.

        Returns:
            Whether it was loaded now.

        Raises:
            Exception: Whatever ``load`` raises.
        """
        if self._worker is None:
            self._worker = Worker(self._look_at, self._hooks.report)
            self._worker.start()
        if self._model_key != key:
            self.free()
        if self._model is not None:
            return False
        self._model = self._wait(load)
        self._model_key = key
        return True

    def open(self, mailboxes: Sequence[Mailbox], config: TrackingConfig, warm_up_passes: int) -> None:
        """Warm the model up and begin to look at images.

        Args:
            mailboxes: One for each camera.
            config: Settings of tracking.
            warm_up_passes: How often to run the whole model before.
        """
        model, worker = self._model, self._worker
        if model is None or worker is None:
            raise WorkerError(self._why_inactive())

        def prepare() -> Perception:
            for _ in range(warm_up_passes):
                model.warm_up()
            return Perception(model, config, mailboxes, self._ids, self._hooks)

        self._perception = self._wait(prepare)
        self._mailboxes = tuple(mailboxes)
        worker.paused = False
        worker.watch(mailboxes)

    def close(self) -> None:
        """Stop looking at images and end all targets; the model stays."""
        perception, self._perception = self._perception, None
        if self._worker is None or perception is None:
            return
        self._worker.watch(())
        self._wait(lambda: perception.reset(EndReason.INACTIVE))

    def free(self) -> None:
        """Give the model's memory back."""
        model, self._model = self._model, None
        if self._worker is not None and model is not None:
            self._wait(model.close)

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End the inference thread.

        Args:
            timeout_s: Longest wait for what it is doing [s].
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(timeout_s)

    def call(
        self,
        function: Callable[[Perception], Result],
        timeout_s: float = MODEL_TIMEOUT_S,
        abandon: Callable[[Perception, Result], object] | None = None,
    ) -> Result:
        """Have ``function`` run in the inference thread, between two images.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            abandon: Undoes a result that comes after the wait has ended.

        Raises:
            WorkerError: The node is not active (``NOT_ACTIVE``), or there is no answer in time (``TIMEOUT``, ``BUSY``).
            Exception: Whatever ``function`` raises.
        """
        worker, perception = self._opened()

        def undo(result: Result) -> None:
            if abandon is not None:
                abandon(perception, result)

        return worker.call(lambda: function(perception), timeout_s, abandon=undo, give_up=self._is_shutting_down)

    def post(self, function: Callable[[Perception], object]) -> None:
        """Have ``function`` run in the inference thread and do not wait; a failure is reported.

        Raises:
            WorkerError: As for :meth:`call`, except ``TIMEOUT``.
        """
        worker, perception = self._opened()

        def report(done: Future[object]) -> None:
            error = done.exception()
            if isinstance(error, Exception):
                self._hooks.report(error)

        worker.post(lambda: function(perception)).add_done_callback(report)

    @property
    def paused(self) -> bool:
        """Whether images are left lying."""
        return self._worker is not None and self._worker.paused

    def pause(self, paused: bool) -> None:
        """Leave images lying, or go on.

        Raises:
            WorkerError: The node is not active.
        """
        worker, _ = self._opened()
        worker.paused = paused

    def notify(self) -> None:
        """Say that an image has arrived."""
        if self._worker is not None:
            self._worker.notify()

    @property
    def is_open(self) -> bool:
        """Whether images are looked at."""
        return self._perception is not None

    @property
    def model_info(self) -> ModelInfo | None:
        """What the loaded model is, None if there is none."""
        return None if self._model is None else self._model.info

    @property
    def active_ids(self) -> list[int]:
        """Ids of the targets that are followed or searched for, ascending."""
        return [] if self._perception is None else self._perception.active_ids

    @property
    def failures(self) -> int:
        """Frames that the model failed on since activation."""
        return 0 if self._perception is None else self._perception.failures

    @property
    def standing_failure(self) -> str:
        """Why the model failed on the newest frame; empty if it did not."""
        return "" if self._perception is None else self._perception.standing_failure

    @property
    def parse_failures(self) -> int:
        """Answers without a usable box since activation."""
        return 0 if self._perception is None else self._perception.parse_failures

    @property
    def received(self) -> int:
        """Images received since activation."""
        return sum(mailbox.received for mailbox in self._mailboxes)

    @property
    def dropped(self) -> int:
        """Images skipped since activation."""
        return sum(mailbox.dropped for mailbox in self._mailboxes)

    @property
    def busy_s(self) -> float:
        """How long the model has been at what it is doing now [s]."""
        return 0.0 if self._worker is None else self._worker.busy_s

    def _opened(self) -> tuple[Worker, Perception]:
        if self._worker is None or self._perception is None:
            raise WorkerError(self._why_inactive())
        return self._worker, self._perception

    def _wait(self, function: Callable[[], Result]) -> Result:
        """Run in the inference thread and wait as long as it takes, or until the process ends."""
        if self._worker is None:
            raise WorkerError("the inference thread has ended")
        return self._worker.call(function, float("inf"), give_up=self._is_shutting_down)

    def _look_at(self, delivery: Delivery) -> None:
        perception = self._perception
        if perception is None:
            return
        perception.look_at(delivery)
        due = next_due(perception, self.describe_period_s, time.monotonic())
        if due is not None:
            due.described_at_s = time.monotonic()
            self._on_description(describe_target(perception, due.id))
