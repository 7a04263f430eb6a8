"""What diagnostics and status say of a condition, and the numbers they are made of."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from elysium_core.types import ModelInfo
from elysium_ros.node.camera_hints import InputState
from elysium_ros.node.diagnostics import Condition, diagnose, status_message
from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.perception.depth_source import DepthHealth
from elysium_ros.perception.frame_statistics import STAGES, FrameTimes, Snapshot, StageSnapshot, Statistics
from elysium_ros.perception.inference_state import InferenceState

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
MODEL = ModelInfo("nano", "torch", "cpu", "float32", 100, 8)


def input_state(camera="", qos_problem="", **health):
    return InputState(camera, "/image", 1, CameraHealth(**{"received": 9, "answered": 9, **health}), qos_problem)


def refused(waiting_s=0.0, answered=0, **codes):
    """The state of a camera whose images have been refused since its last result."""
    reason = f"{next(iter(codes))}: the newest"
    return input_state(waiting_s=waiting_s, answered=answered, refused=codes, last_refusal=reason, refusals=codes)


def said(part, **condition):
    """Return level and code of one status."""
    statuses = {status.name: status for status in diagnose("/ns/elysium", Condition(**condition))}
    status = statuses[f"ns/elysium: {part}"]
    return status.level, {pair.key: pair.value for pair in status.values}["code"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (input_state(), (OK, "OK")),
        (input_state(received=0, answered=0), (WARN, "CAM_NOT_RECEIVED")),
        (input_state(received=0, answered=0, silence_s=9.0), (ERROR, "CAM_NOT_RECEIVED")),
        (input_state(silence_s=9.0), (ERROR, "CAM_TIMEOUT")),
        (InputState("", "/image", 1, other_type="std_msgs/msg/String"), (ERROR, "TOPIC_TYPE")),
        (input_state(silence_s=9.0, qos_problem="RELIABILITY"), (ERROR, "QOS_INCOMPATIBLE")),
        (input_state(qos_problem="RELIABILITY"), (OK, "OK")),
        (input_state(lost=40, loss_share=0.3), (WARN, "TRANSPORT_LOSS")),
        (input_state(lost=1, loss_share=0.01), (OK, "OK")),
        (refused(IMG_SHAPE=1), (WARN, "IMG_SHAPE")),
        (refused(waiting_s=9.0, IMG_SHAPE=1, IMG_ENCODING=40), (ERROR, "IMG_ENCODING")),
        (refused(waiting_s=9.0, answered=1, STAMP_ORDER=40), (ERROR, "STAMP_ORDER")),
        (refused(waiting_s=0.1, answered=1, STAMP_ORDER=1), (OK, "OK")),
    ],
)
def test_each_state_of_the_input_has_its_level_and_code(state, expected):
    assert said("input", lifecycle="active", inputs=[state], frame_timeout_s=2.0) == expected


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (DepthHealth("/depth/image", 4), (OK, "OK")),
        (DepthHealth("/depth/image"), (WARN, "DEPTH_NOT_RECEIVED")),
        (DepthHealth("/depth/image", 4, problem="DEPTH_SIZE: of another size"), (WARN, "DEPTH_SIZE")),
    ],
)
def test_depth_that_gives_no_positions_is_a_warning_of_its_own(health, expected):
    state = InputState("front", "/front/image", 1, CameraHealth(received=9, answered=9), depth=health)
    assert said("depth front", lifecycle="active", inputs=[state]) == expected
    assert said("input front", lifecycle="active", inputs=[state]) == (OK, "OK")


def test_a_clock_that_never_started_is_told_before_all_else():
    assert said("input", lifecycle="active", inputs=[input_state(silence_s=9.0)], clock_runs=False) == (
        WARN,
        "NO_CLOCK",
    )


def test_every_camera_has_a_status_of_its_own():
    names = [s.name for s in diagnose("/e", Condition("active", inputs=[input_state("front"), input_state("rear")]))]
    assert names == ["e: input front", "e: input rear", "e: model", "e: inference"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"lifecycle": "active", "inference": InferenceState(MODEL)}, (OK, "OK")),
        ({"lifecycle": "active", "inference": InferenceState(MODEL), "namesakes": 1}, (WARN, "NODE_NAME")),
        ({"lifecycle": "unconfigured"}, (OK, "NOT_ACTIVE")),
        ({"lifecycle": "unconfigured", "failure": "MODEL_FILE: it is gone"}, (ERROR, "MODEL_FILE")),
        ({"lifecycle": "unconfigured", "parameter_problems": ["odd"]}, (ERROR, "CONFIG")),
        (
            {"lifecycle": "active", "inference": InferenceState(restarting="MODEL_CRASHED: so")},
            (ERROR, "MODEL_CRASHED"),
        ),
    ],
)
def test_the_model_says_whether_it_is_loaded_and_why_not(condition, expected):
    assert said("model", **condition) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, (OK, "OK")),
        ({"lifecycle": "inactive"}, (OK, "NOT_ACTIVE")),
        ({"inference": InferenceState(MODEL, paused=True)}, (OK, "PAUSED")),
        ({"inference": InferenceState(restarting="MODEL_TIMEOUT: it hung")}, (ERROR, "MODEL_TIMEOUT")),
        ({"inference": InferenceState(MODEL, standing_failure="INTERNAL: KeyError: 'x'")}, (ERROR, "INTERNAL")),
    ],
)
def test_inference_says_whether_it_works(condition, expected):
    assert said("inference", **{"lifecycle": "active", "inference": InferenceState(MODEL), **condition}) == expected


@pytest.mark.parametrize(
    ("state", "inference", "expected"),
    [
        (input_state(received=0, answered=0), {}, (OK, "OK")),
        (input_state(answered=0), {}, (WARN, "NO_RESULT")),
        (input_state(waiting_s=9.0), {}, (ERROR, "NO_RESULT")),
        (input_state(waiting_s=9.0), {"paused": True}, (OK, "PAUSED")),
        (input_state(waiting_s=9.0), {"busy_s": 9.0}, (ERROR, "MODEL_TIMEOUT")),
        (refused(waiting_s=9.0, IMG_ENCODING=4), {}, (ERROR, "IMG_ENCODING")),
        (refused(waiting_s=0.5, IMG_ENCODING=4), {}, (WARN, "IMG_ENCODING")),
    ],
)
def test_inference_without_a_result_is_no_success(state, inference, expected):
    condition = {"lifecycle": "active", "inputs": [input_state("rear"), state], "frame_timeout_s": 2.0}
    assert said("inference", **condition, inference=InferenceState(MODEL, **inference)) == expected


def test_the_input_counts_what_was_refused():
    state = refused(IMG_SHAPE=3, FRAME_AGE=2)
    [status, *_] = diagnose("/e", Condition("active", inputs=[state]))
    values = {pair.key: pair.value for pair in status.values}
    assert (values["IMG_SHAPE"], values["FRAME_AGE"], values["received"]) == ("3", "2", "9")


def test_the_status_carries_every_number():
    stages = tuple(StageSnapshot(name, n / 1000, n / 100) for n, name in enumerate(STAGES, start=1))
    snapshot = Snapshot(30.0, 29.0, 5, 0.01, 0.02, stages)
    inference = InferenceState(
        MODEL, paused=True, failures=3, parse_failures=1, received=9, dropped=2, active_ids=(3, 4)
    )
    inputs = [input_state("front", lost=4), input_state("rear", lost=5)]
    message = status_message(Condition("active", "", (), inputs, 1.0, True, inference, 2**33, snapshot))
    assert message.frames_lost == 9
    assert (message.model, message.backend, message.device, message.precision) == ("nano", "torch", "cpu", "float32")
    assert (message.coordinate_levels, message.clip_length, message.paused) == (100, 8, True)
    assert list(message.active_ids) == [3, 4]
    assert (message.frames_received, message.frames_dropped, message.parse_failures) == (9, 2, 1)
    rates = (message.input_rate, message.output_rate, message.latency_p50, message.latency_p95)
    assert rates == pytest.approx((30.0, 29.0, 0.01, 0.02))
    assert [stage.name for stage in message.stages] == ["transport", "wait", "decode", "encode", "generate", "node"]
    assert [stage.p50 for stage in message.stages] == pytest.approx([n / 1000 for n in range(1, 7)])
    assert [stage.p95 for stage in message.stages] == pytest.approx([n / 100 for n in range(1, 7)])
    assert (message.encode_p50, message.generate_p50) == pytest.approx((0.004, 0.005))
    assert message.gpu_memory_used == 2**33


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_rates_follow_what_comes_and_fall_when_nothing_comes():
    clock = Clock()
    statistics = Statistics(clock)
    for step in range(31):
        clock.now_s = step / 10
        statistics.image_received()
        if step % 2 == 0:
            statistics.result_published(FrameTimes(latency_s=0.05))
    now = statistics.snapshot()
    assert (now.input_rate_hz, now.output_rate_hz, now.results) == (pytest.approx(10.0), pytest.approx(5.0), 16)
    clock.now_s = 6.0
    assert 0 < statistics.snapshot().input_rate_hz < 6.0
    clock.now_s = 60.0
    assert statistics.snapshot().input_rate_hz == 0.0


def test_percentiles_are_those_of_the_frames_that_had_something_to_measure():
    statistics = Statistics()
    assert statistics.snapshot() == Snapshot()
    for n in range(1, 101):
        statistics.result_published(FrameTimes(latency_s=n / 100, transport_s=n / 200, wait_s=0.0, encode_s=0.2))
    statistics.result_published(FrameTimes(wait_s=0.0))
    now = statistics.snapshot()
    assert (now.latency_p50_s, now.latency_p95_s) == (pytest.approx(0.505), pytest.approx(0.9505))
    assert now.stage("transport") == StageSnapshot("transport", pytest.approx(0.2525), pytest.approx(0.47525))
    assert now.stage("encode") == StageSnapshot("encode", 0.2, 0.2)
    assert now.stage("generate") == StageSnapshot("generate")
    assert now.results == 101
    statistics.reset()
    assert statistics.snapshot() == Snapshot()


def test_a_stage_without_time_counts_but_a_model_without_work_does_not():
    statistics = Statistics()
    for wait_s, encode_s in ((0.0, 0.0), (0.0, 0.0), (0.4, 0.4)):
        statistics.result_published(FrameTimes(wait_s=wait_s, encode_s=encode_s))
    now = statistics.snapshot()
    assert (now.stage("wait").p50_s, now.stage("encode").p50_s) == (0.0, 0.4)


def test_percentiles_speak_of_the_last_frames_and_memory_is_bounded():
    statistics = Statistics()
    for node_s in [9.0] * 1000 + [0.1] * 300:
        statistics.result_published(FrameTimes(latency_s=node_s, node_s=node_s))
    now = statistics.snapshot()
    assert (now.latency_p95_s, now.stage("node").p95_s) == pytest.approx((0.1, 0.1))
