"""Draws annotated images in a thread of its own, newest first, so that drawing never delays tracking. Knows no ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from elysium_ros.perception import FrameResult


class Annotator:
    """Hands the newest result of each camera to ``draw``; results that come while it draws replace each other.

    Args:
        draw: Draws and publishes one result.
        on_failure: Hears of an exception that ``draw`` raised.
    """

    def __init__(self, draw: Callable[[FrameResult], None], on_failure: Callable[[Exception], object]) -> None:
        self._draw = draw
        self._on_failure = on_failure
        self._condition = threading.Condition()
        self._waiting: dict[Hashable, FrameResult] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="elysium_annotator", daemon=True)
        self._thread.start()

    def offer(self, result: FrameResult) -> None:
        """Draw this result next, unless a newer one of the same camera comes first."""
        with self._condition:
            self._waiting[result.image.camera] = result
            self._condition.notify()

    def stop(self, timeout_s: float) -> None:
        """End the thread; wait for a picture that is being drawn.

        Args:
            timeout_s: Longest wait [s].
        """
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                result = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._draw(result)
            except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn must not end the drawing
                self._on_failure(error)
