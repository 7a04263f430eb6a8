"""``~/status``, ``/diagnostics`` and ``~/self_test``: tells the world how the node is doing."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from diagnostic_msgs.srv import SelfTest
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_ros.diagnostics import Condition, diagnose
from elysium_ros.guard import Guard
from elysium_ros.msg import StageLatency, TrackerStatus
from elysium_ros.runtime import Runtime
from elysium_ros.services import SERVICE_QOS

LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable; whoever comes later gets the last message."""


class StatusReporter:
    """Publishes status and diagnostics, and tests the node on request.

    Args:
        node: The node.
        condition: Returns the node's condition now.
        runtime: Where the self test runs the model.
        guard: Wraps callbacks.
    """

    def __init__(self, node: Node, condition: Callable[[], Condition], runtime: Runtime, guard: Guard) -> None:
        self._node = node
        self._condition = condition
        self._runtime = runtime
        self._status = node.create_publisher(TrackerStatus, "~/status", LATCHED_QOS)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        node.create_service(
            SelfTest,
            "~/self_test",
            guard.service(self._self_test, _fail_self_test),
            qos_profile=SERVICE_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def publish(self) -> None:
        """Publish both."""
        condition = self._condition()
        self._publish_status(condition)
        array = DiagnosticArray(status=diagnose(self._node.get_fully_qualified_name(), condition))
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def publish_status(self) -> None:
        """Publish the status only, because something in it has changed."""
        self._publish_status(self._condition())

    def _publish_status(self, condition: Condition) -> None:
        message = status_message(condition)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._status.publish(message)

    def _self_test(self, request: SelfTest.Request, response: SelfTest.Response) -> SelfTest.Response:
        """Report the node's condition, and run the model once if it is active."""
        condition = self._condition()
        response.id = self._node.get_fully_qualified_name()
        response.status = diagnose(response.id, condition)
        if self._runtime.is_open:
            self._runtime.call(lambda perception: perception.model.warm_up())
        active = condition.lifecycle == "active"
        passed = active and all(status.level == DiagnosticStatus.OK for status in response.status)
        response.passed = b"\x01" if passed else b"\x00"
        return response


def status_message(condition: Condition) -> TrackerStatus:
    """Return the node's condition as a message without a stamp."""
    info, statistics = condition.model, condition.statistics
    message = TrackerStatus(
        paused=bool(condition.paused),
        active_ids=[int(target_id) for target_id in condition.active_ids],
        input_rate=float(statistics.input_rate_hz),
        output_rate=float(statistics.output_rate_hz),
        frames_received=int(condition.received),
        frames_dropped=int(condition.dropped),
        parse_failures=int(condition.parse_failures),
        latency_p50=float(statistics.latency_p50_s),
        latency_p95=float(statistics.latency_p95_s),
        encode_p50=float(statistics.stage("encode").p50_s),
        generate_p50=float(statistics.stage("generate").p50_s),
        stages=[
            StageLatency(name=stage.name, p50=float(stage.p50_s), p95=float(stage.p95_s)) for stage in statistics.stages
        ],
        gpu_memory_used=int(condition.gpu_memory),
    )
    if info is not None:
        message.model, message.backend, message.device = str(info.name), str(info.backend), str(info.device)
        message.precision = str(info.precision)
        message.coordinate_levels, message.clip_length = int(info.coordinate_levels), int(info.clip_length)
    return message


def _fail_self_test(response: SelfTest.Response, reason: str) -> None:
    code, _, message = reason.partition(": ")
    failed = DiagnosticStatus(name=f"self test: {code}", level=DiagnosticStatus.ERROR, message=message)
    response.status.append(failed)
    response.passed = b"\x00"
