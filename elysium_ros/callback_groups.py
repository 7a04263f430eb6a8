"""A callback group that leaves threads of the executor for others."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.callback_groups import CallbackGroup


class BoundedCallbackGroup(CallbackGroup):
    """Lets a fixed number of its callbacks run at the same time; the others wait in the middleware's queues.

    A service that waits for the model blocks a thread of the executor. Without a bound, a burst of such calls would
    hold all threads, and no image would be taken.

    Args:
        limit: Callbacks at the same time, >= 1.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._running = 0
        self._lock = threading.Lock()

    def can_execute(self, entity: Any) -> bool:
        """Whether another callback may run now."""
        with self._lock:
            return self._running < self._limit

    def beginning_execution(self, entity: Any) -> bool:
        """Take a place; false if there is none."""
        with self._lock:
            if self._running >= self._limit:
                return False
            self._running += 1
            return True

    def ending_execution(self, entity: Any) -> None:
        """Give the place back."""
        with self._lock:
            self._running -= 1
