"""The inference thread: it owns the model, and runs requests and images one after the other. Imports no ROS.

A model, its trackers and its GPU context belong to one thread. Callbacks of the node never run the model; they post a
request here and wait, with a deadline, for its answer.

A thread cannot be ended from outside. One whose model hangs is abandoned: everybody who waits is refused, and the
thread ends when the model returns, if it ever does.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Protocol, TypeVar

from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.requests import Request, Work, WorkerError, answer, crash_reason, settle
from elysium_ros.perception.types import Incoming

MAX_REQUESTS = 256
"""Requests that may wait; one more is refused with ``BUSY``."""

INFERENCE_THREAD = "elysium_inference"
"""Name of the thread."""

DEFAULT_LIMIT_S = 5.0
"""How long the model may work on one image or request before it counts as hung, unless told otherwise [s]."""

# Requests answered in a row before the next image, so that a flood of them cannot stop tracking.
_REQUESTS_A_TURN = 4
_POLL_S = 0.1

# A camera that has sent an image so recently sends more, which are not to wait for one question after the other.
_LIVE_S = 1.0

Result = TypeVar("Result")


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
        limit_s: How long one image, or a request without a limit of its own, may take [s].
        crash: What ended the thread although nobody asked it to; None while there is no such thing.

    Args:
        arrivals: That of the mailboxes, if they are older than this worker.
        limit_s: As above.
    """

    def __init__(self, arrivals: threading.Condition | None = None, limit_s: float = DEFAULT_LIMIT_S) -> None:
        self.arrivals = arrivals or threading.Condition()
        self.limit_s = limit_s
        self.crash: BaseException | None = None
        self._handler: ImageHandler | None = None
        self._requests: deque[Request] = deque()
        self._questions: deque[Request] = deque()
        self._questions_from_s = self._looked_at_s = float("-inf")
        self._mailboxes: Sequence[Mailbox] = ()
        self._next_mailbox = 0
        self._paused = False
        self._stopping = False
        self._refusal = WorkerError("the node is shutting down or being cleaned up")
        self._work: Work | None = None
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

    def abandon(self, reason: WorkerError) -> None:
        """Give the thread up: refuse what waits and what runs, now and later.

        Args:
            reason: What callers are told.
        """
        with self.arrivals:
            self._stopping, self._refusal = True, reason
            self._mailboxes, self._handler = (), None
            work = self._work
            self._refuse_waiting()
            self.arrivals.notify_all()
        if work is not None and work.future is not None:
            settle(work.future, error=reason)

    def allow(self, limit_s: float) -> None:
        """Change how long one image, or a request without a limit of its own, may take [s]."""
        self.limit_s = limit_s

    def where(self) -> str:
        """Return what the thread is doing, as a traceback; empty if it has ended."""
        # Public, in spite of its name.
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        return "" if frame is None else "".join(traceback.format_stack(frame))

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
    def work(self) -> Work | None:
        """The present request or image; None when idle."""
        return self._work

    def post(
        self, function: Callable[[], Result], limit_s: float | None = None, *, question: bool = False
    ) -> Future[Result]:
        """Run ``function`` in the thread, between two images.

        Args:
            function: What to run.
            limit_s: How long it may run before the model counts as hung [s]; None for the worker's limit.
            question: It takes long and changes nothing: while images come, questions get half of the time.

        Raises:
            WorkerError: The thread is ending (``NOT_ACTIVE``) or was given up, or too many requests wait (``BUSY``).
        """
        future: Future[Result] = Future()
        with self.arrivals:
            if self._stopping:
                raise self._refusal
            if len(self._requests) + len(self._questions) >= MAX_REQUESTS:
                raise WorkerError(f"{MAX_REQUESTS} requests are waiting already; try again later", code="BUSY")
            (self._questions if question else self._requests).append(Request(future, function, limit_s))
            self.arrivals.notify_all()
        return future

    def call(
        self,
        function: Callable[[], Result],
        timeout_s: float,
        *,
        limit_s: float | None = None,
        question: bool = False,
        abandon: Callable[[Result], None] | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run ``function`` in the thread and wait for its result.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            limit_s: As for :meth:`post`.
            question: As for :meth:`post`.
            abandon: Undoes a result that comes after the caller has gone; runs in the thread.
            give_up: Polled while waiting; true ends the wait early.

        Raises:
            WorkerError: ``TIMEOUT`` no answer in time; ``NOT_ACTIVE`` the thread is ending; ``BUSY``.
            Exception: Any that ``function`` raised.
        """
        future = self.post(function, limit_s, question=question)
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
        waiting = [*self._requests, *self._questions]
        self._requests.clear()
        self._questions.clear()
        for future in (request.future for request in waiting):
            if future.set_running_or_notify_cancel():
                settle(future, error=self._refusal)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - such as SystemExit, or the panic of a library in Rust
            with self.arrivals:
                self._stopping = True
                self._refusal = crash_reason(error)
                self._work = None
                self._refuse_waiting()
            self.crash = error

    def _serve(self) -> None:
        while True:
            image: Incoming | None = None
            with self.arrivals:
                # An image is taken when no request waits: after them, which may take long, there may be a newer one.
                while not self._stopping and not self._requests and not self._is_question_due():
                    if (image := self._next_image()) is not None:
                        break
                    self.arrivals.wait(self._question_wait_s())
                if self._stopping:
                    return
            if image is None:
                image = self._answer_requests()
            handler = self._handler
            if image is not None and handler is not None:
                self._looked_at_s = time.monotonic()
                self._work = Work(self._looked_at_s, self.limit_s)
                try:
                    handler.look_at(image)
                except Exception as error:  # noqa: BLE001 - the thread must outlive any image
                    handler.report(error)
            self._work = None

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

    def _is_question_due(self) -> bool:
        return bool(self._questions) and time.monotonic() >= self._questions_from_s

    def _question_wait_s(self) -> float | None:
        return max(0.0, self._questions_from_s - time.monotonic()) if self._questions else None

    def _answer_requests(self) -> Incoming | None:
        """Answer a few requests, or one question; return the newest image after that, None if there is none."""
        for _ in range(_REQUESTS_A_TURN):
            with self.arrivals:
                if not self._requests:
                    break
                request = self._requests.popleft()
            self._answer(request)
        else:
            with self.arrivals:
                return self._next_image()
        with self.arrivals:
            question = self._questions.popleft() if self._is_question_due() else None
        if question is not None:
            begin_s = time.monotonic()
            self._answer(question)
            end_s = time.monotonic()
            if begin_s - self._looked_at_s < _LIVE_S:
                self._questions_from_s = 2 * end_s - begin_s
        with self.arrivals:
            return self._next_image()

    def _answer(self, request: Request) -> None:
        limit_s = self.limit_s if request.limit_s is None else request.limit_s
        self._work = Work(time.monotonic(), limit_s, request.future)
        answer(request.future, request.function)
        self._work = None
