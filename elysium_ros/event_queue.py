"""Carries what happens to a target from the inference thread to a caller who waits for it. Knows no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from elysium_ros.targets import TargetEvent

# A caller that reads too slowly misses frames, never the end.
_CAPACITY = 64
_POLL_S = 0.1


class EventQueue:
    """A listener of one target: :meth:`put` never blocks, :meth:`get` waits.

    Args:
        give_up: Polled while waiting; true ends the wait (the process is shutting down).
    """

    def __init__(self, give_up: Callable[[], bool]) -> None:
        self._give_up = give_up
        self._events: deque[TargetEvent] = deque(maxlen=_CAPACITY)
        self._condition = threading.Condition()
        self._closed = False

    def put(self, event: TargetEvent) -> bool:
        """Take an event; return whether more are wanted."""
        with self._condition:
            if self._closed:
                return False
            self._events.append(event)
            self._condition.notify()
            return True

    def get(self, deadline_s: float) -> TargetEvent | None:
        """Wait for the next event.

        Args:
            deadline_s: Until when, on the steady clock [s].

        Returns:
            The event; None after the deadline, or when giving up.
        """
        with self._condition:
            while not self._events:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self._give_up():
                    return None
                self._condition.wait(min(left_s, _POLL_S))
            return self._events.popleft()

    def poll(self) -> TargetEvent | None:
        """Wait a moment for the next event; None if there is none."""
        return self.get(time.monotonic() + _POLL_S)

    def close(self) -> None:
        """Want no more events."""
        with self._condition:
            self._closed = True
