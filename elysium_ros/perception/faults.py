"""When the inference thread is to be given up, and how often it may be started again. Imports no ROS."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from elysium_ros.perception.requests import Work, WorkerError, crash_reason
from elysium_ros.perception.worker import Worker

# Several restarts in a row mean that a new process is needed; a model that has worked this long has recovered.
_MAX_RESTARTS = 3
_RECOVERED_S = 60.0

# Longer than the watchdog sleeps, shorter than a process is stopped by hand.
_LONGEST_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the inference thread was given up.

    Attributes:
        reason: What callers are told.
        detail: What the thread was doing, or what ended it, as a traceback.
    """

    reason: WorkerError
    detail: str


class RestartBudget:
    """Says whether a model that has failed may be loaded again in the same process.

    The memory of one that hangs cannot be had back, and a GPU on which something hangs is of no use.

    Attributes:
        failures: How often the model has failed in the life of the process.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._clock = clock
        self._restarts = 0
        self._restarted_at_s = float("-inf")

    def allows(self, *, on_gpu: bool) -> bool:
        """Count a failure; return whether the model may be loaded again.

        Args:
            on_gpu: The model runs on a GPU.
        """
        self.failures += 1
        now_s = self._clock()
        if now_s - self._restarted_at_s > _RECOVERED_S:
            self._restarts = 0
        self._restarts, self._restarted_at_s = self._restarts + 1, now_s
        return not on_gpu and self._restarts <= _MAX_RESTARTS


class FaultFinder:
    """Says when a worker is to be given up: its model has ended the thread, or works on one thing for too long.

    Call it often. Time in which nobody looked, because the whole process was stopped, is not held against the model.

    Args:
        clock: Steady clock [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at_s = clock()
        self._work: Work | None = None
        self._worked_s = 0.0

    def look(self, worker: Worker) -> Fault | None:
        """Return why a worker is to be given up; None if it works."""
        now_s = self._clock()
        passed_s, self._looked_at_s = now_s - self._looked_at_s, now_s
        crash, work = worker.crash, worker.work
        if crash is not None:
            return Fault(crash_reason(crash), "".join(traceback.format_exception(crash)))
        if work is not self._work:
            self._work, self._worked_s = work, 0.0
        if work is None:
            return None
        self._worked_s += min(passed_s, _LONGEST_LOOK_S, now_s - work.since_s)
        if self._worked_s <= work.limit_s:
            return None
        what = "one image (model.timeout)" if work.future is None else "one request"
        reason = f"the model was given up after more than {work.limit_s:g} s of work on {what}"
        return Fault(WorkerError(reason, code="MODEL_TIMEOUT"), worker.where())
