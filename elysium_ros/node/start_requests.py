"""How ``~/track`` and ``~/track_object`` start a target: the same fields, the same checks."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Protocol

from builtin_interfaces.msg import Time

from elysium_core.errors import ConfigError
from elysium_ros.convert.messages import box_from_message, is_no_box, stamp_to_ns
from elysium_ros.msg import Box2D
from elysium_ros.node.events import EventQueue
from elysium_ros.perception.perception import Perception, StartRequest
from elysium_ros.perception.targets import Target
from elysium_ros.perception.threads import Runtime

MAX_SECONDS = 24 * 3600.0
"""Longest time that a request may name [s]."""


class StartFields(Protocol):
    """The fields that the service and the action share."""

    expression: str
    box: Box2D
    box_stamp: Time
    camera: str


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


def start_target(runtime: Runtime, fields: StartFields, add: bool, queue: EventQueue) -> Target:
    """Start a target and have ``queue`` hear of it from its first frame on.

    Args:
        runtime: Where it is followed.
        fields: The request.
        add: Follow it beside the targets of that camera.
        queue: Hears of every frame and of the end.

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
    return runtime.call(lambda perception: perception.start(request, queue.put), abandon=_stop)


def deadline(duration_s: float) -> float:
    """Return the time on the steady clock after ``duration_s`` [s]."""
    return time.monotonic() + duration_s


def _stop(perception: Perception, target: Target) -> None:
    if target.id in perception.active_ids:
        perception.stop(target.id)
