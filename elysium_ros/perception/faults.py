"""When the inference thread is to be given up, and how often it may be started again. Imports no ROS."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from elysium_ros.perception.requests import WorkerError, crash_reason
from elysium_ros.perception.worker import Worker

# Several restarts in a row mean that a new process is needed; a model that has worked this long has recovered.
_MAX_RESTARTS = 3
_RECOVERED_S = 60.0


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


def find_fault(worker: Worker) -> Fault | None:
    """Return why a worker is to be given up: its model has ended the thread, or hangs; None if it works."""
    crash, work = worker.crash, worker.work
    if crash is not None:
        return Fault(crash_reason(crash), "".join(traceback.format_exception(crash)))
    if work is None or time.monotonic() - work.since_s <= work.limit_s:
        return None
    what = "one image" if work.future is None else "one request"
    reason = f"the model has been busy with {what} for longer than {work.limit_s:g} s (model.timeout) and was given up"
    return Fault(WorkerError(reason, code="MODEL_TIMEOUT"), worker.where())
