"""The requests and questions that wait for the inference thread. Imports no ROS."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from elysium_ros.perception.requests import Request, WorkerError, settle

MAX_REQUESTS = 256
"""Requests that may wait; one more is refused with ``BUSY``."""

Result = TypeVar("Result")


class RequestQueue:
    """What waits for the inference thread. Its methods are called with the lock of the worker held.

    Attributes:
        requests: Requests, oldest first.
        questions: Questions, oldest first; they may be answered one after the other, beside the images.
        refusal: Why nothing is taken any more; None as long as it is.
    """

    def __init__(self) -> None:
        self.requests: deque[Request] = deque()
        self.questions: deque[Request] = deque()
        self.refusal: WorkerError | None = None

    def add_request(self, function: Callable[[], Result], limit_s: float | None) -> Future[Result]:
        """Let a request wait.

        Args:
            function: Gives the answer.
            limit_s: See :class:`elysium_ros.perception.requests.Request`.

        Raises:
            WorkerError: The queue is closed, or too many requests wait (``BUSY``).
        """
        return self._add(self.requests, function, limit_s)

    def add_question(self, function: Callable[[], Result], limit_s: float | None) -> Future[Result]:
        """Let a question wait; as :meth:`add_request`."""
        return self._add(self.questions, function, limit_s)

    def close(self, reason: WorkerError) -> None:
        """Refuse what waits, now and later."""
        self.refusal = reason
        _refuse(self.requests, reason)
        _refuse(self.questions, reason)

    def refuse_questions(self, reason: WorkerError) -> None:
        """Refuse the questions that wait now."""
        _refuse(self.questions, reason)

    def _add(self, queue: deque[Request], function: Callable[[], Result], limit_s: float | None) -> Future[Result]:
        if self.refusal is not None:
            raise self.refusal
        if len(self.requests) + len(self.questions) >= MAX_REQUESTS:
            raise WorkerError(f"{MAX_REQUESTS} requests are waiting already; try again later", code="BUSY")
        future: Future[Result] = Future()
        queue.append(Request(future, function, limit_s))
        return future


def _refuse(queue: deque[Request], reason: WorkerError) -> None:
    waiting = [request.future for request in queue]
    queue.clear()
    for future in waiting:
        if future.set_running_or_notify_cancel():
            settle(future, error=reason)
