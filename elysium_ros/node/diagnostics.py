"""The condition of the node, and what ``~/status`` and ``/diagnostics`` say of it: pure functions.

Levels and names follow the conventions of the package diagnostic_updater, which is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from elysium_ros.msg import StageLatency, TrackerStatus
from elysium_ros.node.camera_hints import InputState
from elysium_ros.perception.depth_source import DepthHealth
from elysium_ros.perception.frame_statistics import Snapshot
from elysium_ros.perception.inference_state import InferenceState

# A few lost images a second do no harm; more is worth a warning.
_LOSS_SHARE = 0.05


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
        inference: The model and the inference thread.
        gpu_memory: GPU memory of this process [bytes].
        statistics: Rates and latencies.
        event_counts: How often each event code was reported.
        namesakes: Other nodes with the same name.
    """

    lifecycle: str
    failure: str = ""
    parameter_problems: Sequence[str] = ()
    inputs: Sequence[InputState] = ()
    frame_timeout_s: float = 1.0
    clock_runs: bool = True
    inference: InferenceState = field(default_factory=InferenceState)
    gpu_memory: int = 0
    statistics: Snapshot = field(default_factory=Snapshot)
    event_counts: dict[str, int] = field(default_factory=dict)
    namesakes: int = 0


def status_message(condition: Condition) -> TrackerStatus:
    """Return the node's condition as a message without a stamp."""
    inference, statistics = condition.inference, condition.statistics
    message = TrackerStatus(
        paused=bool(inference.paused),
        active_ids=[int(target_id) for target_id in inference.active_ids],
        input_rate=float(statistics.input_rate_hz),
        output_rate=float(statistics.output_rate_hz),
        frames_received=int(inference.received),
        frames_dropped=int(inference.dropped),
        frames_lost=sum(int(state.health.lost) for state in condition.inputs),
        parse_failures=int(inference.parse_failures),
        latency_p50=float(statistics.latency_p50_s),
        latency_p95=float(statistics.latency_p95_s),
        encode_p50=float(statistics.stage("encode").p50_s),
        generate_p50=float(statistics.stage("generate").p50_s),
        stages=[
            StageLatency(name=stage.name, p50=float(stage.p50_s), p95=float(stage.p95_s)) for stage in statistics.stages
        ],
        gpu_memory_used=int(condition.gpu_memory),
    )
    info = inference.model
    if info is not None:
        message.model, message.backend, message.device = str(info.name), str(info.backend), str(info.device)
        message.precision = str(info.precision)
        message.coordinate_levels, message.clip_length = int(info.coordinate_levels), int(info.clip_length)
    return message


def diagnose(node: str, condition: Condition) -> list[DiagnosticStatus]:
    """Return one status for each camera, one for its depth if it has any, one for the model and one for inference.

    Args:
        node: Full name of the node, for the names of the statuses.
        condition: The node now.
    """
    statuses = [_input(state, condition) for state in condition.inputs] or [_no_input(condition)]
    statuses += [_depth(state.camera, state.depth) for state in condition.inputs if state.depth is not None]
    statuses += [_model(condition), _inference(condition)]
    for status in statuses:
        status.name = f"{node.lstrip('/')}: {status.name}"
        status.hardware_id = condition.inference.model.device if condition.inference.model else ""
    return statuses


def _no_input(condition: Condition) -> DiagnosticStatus:
    return _status("input", DiagnosticStatus.OK, "NOT_ACTIVE", f"not subscribed while {condition.lifecycle}", {})


def _input(state: InputState, condition: Condition) -> DiagnosticStatus:
    level, code, message = _input_level(state, condition)
    values = {
        "topic": state.topic,
        "publishers": state.publishers,
        "silence_s": f"{state.health.silence_s:.2f}",
        "received": state.health.received,
        "answered": state.health.answered,
        "lost": state.health.lost,
        **{code: count for code, count in condition.event_counts.items() if code.startswith(("IMG_", "STAMP_"))},
        **state.health.refusals,
    }
    return _status(f"input {state.camera}".strip(), level, code, message, values)


def _input_level(state: InputState, condition: Condition) -> tuple[bytes, str, str]:
    health = state.health
    silent = health.silence_s > condition.frame_timeout_s
    if not condition.clock_runs:
        return DiagnosticStatus.WARN, "NO_CLOCK", "use_sim_time is set, but no /clock has come"
    if silent and state.qos_problem:
        return DiagnosticStatus.ERROR, "QOS_INCOMPATIBLE", f"a publisher does not match in {state.qos_problem}"
    if state.other_type:
        return DiagnosticStatus.ERROR, "TOPIC_TYPE", f"what is published on the topic is {state.other_type}"
    if not health.received:
        level = DiagnosticStatus.ERROR if silent else DiagnosticStatus.WARN
        return level, "CAM_NOT_RECEIVED", f"no image has come; the topic has {state.publishers} publishers"
    if silent:
        return DiagnosticStatus.ERROR, "CAM_TIMEOUT", f"no image for {health.silence_s:.1f} s"
    if health.refused and (health.waiting_s > condition.frame_timeout_s or not health.answered):
        level = DiagnosticStatus.ERROR if health.waiting_s > condition.frame_timeout_s else DiagnosticStatus.WARN
        return level, health.refusal_code, health.refusal_text
    if health.loss_share > _LOSS_SHARE:
        share = f"{health.loss_share:.0%} of the images of the last seconds were lost on the way"
        remedy = "use config/fastdds.xml in the sender too, or reliable, or compressed images"
        return DiagnosticStatus.WARN, "TRANSPORT_LOSS", f"{share}; {remedy} (docs/launch.md)"
    return DiagnosticStatus.OK, "OK", "images arrive"


