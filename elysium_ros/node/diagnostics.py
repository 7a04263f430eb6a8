"""What ``/diagnostics`` and ``~/self_test`` say: pure functions from the node's condition to statuses.

Levels and names follow the conventions of diagnostic_updater, which is not needed.

``~/status``, ``/diagnostics`` and ``~/self_test``: tells the world how the node is doing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from diagnostic_msgs.srv import SelfTest
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_core.types import ModelInfo
from elysium_ros.msg import StageLatency, TrackerStatus
from elysium_ros.node.camera_input import InputState
from elysium_ros.node.guard import Guard
from elysium_ros.node.services import SERVICE_QOS
from elysium_ros.perception.frame_statistics import Snapshot
from elysium_ros.perception.threads import Runtime

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


# The model may think this long about one frame or request before it counts as stuck.
_STUCK_S = 30.0


@dataclass(frozen=True, slots=True)
class Condition:
    """The node at one moment.

    Attributes:
        lifecycle: Lifecycle state, such as ``active``.
        failure: Why the last transition failed, empty if it did not.
        parameter_problems: Values given at the start that cannot be used.
        inputs: The cameras' images; empty while not active.
        frame_timeout_s: Silence of a camera that is an error [s].
        clock_runs: False if time is simulated and no ``/clock`` has come.
        model: The loaded model, None if there is none.
        paused: Inference is paused.
        busy_s: How long the model has been at what it is doing [s].
        model_failures: Frames that the model failed on.
        standing_failure: Why it failed on the newest one, empty if it did not.
        received: Images received since activation.
        dropped: Images skipped since activation.
        parse_failures: Answers without a usable box since activation.
        gpu_memory: GPU memory of this process [bytes].
        active_ids: Targets.
        statistics: Rates and latencies.
        event_counts: How often each event code was reported.
    """

    lifecycle: str
    failure: str = ""
    parameter_problems: Sequence[str] = ()
    inputs: Sequence[InputState] = ()
    frame_timeout_s: float = 2.0
    clock_runs: bool = True
    model: ModelInfo | None = None
    paused: bool = False
    busy_s: float = 0.0
    model_failures: int = 0
    standing_failure: str = ""
    received: int = 0
    dropped: int = 0
    parse_failures: int = 0
    gpu_memory: int = 0
    active_ids: Sequence[int] = ()
    statistics: Snapshot = field(default_factory=Snapshot)
    event_counts: dict[str, int] = field(default_factory=dict)


def diagnose(node: str, condition: Condition) -> list[DiagnosticStatus]:
    """Return one status for each camera, one for the model and one for inference.

    Args:
        node: Full name of the node, for the names of the statuses.
        condition: The node now.
    """
    statuses = [_input(state, condition) for state in condition.inputs] or [_no_input(condition)]
    statuses += [_model(condition), _inference(condition)]
    for status in statuses:
        status.name = f"{node.lstrip('/')}: {status.name}"
        status.hardware_id = condition.model.device if condition.model else ""
    return statuses


def _no_input(condition: Condition) -> DiagnosticStatus:
    return _status("input", DiagnosticStatus.OK, "NOT_ACTIVE", f"not subscribed while {condition.lifecycle}", {})


def _input(state: InputState, condition: Condition) -> DiagnosticStatus:
    level, code, message = _input_level(state, condition)
    values = {
        "topic": state.topic,
        "publishers": state.publishers,
        "silence_s": f"{state.silence_s:.2f}",
        **{code: count for code, count in condition.event_counts.items() if code.startswith(("IMG_", "STAMP_"))},
    }
    return _status(f"input {state.camera}".strip(), level, code, message, values)


def _input_level(state: InputState, condition: Condition) -> tuple[bytes, str, str]:
    silent = state.silence_s > condition.frame_timeout_s
    if not condition.clock_runs:
        return DiagnosticStatus.WARN, "NO_CLOCK", "use_sim_time is set, but no /clock has come"
    if silent and state.qos_problem:
        return DiagnosticStatus.ERROR, "QOS_INCOMPATIBLE", f"a publisher does not match in {state.qos_problem}"
    if not state.ever_received:
        level = DiagnosticStatus.ERROR if silent else DiagnosticStatus.WARN
        return level, "CAM_NOT_RECEIVED", f"no image has come; the topic has {state.publishers} publishers"
    if silent:
        return DiagnosticStatus.ERROR, "CAM_TIMEOUT", f"no image for {state.silence_s:.1f} s"
    return DiagnosticStatus.OK, "OK", "images arrive"


def _model(condition: Condition) -> DiagnosticStatus:
    info = condition.model
    values = {"lifecycle": condition.lifecycle, "gpu_memory_bytes": condition.gpu_memory}
    if info is not None:
        values |= {"name": info.name, "backend": info.backend, "device": info.device, "precision": info.precision}
    if condition.failure:
        code, _, reason = condition.failure.partition(": ")
        return _status("model", DiagnosticStatus.ERROR, code, reason, values)
    if condition.parameter_problems:
        return _status("model", DiagnosticStatus.ERROR, "CONFIG", "; ".join(condition.parameter_problems), values)
    if info is None:
        return _status("model", DiagnosticStatus.OK, "NOT_ACTIVE", f"not loaded while {condition.lifecycle}", values)
    return _status("model", DiagnosticStatus.OK, "OK", f"{info.name} on {info.device}", values)


def _inference(condition: Condition) -> DiagnosticStatus:
    statistics = condition.statistics
    values = {
        "input_rate_hz": f"{statistics.input_rate_hz:.1f}",
        "output_rate_hz": f"{statistics.output_rate_hz:.1f}",
        "latency_p50_s": f"{statistics.latency_p50_s:.4f}",
        "latency_p95_s": f"{statistics.latency_p95_s:.4f}",
        "frames_received": condition.received,
        "frames_dropped": condition.dropped,
        "model_failures": condition.model_failures,
        "parse_failures": condition.parse_failures,
        "targets": ", ".join(map(str, condition.active_ids)),
    }
    return _status("inference", *_inference_level(condition), values)


def _inference_level(condition: Condition) -> tuple[bytes, str, str]:
    if condition.lifecycle != "active":
        return DiagnosticStatus.OK, "NOT_ACTIVE", f"the node is {condition.lifecycle}"
    if condition.busy_s > _STUCK_S:
        message = f"the model has been busy with one thing for {condition.busy_s:.0f} s"
        return DiagnosticStatus.ERROR, "MODEL_TIMEOUT", message
    if condition.standing_failure:
        code, _, reason = condition.standing_failure.partition(": ")
        return DiagnosticStatus.ERROR, code, f"the model failed on the newest image: {reason}"
    if condition.paused:
        return DiagnosticStatus.OK, "PAUSED", "paused by ~/pause"
    return DiagnosticStatus.OK, "OK", f"{condition.statistics.output_rate_hz:.1f} frames a second"


def _status(name: str, level: bytes, code: str, message: str, values: dict[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in {"code": code, **values}.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
