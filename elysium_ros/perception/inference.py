"""Loads the model, and opens and closes the processing of images in the inference thread. Imports no ROS.

The lifecycle of the node drives it: loaded (the model is in memory), open (images are processed), closed, freed.

A model that hangs, or that ends its thread, is given up: :meth:`Inference.check` loads it anew in another thread, and
what is followed by words is searched for again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import TypeVar

from elysium_core.settings import LoadOptions
from elysium_core.types import PerceptionModel
from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.depth_source import DepthSource
from elysium_ros.perception.faults import Fault, FaultFinder, RestartBudget
from elysium_ros.perception.handover import Handover
from elysium_ros.perception.inference_state import InferenceState, NodeLife
from elysium_ros.perception.model_loading import load_model, warm_up
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.requests import WorkerError
from elysium_ros.perception.target_events import EndReason
from elysium_ros.perception.types import InferenceSettings, Outputs
from elysium_ros.perception.worker import DEACTIVATED, Worker

MODEL_TIMEOUT_S = 30.0
"""How long a caller waits for the model unless it says otherwise [s]."""

_STOP_TIMEOUT_S = 3.0
_WORDS_TIMEOUT_S = 2.0

# Large weights come from slow disks, and an engine may be built: only what takes longer hangs.
_LOAD_LIMIT_S = 1800.0

Result = TypeVar("Result")


class Inference:
    """The model and the thread that runs it.

    Args:
        life: The state of the node.
    """

    def __init__(self, life: NodeLife) -> None:
        self._life = life
        self._ids = count(1)
        # What callbacks and the watchdog change; not held while the model works.
        self._lock = threading.RLock()
        self._settings = InferenceSettings()
        self._outputs: Outputs | None = None
        self._restarting: WorkerError | None = None
        # What was followed when the model failed, until it is loaded again.
        self._handover = Handover()
        self._budget = RestartBudget()
        self._faults = FaultFinder()
        self._worker: Worker | None = None
        self._model: PerceptionModel | None = None
        self._options: LoadOptions | None = None
        self._perception: Perception | None = None
        self._mailboxes: tuple[Mailbox, ...] = ()

    def load(self, options: LoadOptions) -> bool:
        """Load the model in the inference thread, unless it is loaded already.

        Args:
            options: Which model, and how; one that was loaded with other options is freed before.

        Returns:
            Whether it was loaded now.

        Raises:
            ModelFileError, BackendError: As for :func:`load_model`.
        """
        if self._worker is None:
            self._worker = self._start_worker()
        if self._options != options:
            self.free()
        if self._model is not None:
            return False
        self._model = self._wait(lambda: load_model(options), _LOAD_LIMIT_S)
        self._options = options
        return True

    def open(self, settings: InferenceSettings, outputs: Outputs) -> tuple[Mailbox, ...]:
        """Warm the model up and begin to process images.

        Args:
            settings: See :class:`elysium_ros.perception.types.InferenceSettings`.
            outputs: Where results go.

        Returns:
            Where images are put, one mailbox for each camera.
        """
        model, worker = self._model, self._worker
        if model is None or worker is None:
            raise WorkerError(self._life.why_inactive())

        capacity, arrivals = settings.buffer_capacity, worker.arrivals
        mailboxes = tuple(
            Mailbox(camera, capacity, arrivals, depth=None if settings.depth is None else DepthSource())
            for camera in settings.cameras
        )

        def prepare() -> Perception:
            warm_up(model, settings.warm_up_passes)
            return Perception(model, settings, mailboxes, self._ids, outputs)

        perception = self._wait(prepare, _LOAD_LIMIT_S)
        with self._lock:
            self._settings, self._outputs = settings, outputs
            self._perception, self._mailboxes = perception, mailboxes
            worker.allow(settings.model_timeout_s)
            worker.watch(mailboxes, perception)
        return mailboxes

    def close(self) -> None:
        """Process no more images and end all targets; the model stays."""
        with self._lock:
            perception, self._perception = self._perception, None
            worker, restarting, self._restarting = self._worker, self._restarting, None
            handover, self._handover = self._handover, Handover()
            if restarting is not None:
                self._worker = None
        if worker is not None and restarting is not None:
            worker.abandon(DEACTIVATED)
            handover.targets.tell_end(EndReason.INACTIVE)
        if worker is None or perception is None:
            return
        worker.unwatch()
        try:
            self._wait(lambda: perception.reset(EndReason.INACTIVE))
        except WorkerError:  # the model hangs, and was given up
            perception.retire().targets.tell_end(EndReason.INACTIVE)

    def free(self) -> None:
        """Give the model's memory back."""
        model, self._model = self._model, None
        if self._worker is not None and model is not None:
            with suppress(WorkerError):  # a model that hangs keeps its memory
                self._wait(model.close)

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End the inference thread.

        Args:
            timeout_s: Longest wait for what it is doing [s].
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(timeout_s)

    def check(self) -> Fault | None:
        """Give the inference thread up if the model hangs or has ended it, and start anew; call it often.

        Returns:
            What is wrong; None in nearly all cases.
        """
        with self._lock:
            worker = self._worker
            fault = None if worker is None else self._faults.look(worker)
            if worker is None or fault is None:
                return None
            self._worker = None
            model, self._model = self._model, None
            perception, self._perception = self._perception, None
            options, self._options = self._options, None
            outputs = self._outputs
            if perception is not None:
                self._restarting = fault.reason
        worker.abandon(fault.reason)
        if perception is not None and options is not None and outputs is not None:
            handover = perception.retire()
            if self._budget.allows(on_gpu=model is not None and model.info.device.startswith("cuda")):
                self._restart(worker, options, outputs, handover)
            else:
                self._life.give_up(f"{fault.reason.code}: {fault.reason}")
        elif self._restarting is not None:  # it hung while it was loaded again
            self._life.give_up(f"{fault.reason.code}: {fault.reason}")
        return fault

    def call(
        self,
        function: Callable[[Perception], Result],
        timeout_s: float = MODEL_TIMEOUT_S,
        abandon: Callable[[Perception, Result], object] | None = None,
    ) -> Result:
        """Run ``function`` in the inference thread, between two images.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            abandon: Undoes a result that comes after the wait has ended.

        Raises:
            WorkerError: The node is not active (``NOT_ACTIVE``), or there is no answer in time (``TIMEOUT``, ``BUSY``).
            Exception: Any that ``function`` raises.
        """
        worker, perception = self._opened()

        def undo(result: Result) -> None:
            if abandon is not None:
                abandon(perception, result)

        return worker.call(
            lambda: function(perception),
            timeout_s,
            limit_s=max(worker.limit_s, min(timeout_s, MODEL_TIMEOUT_S)),
            abandon=undo,
            give_up=lambda: self._life.is_shutting_down,
        )

    def ask(self, question: Callable[[Perception], Result], timeout_s: float = MODEL_TIMEOUT_S) -> Result:
        """Have the model answer something that takes long and changes nothing; images are followed meanwhile.

        Args:
            question: The question.
            timeout_s: Longest wait [s].

        Raises:
            WorkerError: As for :meth:`call`; ``NOT_ACTIVE`` also when the node is deactivated before the answer.
            Exception: Any that ``question`` raises.
        """
        worker, perception = self._opened()
        return worker.ask(
            lambda take_break: perception.ask(question, take_break),
            timeout_s,
            limit_s=max(worker.limit_s, min(timeout_s, MODEL_TIMEOUT_S)),
            give_up=lambda: self._life.is_shutting_down,
        )

    def post(self, function: Callable[[Perception], object]) -> None:
        """Run ``function`` in the inference thread and do not wait; a failure is reported.

        Raises:
            WorkerError: As for :meth:`call`, except ``TIMEOUT``.
        """
        worker, perception = self._opened()

        def report(done: Future[object]) -> None:
            error = done.exception()
            if isinstance(error, Exception):
                perception.report(error)

        worker.post(lambda: function(perception)).add_done_callback(report)

    def check_words(self, expression: str) -> None:
        """Raise if the loaded model does not take these words; without a model, and while it is busy, any are fine.

        Raises:
            ExpressionError: The model does not know them.
        """
        model, worker = self._model, self._worker
        if model is None or worker is None or not expression:
            return
        with suppress(WorkerError):
            worker.call(lambda: model.clean_words(expression), _WORDS_TIMEOUT_S)

    def configure(self, settings: InferenceSettings) -> None:
        """Take new settings from the next frame on; cameras, buffers and warm-up stay as they are.

        Raises:
            WorkerError: As for :meth:`post`.
        """
        worker, _ = self._opened()
        with self._lock:
            self._settings = settings
            worker.allow(settings.model_timeout_s)
        self.post(lambda perception: perception.configure(settings))

    def pause(self, paused: bool) -> None:
        """Stop processing images, or go on.

        Raises:
            WorkerError: The node is not active.
        """
        worker, _ = self._opened()
        worker.pause(paused)

    @property
    def is_open(self) -> bool:
        """Whether images are processed."""
        return self._perception is not None

    def state(self) -> InferenceState:
        """Return the state now; may be called from any thread."""
        model, worker, perception, restarting = self._model, self._worker, self._perception, self._restarting
        work = None if worker is None else worker.work
        state = InferenceState(
            model=None if model is None else model.info,
            busy_s=0.0 if work is None else time.monotonic() - work.since_s,
            restarts=self._budget.failures,
            restarting="" if restarting is None else f"{restarting.code}: {restarting}",
            received=sum(mailbox.received for mailbox in self._mailboxes),
            dropped=sum(mailbox.dropped for mailbox in self._mailboxes),
        )
        if worker is None or perception is None:
            return state
        return replace(
            state,
            paused=worker.paused,
            failures=perception.failures,
            standing_failure=perception.standing_failure,
            parse_failures=perception.parse_failures,
            active_ids=tuple(perception.active_ids),
        )

    def _opened(self) -> tuple[Worker, Perception]:
        with self._lock:
            worker, perception, restarting = self._worker, self._perception, self._restarting
        if worker is not None and perception is not None:
            return worker, perception
        if restarting is not None:
            raise WorkerError(f"{restarting}; it is being loaded again, try again later", code=restarting.code)
        raise WorkerError(self._life.why_inactive())

    def _wait(self, function: Callable[[], Result], limit_s: float | None = None) -> Result:
        """Run in the inference thread and wait as long as it takes, or until the process ends."""
        worker = self._worker
        if worker is None:
            raise WorkerError("the inference thread has ended")
        return worker.call(function, float("inf"), limit_s=limit_s, give_up=lambda: self._life.is_shutting_down)

    def _start_worker(self, arrivals: threading.Condition | None = None) -> Worker:
        worker = Worker(arrivals, self._settings.model_timeout_s)
        worker.start()
        return worker

    def _restart(self, old: Worker, options: LoadOptions, outputs: Outputs, handover: Handover) -> None:
        """Load the model in another thread, and have it go on with the targets and the cameras."""

        def load() -> None:
            model = load_model(options)
            with self._lock:
                settings, mailboxes = self._settings, self._mailboxes
            warm_up(model, settings.warm_up_passes)
            perception = Perception(model, settings, mailboxes, self._ids, outputs)
            perception.succeed(handover)
            with self._lock:
                if self._worker is worker:
                    self._model, self._options, self._perception = model, options, perception
                    self._restarting, self._handover = None, Handover()
                    worker.watch(mailboxes, perception)
                    return
            model.close()

        def end_if_failed(done: Future[None]) -> None:
            error = done.exception()
            if error is not None and self._worker is worker:
                self._life.give_up(f"the model cannot be loaded again: {error}")

        with self._lock:
            if self._restarting is None:
                return  # the node was deactivated in the meantime
            worker = self._worker = self._start_worker(old.arrivals)
            self._handover = handover
        worker.post(load, _LOAD_LIMIT_S).add_done_callback(end_if_failed)
