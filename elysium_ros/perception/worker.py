"""One thread that owns the model: it answers requests and looks at images, one thing at a time. Knows no ROS.

A model, its trackers and its GPU context belong to one thread. Callbacks of the node never run the model; they post a
request here and wait, with a deadline, for its answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from elysium_core.errors import ElysiumError
from elysium_ros.perception.mailbox import Delivery, Mailbox

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


class Worker:
    """The inference thread.

    Args:
        on_image: Looks at one image; runs in the thread.
        on_failure: Hears of an exception that ``on_image`` let through.
    """

    def __init__(self, on_image: Callable[[Delivery], None], on_failure: Callable[[Exception], Any]) -> None:
        self._on_image = on_image
        self._on_failure = on_failure
        self._condition = threading.Condition()
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
        with self._condition:
            self._stopping = True
            self._refuse_waiting()
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self, mailboxes: Sequence[Mailbox]) -> None:
        """Look at the images of these mailboxes from now on, in turn; none = stop looking."""
        with self._condition:
            self._mailboxes = tuple(mailboxes)
            self._condition.notify_all()

    def notify(self) -> None:
        """Say that an image has arrived."""
        with self._condition:
            self._condition.notify_all()

    @property
    def paused(self) -> bool:
        """Whether images are left lying; requests are answered all the same."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._condition:
            self._paused = value
            self._condition.notify_all()

    @property
    def busy_s(self) -> float:
        """How long the thread has been at what it is doing now [s], 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def post(self, function: Callable[[], Result]) -> Future[Result]:
        """Have ``function`` run in the thread, between two images.

        Raises:
            WorkerError: The thread is ending (``NOT_ACTIVE``), or too many requests wait (``BUSY``).
        """
        future: Future[Result] = Future()
        with self._condition:
            if self._stopping:
                raise WorkerError("the node is shutting down or being cleaned up")
            if len(self._requests) >= MAX_REQUESTS:
                raise WorkerError(f"{MAX_REQUESTS} requests are waiting already; try again later", code="BUSY")
            self._requests.append((future, function))
            self._condition.notify_all()
        return future

    def call(
        self,
        function: Callable[[], Result],
        timeout_s: float,
        *,
        abandon: Callable[[Result], None] | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Have ``function`` run in the thread and wait for its result.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            abandon: Undoes a result that comes after the caller has gone; runs in the thread.
            give_up: Polled while waiting; true ends the wait early.

        Raises:
            WorkerError: ``TIMEOUT`` no answer in time; ``NOT_ACTIVE`` the thread is ending; ``BUSY``.
            Exception: Whatever ``function`` raised.
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
            with self._condition:
                self._condition.wait_for(self._has_work)
                if self._stopping:
                    return
                requests = [self._requests.popleft() for _ in range(min(_REQUESTS_A_TURN, len(self._requests)))]
                self._busy_since = time.monotonic()
            for future, function in requests:
                _answer(future, function)
            # Taken only now, so that it is the newest after the requests, which may have taken long.
            with self._condition:
                delivery = self._take_image()
            if delivery is not None:
                self._look_at(delivery)
            self._busy_since = None

    def _has_work(self) -> bool:
        has_image = not self._paused and any(mailbox.has_mail for mailbox in self._mailboxes)
        return self._stopping or bool(self._requests) or has_image

    def _take_image(self) -> Delivery | None:
        """Take from the first mailbox that has one, starting after the last that was served."""
        count = 0 if self._paused else len(self._mailboxes)
        for step in range(count):
            position = (self._next_mailbox + step) % count
            delivery = self._mailboxes[position].take()
            if delivery is not None:
                self._next_mailbox = position + 1
                return delivery
        return None

    def _look_at(self, delivery: Delivery) -> None:
        try:
            self._on_image(delivery)
        except Exception as error:  # noqa: BLE001 - the thread must outlive any image
            self._on_failure(error)


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
        future.set_exception(error)
    else:
        future.set_result(result)
