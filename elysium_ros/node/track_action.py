"""The action ``~/track_object``: follows one target and reports every frame until an end with a reason."""

from __future__ import annotations

import threading
import time
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from elysium_core.errors import ConfigError, TargetError
from elysium_core.types import TrackState
from elysium_ros.action import TrackObject
from elysium_ros.convert.messages import object_to_message
from elysium_ros.node.executors import SERVICE_QOS
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.status_reporter import StatusReporter
from elysium_ros.node.target_requests import EventQueue, seconds, start_target
from elysium_ros.perception.inference import Inference
from elysium_ros.perception.instance_groups import InstanceGroup, names_of_all
from elysium_ros.perception.target_events import EndReason, TargetEvent
from elysium_ros.perception.targets import Target

MAX_GOALS = 16
"""Goals at the same time, as each holds a thread; there can be no more targets either."""

_REASONS: dict[EndReason, int] = {
    EndReason.STOPPED: TrackObject.Result.REASON_REPLACED,
    EndReason.REPLACED: TrackObject.Result.REASON_REPLACED,
    EndReason.LOST: TrackObject.Result.REASON_LOST,
    EndReason.NOT_FOUND: TrackObject.Result.REASON_NOT_FOUND,
    EndReason.TIME_JUMP: TrackObject.Result.REASON_TIME_JUMP,
    EndReason.RESET: TrackObject.Result.REASON_REPLACED,
    EndReason.INACTIVE: TrackObject.Result.REASON_ERROR,
    EndReason.MODEL_FAILED: TrackObject.Result.REASON_ERROR,
}


class TrackAction:
    """Creates the action server on a node.

    A goal that cannot be started is accepted and aborted at once, because only a result can carry the reason.

    Args:
        node: The node.
        inference: Where targets are followed.
        status: Where a change of the targets is published.
    """

    def __init__(self, node: ManagedNode, inference: Inference, status: StatusReporter) -> None:
        self._node = node
        self._inference = inference
        self._status = status
        self._goals = threading.BoundedSemaphore(MAX_GOALS)
        self._server = ActionServer(
            node,
            TrackObject,
            "~/track_object",
            self._execute,
            callback_group=ReentrantCallbackGroup(),
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            goal_service_qos_profile=SERVICE_QOS,
            result_service_qos_profile=SERVICE_QOS,
            cancel_service_qos_profile=SERVICE_QOS,
        )

    def close(self) -> None:
        """Take the action server down."""
        self._server.destroy()

    def _execute(self, goal: Any) -> TrackObject.Result:
        result = TrackObject.Result(reason=TrackObject.Result.REASON_ERROR)
        queue = EventQueue(self._node)
        try:
            with _Place(self._goals):
                self._follow(goal, queue, result)
        except Exception as error:  # noqa: BLE001 - a goal must end with a result
            result.reason = TrackObject.Result.REASON_ERROR
            result.message = self._node.guard.explain(error)
        finally:
            queue.close()
        self._node.guard.callback(_finish)(goal, result)
        return result

    def _follow(self, goal: Any, queue: EventQueue, result: TrackObject.Result) -> None:
        duration_s = seconds(goal.request.max_duration, "max_duration")
        if names_of_all(goal.request.expression):
            raise ConfigError("an action follows one object; names in braces ask for all: call ~/track", code="TARGET")
        target = start_target(self._inference, goal.request, True, queue)
        result.id = int(target.id)
        self._status.publish_status()
        try:
            result.reason, result.message = self._report_frames(goal, queue, result, duration_s or float("inf"))
        finally:
            self._stop(target)
            self._status.publish_status()

    def _report_frames(
        self, goal: Any, queue: EventQueue, result: TrackObject.Result, duration_s: float
    ) -> tuple[int, str]:
        """Send feedback until something ends the goal; return the reason, as code and as sentence."""
        end_s = time.monotonic() + duration_s
        while not self._node.is_shutting_down:
            if goal.is_cancel_requested:
                return TrackObject.Result.REASON_CANCELED, "the client cancelled"
            if time.monotonic() >= end_s:
                return TrackObject.Result.REASON_TIMEOUT, f"max_duration of {duration_s:g} s is over"
            event = queue.poll()
            if event is None:
                continue
            if event.end is not None:
                return _REASONS[event.end], f"target {result.id} is no longer followed: {event.end.value}"
            if self._send(goal, event, result) and goal.request.stop_on_lost:
                return TrackObject.Result.REASON_LOST, "the object is lost"
        return TrackObject.Result.REASON_ERROR, "the node is shutting down"

    def _send(self, goal: Any, event: TargetEvent, result: TrackObject.Result) -> bool:
        """Send one frame as feedback; return whether the object was found before and is lost now."""
        if event.view is None or event.image is None:
            return False
        result.last = object_to_message(event.view, event.width, event.height)
        result.frames += 1
        goal.publish_feedback(TrackObject.Feedback(header=event.image.payload.header, object=result.last))
        update = event.view.update
        return update.state is TrackState.LOST and update.last_box is not None

    def _stop(self, target: Target | InstanceGroup) -> None:
        if target.id in self._inference.state().active_ids:
            self._node.guard.callback(self._inference.call)(lambda perception: perception.stop(target.id))


class _Place:
    """One of a limited number of places, held for a block."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise TargetError(f"there are already {MAX_GOALS} goals; cancel one first", code="BUSY")

    def __exit__(self, *_: object) -> None:
        self._places.release()


def _finish(goal: Any, result: TrackObject.Result) -> None:
    """Bring the goal to the state that fits the reason."""
    if result.reason == TrackObject.Result.REASON_CANCELED:
        goal.canceled()
    elif result.reason == TrackObject.Result.REASON_TIMEOUT:
        goal.succeed()
    else:
        goal.abort()
