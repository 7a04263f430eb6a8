"""What ``~/track`` and ``~/track_object`` share: checking their fields, starting a target, waiting for its events."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from functools import partial
from typing import Protocol

from builtin_interfaces.msg import Time

from elysium_core.errors import ConfigError
from elysium_ros.convert.messages import box_from_message, is_no_box, stamp_to_ns
from elysium_ros.msg import Box2D
from elysium_ros.perception.inference import Inference
from elysium_ros.perception.inference_state import NodeLife
from elysium_ros.perception.instance_groups import InstanceGroup
from elysium_ros.perception.perception import Perception
from elysium_ros.perception.target_events import TargetEvent
from elysium_ros.perception.targets import Target
from elysium_ros.perception.types import StartRequest

MAX_SECONDS = 24 * 3600.0
"""Longest time that a request may name [s]."""

# A caller that reads too slowly misses frames, never the end.
_CAPACITY = 64
_POLL_S = 0.1


class StartFields(Protocol):
    """The fields that the service and the action share."""

    expression: str
    box: Box2D
    box_stamp: Time
    camera: str


class EventQueue:
    """Carries the events of one target from the inference thread to a caller.

    :meth:`put` never blocks, :meth:`get` waits.

    Args:
        life: Waiting ends when the process does.
    """

    def __init__(self, life: NodeLife) -> None:
        self._life = life
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
            The event; None after the deadline, or when the process ends.
        """
        with self._condition:
            while not self._events:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self._life.is_shutting_down:
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


def seconds(value: float, name: str) -> float:
    """Return a time from a request [s].

    Args:
        value: The field.
        name: Its name, for the message.

    Raises:
        ConfigError: It is negative, not finite, or longer than a day.
    """
    if not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ConfigError(f"{name} = {value} s is not in 0..{MAX_SECONDS:g}", code="TIME_INVALID")
    return float(value)


def start_target(inference: Inference, fields: StartFields, add: bool, queue: EventQueue) -> Target | InstanceGroup:
    """Start a target, or a group of them, and have ``queue`` take the events of the first from its first frame on.

    Args:
        inference: Where it is followed.
        fields: The request.
        add: Follow it beside the targets of that camera.
        queue: Takes every frame and the end.

    Raises:
        ElysiumError: It cannot be followed.
    """
    request = StartRequest(
        camera=fields.camera,
        expression=fields.expression,
        place=None if is_no_box(fields.box) else partial(box_from_message, fields.box),
        stamp_ns=stamp_to_ns(fields.box_stamp),
        add=add,
    )
    return inference.call(lambda perception: perception.start(request, queue.put), abandon=_stop)


def _stop(perception: Perception, target: Target | InstanceGroup) -> None:
    if target.id in perception.active_ids:
        perception.stop(target.id)
