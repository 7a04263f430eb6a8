"""Loads the model, and opens and closes the processing of images in the inference thread. Imports no ROS.

The lifecycle of the node drives it: loaded (the model is in memory), open (images are processed), closed, freed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from elysium_core.errors import ModelFileError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import LoadOptions, ModelInfo, PerceptionModel
from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.targets import EndReason
from elysium_ros.perception.types import InferenceSettings, Outputs
from elysium_ros.perception.worker import Worker, WorkerError

MODEL_TIMEOUT_S = 30.0
"""How long a caller waits for the model unless it says otherwise [s]."""

_STOP_TIMEOUT_S = 3.0

Result = TypeVar("Result")


class NodeLife(Protocol):
    """The state of the node, as far as callers of the inference thread need it."""

    @property
    def is_shutting_down(self) -> bool:
        """Whether the process is ending; nobody waits for the model then."""
        ...

    def why_inactive(self) -> str:
        """Say for a caller why nothing can be done now, and what to do."""
        ...


@dataclass(frozen=True, slots=True)
class InferenceState:
    """The inference thread at one moment.

    Attributes:
        model: The loaded model, None if there is none.
        paused: Images are not processed.
        busy_s: How long the present request or image has taken so far [s]; 0 when idle.
        failures: Frames that the model failed on since activation.
        standing_failure: Why the model failed on the newest frame; empty if it did not.
        parse_failures: Answers without a usable box since activation.
        received: Images received since activation.
        dropped: Images skipped since activation.
        active_ids: Ids of the targets that are followed or searched for, ascending.
    """

    model: ModelInfo | None = None
    paused: bool = False
    busy_s: float = 0.0
    failures: int = 0
    standing_failure: str = ""
    parse_failures: int = 0
    received: int = 0
    dropped: int = 0
    active_ids: tuple[int, ...] = ()


class Inference:
    """The model and the thread that runs it.

    Args:
        life: The state of the node.
    """

    def __init__(self, life: NodeLife) -> None:
        self._life = life
        self._ids = count(1)
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
            self._worker = Worker()
            self._worker.start()
        if self._options != options:
            self.free()
        if self._model is not None:
            return False
        self._model = self._wait(lambda: load_model(options))
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
        mailboxes = tuple(Mailbox(camera, capacity, arrivals) for camera in settings.cameras)

        def prepare() -> Perception:
            for _ in range(settings.warm_up_passes):
                model.warm_up()
            return Perception(model, settings, mailboxes, self._ids, outputs)

        perception = self._wait(prepare)
        self._perception, self._mailboxes = perception, mailboxes
        worker.watch(mailboxes, perception)
        return mailboxes

    def close(self) -> None:
        """Process no more images and end all targets; the model stays."""
        perception, self._perception = self._perception, None
        if self._worker is None or perception is None:
            return
        self._worker.unwatch()
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
            lambda: function(perception), timeout_s, abandon=undo, give_up=lambda: self._life.is_shutting_down
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

    def configure(self, settings: InferenceSettings) -> None:
        """Take new settings from the next frame on; cameras, buffers and warm-up stay as they are.

        Raises:
            WorkerError: As for :meth:`post`.
        """
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
        model, worker, perception = self._model, self._worker, self._perception
        state = InferenceState(
            model=None if model is None else model.info,
            busy_s=0.0 if worker is None else worker.busy_s,
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
        if self._worker is None or self._perception is None:
            raise WorkerError(self._life.why_inactive())
        return self._worker, self._perception

    def _wait(self, function: Callable[[], Result]) -> Result:
        """Run in the inference thread and wait as long as it takes, or until the process ends."""
        if self._worker is None:
            raise WorkerError("the inference thread has ended")
        return self._worker.call(function, float("inf"), give_up=lambda: self._life.is_shutting_down)


def load_model(options: LoadOptions) -> PerceptionModel:
    """Load a model; ``identity`` has nothing to load and ignores all options.

    Raises:
        ModelFileError: The folder or a file in it is missing, damaged or unsafe to read.
        BackendError: The device, backend or quantisation cannot be used on this machine.
    """
    name = options.model
    if name == "identity":
        return IdentityModel()
    if name.startswith(("/", "./", "../", "~")):
        # Cannot be a name; said at once instead of after the seconds that torch takes to import.
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ModelFileError(f"there is no model folder {str(folder)!r}; set model.path to a checkpoint or 'nano'")
        options = options.with_options(model=str(folder))
    from elysium_core.api import Elysium
    from elysium_core.device import fit_threads

    model: PerceptionModel = Elysium.from_pretrained(options)
    fit_threads(model.info.parameters)
    return model
