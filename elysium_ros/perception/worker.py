"""The inference thread: it owns the model, and runs requests and images one after the other. Imports no ROS.

A model, its trackers and its GPU context belong to one thread. Callbacks of the node never run the model; they post a
request here and wait, with a deadline, for its answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar

from elysium_core.errors import ElysiumError
from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.types import Incoming

MAX_REQUESTS = 256
"""Requests that may wait; one more is refused with ``BUSY``."""

INFERENCE_THREAD = "elysium_inference"
"""Name of the thread."""

# Requests answered in a row before the next image, so that a flood of them cannot stop tracking.
_REQUESTS_A_TURN = 4
_POLL_S = 0.1

Result = TypeVar("Result")


class WorkerError(ElysiumError):
    """The inference thread could not answer."""

    code = "NOT_ACTIVE"


class ImageHandler(Protocol):
    """Processes images. Its methods run in the inference thread."""

    def look_at(self, image: Incoming) -> None:
        """Process one image."""
        ...

    def report(self, error: Exception) -> object:
        """Take note of what :meth:`look_at` raised."""
        ...


class Worker:
    """The inference thread.

    Attributes:
        arrivals: For the mailboxes that are watched, so that an image in one of them wakes the thread.
    """

    def __init__(self) -> None:
        self.arrivals = threading.Condition()
        self._handler: ImageHandler | None = None
        self._requests: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._mailboxes: Sequence[Mailbox] = ()
        self._next_mailbox = 0
        self._paused = False
        self._stopping = False
        self._busy_since: float | None = None
        # A daemon: a model that hangs in foreign code must not keep the process alive after SIGTERM.
        self._thread = threading.Thread(target=self._run, name=INFERENCE_THREAD, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Refuse what waits, finish what runs, end the thread.

        Args:
            timeout_s: Longest wait for what runs [s].

        Returns:
            Whether the thread ended in time.
        """
        with self.arrivals:
            self._stopping = True
            self._refuse_waiting()
            self.arrivals.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self, mailboxes: Sequence[Mailbox], handler: ImageHandler) -> None:
        """Take the images of these mailboxes in turn from now on.

        Args:
            mailboxes: Made with :attr:`arrivals`.
            handler: Processes the images.
        """
        with self.arrivals:
            self._mailboxes, self._handler = tuple(mailboxes), handler
            self._paused = False
            self.arrivals.notify_all()

    def unwatch(self) -> None:
        """Take no more images."""
        with self.arrivals:
            self._mailboxes, self._handler = (), None

    def pause(self, paused: bool) -> None:
        """Stop processing images, or go on; requests are answered in both cases."""
        with self.arrivals:
            if self._paused and not paused:
                for mailbox in self._mailboxes:
                    mailbox.record.wait_anew()
            self._paused = paused
            self.arrivals.notify_all()

    @property
    def paused(self) -> bool:
        """Whether images are not processed."""
        return self._paused

    @property
    def busy_s(self) -> float:
        """How long the present request or image has taken so far [s]; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def post(self, function: Callable[[], Result]) -> Future[Result]:
        """Run ``function`` in the thread, between two images.

        Raises:
            WorkerError: The thread is ending (``NOT_ACTIVE``), or too many requests wait (``BUSY``).
        """
        future: Future[Result] = Future()
        with self.arrivals:
            if self._stopping:
                raise WorkerError("the node is shutting down or being cleaned up")
            if len(self._requests) >= MAX_REQUESTS:
                raise WorkerError(f"{MAX_REQUESTS} requests are waiting already; try again later", code="BUSY")
            self._requests.append((future, function))
            self.arrivals.notify_all()
        return future

    def call(
        self,
        function: Callable[[], Result],
        timeout_s: float,
        *,
        abandon: Callable[[Result], None] | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run ``function`` in the thread and wait for its result.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            abandon: Undoes a result that comes after the caller has gone; runs in the thread.
            give_up: Polled while waiting; true ends the wait early.

        Raises:
            WorkerError: ``TIMEOUT`` no answer in time; ``NOT_ACTIVE`` the thread is ending; ``BUSY``.
            Exception: Any that ``function`` raised.
        """
        future = self.post(function)
        deadline_s = time.monotonic() + timeout_s
        while not wait([future], timeout=max(0.0, min(_POLL_S, deadline_s - time.monotonic()))).done:
            if give_up():
                self._leave(future, abandon)
                raise WorkerError("the node is shutting down")
            if time.monotonic() >= deadline_s:
                self._leave(future, abandon)
                raise WorkerError(f"the model gave no answer within {timeout_s:g} s; it is still busy", code="TIMEOUT")
        return future.result()

    def _leave(self, future: Future[Result], abandon: Callable[[Result], None] | None) -> None:
        if future.cancel() or abandon is None:
            return

        def undo(done: Future[Result]) -> None:
            if done.exception() is None:
                abandon(done.result())

        future.add_done_callback(undo)

    def _refuse_waiting(self) -> None:
        while self._requests:
            future, _ = self._requests.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(WorkerError("the node is shutting down or being cleaned up"))

    def _run(self) -> None:
        while True:
            image: Incoming | None = None
            with self.arrivals:
                # An image is taken when no request waits: after them, which may take long, there may be a newer one.
                while not self._stopping and not self._requests and (image := self._next_image()) is None:
                    self.arrivals.wait()
                if self._stopping:
                    return
                self._busy_since = time.monotonic()
            if image is None:
                image = self._answer_requests()
            handler = self._handler
            if image is not None and handler is not None:
                try:
                    handler.look_at(image)
                except Exception as error:  # noqa: BLE001 - the thread must outlive any image
                    handler.report(error)
            self._busy_since = None

    def _next_image(self) -> Incoming | None:
        """Take from the first mailbox that has an image, starting after the last that was served."""
        count = 0 if self._paused else len(self._mailboxes)
        for step in range(count):
            position = (self._next_mailbox + step) % count
            image = self._mailboxes[position].take()
            if image is not None:
                self._next_mailbox = position + 1
                return image
        return None

    def _answer_requests(self) -> Incoming | None:
        """Answer a few requests; return the newest image after that, None if there is none."""
        for _ in range(_REQUESTS_A_TURN):
            with self.arrivals:
                if not self._requests:
                    break
                future, function = self._requests.popleft()
            _answer(future, function)
        with self.arrivals:
            return self._next_image()


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
        future.set_exception(error)
    else:
        future.set_result(result)
