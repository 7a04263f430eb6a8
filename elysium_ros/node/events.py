"""Carries what happens to a target from the inference thread to a caller who waits for it. Knows no ROS.

What the log says of a normal run: a line when images begin to come, and when a target is found, lost or ended.

Knows no ROS.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.perception.perception import FrameResult
from elysium_ros.perception.targets import TargetEvent

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


class Narrator:
    """Turns the results of all cameras into lines for a person; most frames give none."""

    def __init__(self) -> None:
        self._cameras: set[str] = set()
        # Whether each target was found when last heard of; one that never was is not here.
        self._found: dict[str, bool] = {}

    def lines(self, result: FrameResult) -> Iterator[str]:
        """Yield what is new since the result before."""
        camera = result.image.camera
        suffix = f" in camera {camera!r}" if camera else ""
        if camera not in self._cameras:
            self._cameras.add(camera)
            yield f"images of {result.frame.width} x {result.frame.height} px arrive{suffix}"
        for view in result.views:
            news = self._news(view.update)
            if news:
                yield f"{_name(view.update)}{suffix} {news}"

    def _news(self, update: TrackUpdate) -> str:
        target_id = update.target_id
        was_found = self._found.get(target_id)
        if update.state is TrackState.REMOVED:
            self._found.pop(target_id, None)
            return f"ended, {update.reason}" if update.reason else "ended"
        if update.state is TrackState.TRACKED and not was_found:
            self._found[target_id] = True
            return f"found{'' if was_found is None else ' again'}, score {update.score:.2f}"
        if update.state is TrackState.LOST and was_found:
            self._found[target_id] = False
            return f"lost, {update.reason}" if update.reason else "lost"
        return ""


def _name(update: TrackUpdate) -> str:
    return f"target {update.target_id}" + (f" ({update.expression!r})" if update.expression else "")
