"""Catches the exceptions of callbacks, and limits how often the same event is logged. Imports no ROS.

An exception in an rclpy callback ends the process or silently loses the reply, depending on the executor. So callbacks
go through a :class:`Guard`, which logs, counts, and always produces a reply. Only those of the cameras do not need it:
the loop of their thread catches exceptions (:func:`elysium_ros.node.executors.spin`).
"""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from elysium_core.errors import ElysiumError, printable

_MAX_LINE = 400

Request = TypeVar("Request")
Response = TypeVar("Response")


class Logger(Protocol):
    """The part of a ROS logger that is used here."""

    def warning(self, message: str) -> Any:
        """Log a warning."""
        ...

    def error(self, message: str) -> Any:
        """Log an error."""
        ...


class EventLog:
    """Counts events by code; logs each code at once and then at most every ``period_s``, with a count.

    Safe to use from several threads.

    Args:
        logger: Where lines go.
        period_s: Shortest time between two lines with the same code [s].
        clock: Steady clock [s].
    """

    def __init__(self, logger: Logger, period_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._logged_at: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def report(self, code: str, message: str, *, error: bool = False, detail: str = "") -> None:
        """Count one event, and log it unless the same code was logged a moment ago.

        Args:
            code: Stable identifier such as ``"IMG_ENCODING"``.
            message: One sentence; control characters are escaped, long text is cut.
            error: Log as an error instead of a warning.
            detail: Further lines to log, such as a traceback.
        """
        with self._lock:
            self._counts[code] += 1
            now = self._clock()
            if now - self._logged_at.get(code, -float("inf")) < self._period_s:
                self._unlogged[code] += 1
                return
            self._logged_at[code] = now
            silent = self._unlogged.pop(code, 0)
        line = printable(f"{code}: {message}", _MAX_LINE) + (f" ({silent} more since the last line)" if silent else "")
        line = "\n".join([line, *(printable(more, _MAX_LINE) for more in detail.splitlines())])
        # Two call sites, because an rclpy logger refuses two severities from one line of code.
        if error:
            self._logger.error(line)
        else:
            self._logger.warning(line)

    def counts(self) -> dict[str, int]:
        """Return all counters by code."""
        with self._lock:
            return dict(self._counts)


class Guard:
    """Wraps callbacks so that nothing they raise reaches the executor.

    Args:
        events: Where failures are counted and logged.
        is_shutting_down: When true, failures are expected (the middleware is gone) and are not logged.
    """

    def __init__(self, events: EventLog, is_shutting_down: Callable[[], bool] = lambda: False) -> None:
        self._events = events
        self._is_shutting_down = is_shutting_down

    def callback(self, function: Callable[..., None]) -> Callable[..., None]:
        """Wrap a callback that answers nobody: a subscription, a timer, an event."""

        @wraps(function)
        def guarded(*args: Any) -> None:
            try:
                function(*args)
            except Exception as error:  # noqa: BLE001 - the last line of defence, see the module's text
                self.report(error)

        return guarded

    def service(
        self,
        function: Callable[[Request, Response], Response],
        refuse: Callable[[Response, str], None] | None = None,
    ) -> Callable[[Request, Response], Response]:
        """Wrap a service callback so that it always replies.

        Args:
            function: The callback.
            refuse: Writes the reason into an empty reply; by default into ``success`` and ``message``.
        """
        write_reason = refuse or _refuse

        @wraps(function)
        def guarded(request: Request, response: Response) -> Response:
            try:
                return function(request, response)
            except Exception as error:  # noqa: BLE001 - the last line of defence, see the module's text
                empty = type(response)()
                write_reason(empty, self.explain(error))
                return empty

        return guarded

    def report(self, error: Exception) -> str:
        """Count and log a failure that nobody waits for; return the sentence as :meth:`explain` does."""
        if isinstance(error, ElysiumError):
            self._events.report(error.code, str(error))
        return self.explain(error)

    def explain(self, error: Exception) -> str:
        """Return the sentence for a caller, starting with the code; count and log what nobody expected."""
        if isinstance(error, ElysiumError):
            return f"{error.code}: {printable(str(error), _MAX_LINE)}"
        reference = uuid.uuid4().hex[:6]
        summary = f"{type(error).__name__}: {error} (reference {reference})"
        if not self._is_shutting_down():
            self._events.report("INTERNAL", summary, error=True, detail="".join(traceback.format_exception(error)))
        return f"INTERNAL: {printable(summary, _MAX_LINE)}; the log of the node has the details"


def _refuse(response: Any, message: str) -> None:
    response.success = False
    response.message = message
