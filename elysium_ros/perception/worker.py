"""The inference thread: it owns the model, and runs requests and images one after the other. Imports no ROS.

A model, its trackers and its GPU context belong to one thread. Callbacks of the node never run the model; they post a
request here and wait, with a deadline, for its answer.

A question, such as one for a description, takes long. The model takes breaks while it answers, in which the thread
serves requests and images as at other times (:class:`Turns`).

A thread cannot be ended from outside. One whose model hangs is abandoned: everybody who waits is refused, and the
thread ends when the model returns, if it ever does.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar

from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.request_queue import RequestQueue
from elysium_ros.perception.requests import (
    ImageHandler,
    Question,
    Request,
    Work,
    WorkerError,
    answer,
    crash_reason,
    settle,
)
from elysium_ros.perception.turns import Turns
from elysium_ros.perception.types import Incoming

INFERENCE_THREAD = "elysium_inference"
"""Name of the thread."""

DEFAULT_LIMIT_S = 5.0
"""How long the model may work on one image or request before it counts as hung, unless told otherwise [s]."""

# Requests answered in a row before the next image, so that a flood of them cannot stop tracking.
_REQUESTS_A_TURN = 4
_POLL_S = 0.1

DEACTIVATED = WorkerError("the node was deactivated")
"""The error of questions that are refused because the node was deactivated."""

Result = TypeVar("Result")


class Worker:
    """The inference thread.

    Attributes:
        arrivals: For the mailboxes that are watched, so that an image in one of them wakes the thread.
        limit_s: How long one image, or a request that has no other limit, may take [s].
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
        self._queue = RequestQueue()
        self._asked: Request | None = None
        self._turns = Turns()
        self._mailboxes: Sequence[Mailbox] = ()
        self._next_mailbox = 0
        self._paused = False
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
            ending = WorkerError("the node is shutting down or being cleaned up")
            self._queue.close(self._queue.refusal or ending)
            self.arrivals.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abandon(self, reason: WorkerError) -> None:
        """Give the thread up: refuse what waits and what runs, now and later.

        Args:
            reason: The error that callers get.
        """
        with self.arrivals:
            self._mailboxes, self._handler = (), None
            work, asked = self._work, self._asked
            self._queue.close(reason)
            self.arrivals.notify_all()
        if work is not None and work.future is not None:
            settle(work.future, error=reason)
        if asked is not None:
            settle(asked.future, error=reason)

    def allow(self, limit_s: float) -> None:
        """Change how long one image, or a request that has no other limit, may take [s]."""
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

    def unwatch(self, reason: WorkerError = DEACTIVATED) -> None:
        """Take no more images, and refuse all questions.

        Args:
            reason: The error that callers get.
        """
        with self.arrivals:
            self._mailboxes, self._handler = (), None
            self._queue.refuse_questions(reason)
            if self._asked is not None:
                self._asked.end(reason)

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

    def post(self, function: Callable[[], Result], limit_s: float | None = None) -> Future[Result]:
        """Run ``function`` in the thread, between two images.

        Args:
            function: What to run.
            limit_s: How long it may run before the model counts as hung [s]; None for the worker's limit.

        Raises:
            WorkerError: The thread is ending (``NOT_ACTIVE``) or was given up, or too many requests wait (``BUSY``).
        """
        with self.arrivals:
            future = self._queue.add_request(function, limit_s)
            self.arrivals.notify_all()
        return future

    def post_question(self, question: Question[Result], limit_s: float | None = None) -> Future[Result]:
        """Have a question answered in the thread, beside the images; one after the other is.

        Args:
            question: The question.
            limit_s: How long it may go on without a break before the model counts as hung [s]; None for the worker's.

        Raises:
            WorkerError: As for :meth:`post`.
        """
        with self.arrivals:
            future = self._queue.add_question(partial(question, self._take_break), limit_s)
            self.arrivals.notify_all()
        return future

    def call(
        self,
        function: Callable[[], Result],
        timeout_s: float,
        *,
        limit_s: float | None = None,
        abandon: Callable[[Result], None] | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Run ``function`` in the thread and wait for its result.

        Args:
            function: What to run.
            timeout_s: Longest wait [s].
            limit_s: As for :meth:`post`.
            abandon: Undoes a result that comes after the caller has gone; runs in the thread.
            give_up: Polled while waiting; true ends the wait early.

        Raises:
            WorkerError: ``TIMEOUT`` no answer in time; ``NOT_ACTIVE`` the thread is ending; ``BUSY``.
            Exception: Any that ``function`` raised.
        """
        return self._result(self.post(function, limit_s), timeout_s, abandon, give_up)

    def ask(
        self,
        question: Question[Result],
        timeout_s: float,
        *,
        limit_s: float | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Have a question answered in the thread, beside the images, and wait for the answer.

        Args:
            question: The question.
            timeout_s: Longest wait [s].
            limit_s: As for :meth:`post_question`.
            give_up: As for :meth:`call`.

        Raises:
            WorkerError: As for :meth:`call`; or the images were not watched any more (:meth:`unwatch`).
            Exception: Any that ``question`` raised.
        """
        return self._result(self.post_question(question, limit_s), timeout_s, None, give_up)

    def _result(
        self,
        future: Future[Result],
        timeout_s: float,
        abandon: Callable[[Result], None] | None,
        give_up: Callable[[], bool],
    ) -> Result:
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
        if future.cancel():
            return
        with self.arrivals:
            if self._asked is not None and self._asked.future is future:
                self._asked.end(WorkerError("nobody waits for this answer any more", code="TIMEOUT"))
        if abandon is None:
            return

        def undo(done: Future[Result]) -> None:
            if done.exception() is None:
                abandon(done.result())

        future.add_done_callback(undo)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - such as SystemExit, or the panic of a library in Rust
            with self.arrivals:
                self._work = None
                self._queue.close(crash_reason(error))
            self.crash = error

    def _serve(self) -> None:
        while True:
            image: Incoming | None = None
            with self.arrivals:
                # An image is taken when no request waits: after them, which may take long, there may be a newer one.
                while self._queue.refusal is None and not self._queue.requests:
                    wait_s = self._turns.wait_s if self._queue.questions else None
                    if wait_s == 0 and not self._turns.is_images:
                        break
                    if (image := self._next_image()) is not None or wait_s == 0:
                        break
                    self.arrivals.wait(wait_s)
                if self._queue.refusal is not None:
                    return
            if image is None:
                self._answer_requests()
                self._answer_question()
                with self.arrivals:
                    image = self._next_image()
            if image is not None:
                self._look(image)

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

    def _look(self, image: Incoming) -> None:
        handler = self._handler
        if handler is None:
            return
        begin_s = time.monotonic()
        self._work = Work(begin_s, self.limit_s)
        try:
            handler.look_at(image)
            self._turns.looked(begin_s)
            if not self._queue.questions and self._asked is None:
                self._have_asked(handler)
        except Exception as error:  # noqa: BLE001 - the thread must outlive any image
            handler.report(error)
        self._work = None

    def _have_asked(self, handler: ImageHandler) -> None:
        """Put what the handler itself wants to ask among the questions."""
        question = handler.next_question()
        if question is None:
            return

        def report(done: Future[object]) -> None:
            error = done.exception()
            if isinstance(error, Exception) and not isinstance(error, WorkerError):
                handler.report(error)

        with suppress(WorkerError):  # the thread is ending
            self.post_question(question).add_done_callback(report)

    def _answer_requests(self) -> None:
        """Answer a few requests."""
        for _ in range(_REQUESTS_A_TURN):
            with self.arrivals:
                # A question that is refused ends before anything else, such as the model itself, is taken away.
                if not self._queue.requests or (self._asked is not None and self._asked.refusal is not None):
                    return
                request = self._queue.requests.popleft()
            limit_s = self.limit_s if request.limit_s is None else request.limit_s
            self._work = Work(time.monotonic(), limit_s, request.future)
            answer(request.future, request.function)
            self._work = None

    def _answer_question(self) -> None:
        """Answer one question, if one may begin."""
        with self.arrivals:
            if self._queue.refusal is not None or not self._queue.questions or self._turns.wait_s:
                return
            asked = self._asked = self._queue.questions.popleft()
        self._go_on_with(asked)
        try:
            answer(asked.future, asked.function)
        finally:
            self._asked = self._work = None
        self._turns.end_question()

    def _go_on_with(self, asked: Request) -> None:
        self._turns.begin_part()
        self._work = Work(time.monotonic(), self.limit_s if asked.limit_s is None else asked.limit_s, asked.future)

    def _take_break(self) -> None:
        """While a question is answered, serve requests, and an image if it is its turn.

        Raises:
            WorkerError: The question is not to go on.
        """
        asked = self._asked
        if asked is None:
            return
        self._turns.end_part()
        with self.arrivals:
            refusal = self._queue.refusal or asked.refusal
        if refusal is not None:
            raise refusal
        self._answer_requests()
        with self.arrivals:
            image = self._next_image() if self._turns.is_images else None
        if image is not None:
            self._look(image)
        self._go_on_with(asked)
