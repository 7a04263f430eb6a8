"""``~/status``, ``/diagnostics`` and ``~/self_test``: collects the condition of the node and publishes it."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from diagnostic_msgs.srv import SelfTest
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_ros.msg import TrackerStatus
from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.diagnostics import Condition, diagnose, status_message
from elysium_ros.node.executors import SERVICE_QOS
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.perception.frame_statistics import Statistics
from elysium_ros.perception.inference import Inference

LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Reliable; the last message is kept for subscribers that come later."""


class StatusReporter:
    """Publishes status and diagnostics, and tests the node on request.

    Args:
        node: The node.
        parameters: Its parameters.
        cameras: Its cameras.
        inference: Its model.
        statistics: Its rates and latencies.
    """

    def __init__(
        self,
        node: ManagedNode,
        parameters: ParameterServer,
        cameras: CameraInputs,
        inference: Inference,
        statistics: Statistics,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._cameras = cameras
        self._inference = inference
        self._statistics = statistics
        self._status = node.create_publisher(TrackerStatus, "~/status", LATCHED_QOS)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        node.create_service(
            SelfTest,
            "~/self_test",
            node.guard.service(self._self_test, _fail_self_test),
            qos_profile=SERVICE_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )

    def condition(self) -> Condition:
        """Return the condition of the node now; may be called from any thread."""
        node, state = self._node, self._inference.state()
        simulated = node.get_parameter("use_sim_time").value
        return Condition(
            lifecycle=node.state,
            failure=node.failure,
            parameter_problems=tuple(self._parameters.problems.values()),
            inputs=self._cameras.states(),
            frame_timeout_s=self._parameters.settings.frame_timeout_s,
            clock_runs=not simulated or node.get_clock().now().nanoseconds > 0,
            inference=state,
            # Not while a model is being loaded: torch may be half imported then.
            gpu_memory=_gpu_memory_used() if state.model else 0,
            statistics=self._statistics.snapshot(),
            event_counts=node.events.counts(),
            namesakes=node.namesakes,
        )

    def publish(self) -> None:
        """Publish both."""
        condition = self.condition()
        self._publish_status(condition)
        array = DiagnosticArray(status=diagnose(self._node.get_fully_qualified_name(), condition))
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def publish_status(self) -> None:
        """Publish the status only, because something in it has changed."""
        self._publish_status(self.condition())

    def _publish_status(self, condition: Condition) -> None:
        message = status_message(condition)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._status.publish(message)

    def _self_test(self, request: SelfTest.Request, response: SelfTest.Response) -> SelfTest.Response:
        """Report the node's condition, and run the model once if it is active."""
        condition = self.condition()
        response.id = self._node.get_fully_qualified_name()
        response.status = diagnose(response.id, condition)
        if self._inference.is_open:
            self._inference.call(lambda perception: perception.model.warm_up())
        active = condition.lifecycle == "active"
        passed = active and all(status.level == DiagnosticStatus.OK for status in response.status)
        response.passed = b"\x01" if passed else b"\x00"
        return response


def _fail_self_test(response: SelfTest.Response, reason: str) -> None:
    code, _, message = reason.partition(": ")
    failed = DiagnosticStatus(name=f"self test: {code}", level=DiagnosticStatus.ERROR, message=message)
    response.status.append(failed)
    response.passed = b"\x00"


def _gpu_memory_used() -> int:
    """Return the GPU memory that this process has allocated through torch [bytes], 0 without torch or GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.memory_allocated(index)) for index in range(torch.cuda.device_count()))