def _depth(camera: str, health: DepthHealth) -> DiagnosticStatus:
    values: dict[str, object] = {
        "topic": health.topic,
        "received": health.received,
        "silence_s": f"{health.silence_s:.2f}",
    }
    name = f"depth {camera}".strip()
    if health.problem:
        code, _, reason = health.problem.partition(": ")
        return _status(name, DiagnosticStatus.WARN, code, f"no positions: {reason}", values)
    if not health.received:
        return _status(name, DiagnosticStatus.WARN, "DEPTH_NOT_RECEIVED", "no depth image has come", values)
    return _status(name, DiagnosticStatus.OK, "OK", "depth images arrive", values)


def _model(condition: Condition) -> DiagnosticStatus:
    info = condition.inference.model
    values = {"lifecycle": condition.lifecycle, "gpu_memory_bytes": condition.gpu_memory}
    if info is not None:
        values |= {"name": info.name, "backend": info.backend, "device": info.device, "precision": info.precision}
    if condition.failure:
        code, _, reason = condition.failure.partition(": ")
        return _status("model", DiagnosticStatus.ERROR, code, reason, values)
    if condition.parameter_problems:
        return _status("model", DiagnosticStatus.ERROR, "CONFIG", "; ".join(condition.parameter_problems), values)
    if condition.inference.restarting:
        code, _, reason = condition.inference.restarting.partition(": ")
        return _status("model", DiagnosticStatus.ERROR, code, f"it is being loaded again: {reason}", values)
    if info is None:
        return _status("model", DiagnosticStatus.OK, "NOT_ACTIVE", f"not loaded while {condition.lifecycle}", values)
    if condition.namesakes:
        return _status("model", DiagnosticStatus.WARN, "NODE_NAME", "another node has the name of this one", values)
    return _status("model", DiagnosticStatus.OK, "OK", f"{info.name} on {info.device}", values)


def _inference(condition: Condition) -> DiagnosticStatus:
    inference, statistics = condition.inference, condition.statistics
    values = {
        "input_rate_hz": f"{statistics.input_rate_hz:.1f}",
        "output_rate_hz": f"{statistics.output_rate_hz:.1f}",
        "latency_p50_s": f"{statistics.latency_p50_s:.4f}",
        "latency_p95_s": f"{statistics.latency_p95_s:.4f}",
        "frames_received": inference.received,
        "frames_dropped": inference.dropped,
        "model_failures": inference.failures,
        "model_restarts": inference.restarts,
        "parse_failures": inference.parse_failures,
        "targets": ", ".join(map(str, inference.active_ids)),
    }
    return _status("inference", *_inference_level(condition), values)


def _inference_level(condition: Condition) -> tuple[bytes, str, str]:
    inference = condition.inference
    if condition.lifecycle != "active":
        return DiagnosticStatus.OK, "NOT_ACTIVE", f"the node is {condition.lifecycle}"
    if inference.restarting:
        code, _, reason = inference.restarting.partition(": ")
        return DiagnosticStatus.ERROR, code, f"the model is being loaded again: {reason}"
    if inference.standing_failure:
        code, _, reason = inference.standing_failure.partition(": ")
        return DiagnosticStatus.ERROR, code, f"the model failed on the newest image: {reason}"
    if inference.paused:
        return DiagnosticStatus.OK, "PAUSED", "paused by ~/pause"
    if (without := _without_result(condition)) is not None:
        return without
    return DiagnosticStatus.OK, "OK", f"{condition.statistics.output_rate_hz:.1f} frames a second"


def _without_result(condition: Condition) -> tuple[bytes, str, str] | None:
    """Return what is wrong if images of a camera wait too long for a result, or there never was one; None if not."""
    for state in condition.inputs:
        health, camera = state.health, f" of camera {state.camera!r}" if state.camera else ""
        overdue = health.waiting_s > condition.frame_timeout_s
        if not overdue and (health.answered or not health.received):
            continue
        level = DiagnosticStatus.ERROR if overdue else DiagnosticStatus.WARN
        since = f"no result{camera} for {health.waiting_s:.1f} s"
        if health.refused:
            return level, health.refusal_code, f"{since}: {health.refusal_text}"
        busy_s = condition.inference.busy_s
        if busy_s > condition.frame_timeout_s:
            return level, "MODEL_TIMEOUT", f"{since}: the model has been busy with one thing for {busy_s:.1f} s"
        return level, "NO_RESULT", f"{since}, though images arrive"
    return None


def _status(name: str, level: bytes, code: str, message: str, values: dict[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in {"code": code, **values}.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
