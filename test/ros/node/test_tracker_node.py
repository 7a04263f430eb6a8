"""The tracker node in the test's own process, where its model can be held up or broken."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from elysium_core.errors import GPU_LOST, BackendError, ExpressionError
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_ros.client.tracker_client import TrackerClient
from elysium_ros.convert.messages import header_at, image_message
from elysium_ros.msg import TrackedObject, TrackedObjectArray
from elysium_ros.node import idle_hint
from elysium_ros.node.camera_hints import InputState
from elysium_ros.node.executors import spin
from elysium_ros.node.lifecycle import EXIT_RESTART
from elysium_ros.node.tracker_node import TrackerNode, make_executor
from elysium_ros.perception import inference
from elysium_ros.perception.camera_record import CameraHealth


class SlowModel(IdentityModel):
    """Takes as long to warm up as the test wants, and shows its trackers."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.trackers = []

    def warm_up(self):
        self.begun.set()
        assert self.go_on.wait(30.0)

    def tracker(self, mode="stream", config=None):
        self.trackers.append(super().tracker(mode, config))
        return self.trackers[-1]


@pytest.fixture
def made(monkeypatch):
    """A node that is configured, and its model."""
    model = SlowModel()
    monkeypatch.setattr(inference, "load_model", lambda options: model)
    rclpy.init(args=["--ros-args", "-p", "autostart:=false", "-p", "model.path:=identity"])
    node = TrackerNode()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    yield SimpleNamespace(node=node, model=model)
    model.go_on.set()
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def verdicts(node, **values):
    return [
        node.set_parameters([Parameter(name.replace("__", "."), value=value)])[0].successful
        for name, value in values.items()
    ]


def test_what_is_set_while_the_node_warms_up_holds_afterwards(made, until):
    activating = threading.Thread(target=made.node.trigger_activate)
    activating.start()
    assert made.model.begun.wait(30.0)
    assert verdicts(made.node, tracking__lost_after=7.0, tracking__initial_expression="the red mug") == [True, True]
    assert verdicts(made.node, buffer__capacity=99) == [False], "it would not be used before the next activation"
    made.model.go_on.set()
    activating.join()
    assert made.node.state == "active"
    until(lambda: made.model.trackers and made.model.trackers[0].target_ids, "the target that was set")
    assert made.model.trackers[0].config.lost_after_s == 7.0


def test_a_lost_gpu_ends_the_process_with_a_code_for_whoever_watches_it(made):
    made.model.go_on.set()
    made.node.trigger_activate()
    assert (made.node.exit_code, rclpy.ok()) == (0, True)
    made.node._outputs.report(BackendError("out of memory", code="MEMORY"))
    assert (made.node.exit_code, rclpy.ok()) == (0, True)
    made.node._outputs.report(BackendError("the vision encoder failed: CUDA error", code=GPU_LOST))
    assert (made.node.exit_code, rclpy.ok()) == (EXIT_RESTART, False)


def test_a_node_that_follows_nothing_says_what_to_type(made, monkeypatch, capfd):
    made.model.go_on.set()
    monkeypatch.setattr(idle_hint, "_PATIENCE_S", 0.0)
    made.node.trigger_activate()
    monkeypatch.setattr(made.node._cameras, "states", lambda: [InputState("", "/image", 1, CameraHealth(answered=1))])
    for _ in range(2):
        made.node._housekeeping()
    assert capfd.readouterr().err.count('call ros2 service call /elysium/track elysium_ros/srv/Track "') == 1


def test_words_that_the_model_does_not_know_are_refused_when_they_are_set(made, monkeypatch):
    def clean_words(words):
        if words == "gadget":
            raise ExpressionError("'gadget' is none of its names", code="EXPR_UNKNOWN")
        return words

    monkeypatch.setattr(made.model, "clean_words", clean_words)
    [refused] = made.node.set_parameters([Parameter("tracking.initial_expression", value="gadget")])
    assert (refused.successful, refused.reason) == (False, "'gadget' is none of its names")
    assert verdicts(made.node, tracking__initial_expression="mug") == [True]
    made.node.trigger_cleanup()
    assert verdicts(made.node, tracking__initial_expression="gadget") == [True], "no model can say so now"
    assert made.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert made.node.failure == "EXPR_UNKNOWN: 'gadget' is none of its names"


class HangingModel(IdentityModel):
    """Hangs at the next frame once it is told to."""

    def __init__(self, hangs, go_on):
        self.hangs, self.go_on = hangs, go_on

    def tracker(self, mode="stream", config=None):
        tracker, step, model = super().tracker(mode, config), IdentityTracker.step, self

        class Hanging(IdentityTracker):
            def step(self, frame):
                if model.hangs.is_set():
                    model.hangs.clear()
                    assert model.go_on.wait(60.0)
                return step(self, frame)

        tracker.__class__ = Hanging
        return tracker


@pytest.fixture
def hanging(monkeypatch, test_node):
    """An active node in this process whose model hangs when told to, and what it publishes."""
    hangs, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(inference, "load_model", lambda options: HangingModel(hangs, go_on))
    parameters = {"model.path": "identity", "model.timeout": 0.8, "frame_timeout": 0.3, "diagnostics.period": 60.0}
    parameters["qos_overrides./image.subscription.reliability"] = "reliable"
    rclpy.init(args=["--ros-args", *(word for item in parameters.items() for word in ("-p", "{}:={}".format(*item)))])
    node = TrackerNode()
    executor = make_executor(node)
    spinning = threading.Thread(target=spin, args=(executor, node.guard.report))
    spinning.start()
    inboxes = {topic: [] for topic in ("/elysium/objects", "/diagnostics")}
    for topic, kind in (("/elysium/objects", TrackedObjectArray), ("/diagnostics", DiagnosticArray)):
        test_node.create_subscription(kind, topic, inboxes[topic].append, QoSProfile(depth=50))
    yield SimpleNamespace(node=node, hangs=hangs, objects=inboxes["/elysium/objects"], told=inboxes["/diagnostics"])
    go_on.set()
    rclpy.try_shutdown()
    spinning.join(30.0)
    node.close()
    node.destroy_node()


def levels(message):
    return {s.name.split(": ")[1]: (s.level, {v.key: v.value for v in s.values}["code"]) for s in message.status}


def test_a_hanging_model_is_told_at_once_given_up_and_replaced_while_the_lifecycle_answers(hanging, test_node, until):
    node, objects, told = hanging.node, hanging.objects, hanging.told
    until(lambda: node.state == "active", "the node to be active")
    publisher = test_node.create_publisher(Image, "/image", QoSProfile(depth=5))

    def see(wanted, what):
        def sent():
            publisher.publish(image_message(np.zeros((48, 64, 3), np.uint8), header_at(time.time_ns(), "camera")))
            threading.Event().wait(0.02)
            return [message for message in list(objects) if wanted(message)]

        return until(sent, what)[0]

    see(lambda message: True, "a result")
    client = TrackerClient(test_node, "elysium", timeout_s=30.0)
    target_id = client.track("the red mug").id
    see(lambda message: [o.id for o in message.objects] == [target_id], "the target")
    hanging.hangs.set()
    see(lambda message: message.stale and message.objects[0].state == TrackedObject.STATE_STALE, "STALE")
    timeout = (b"\x02", "MODEL_TIMEOUT")
    until(lambda: [m for m in list(told) if levels(m)["inference"] == timeout], "an error")
    until(lambda: node.events.counts().get("MODEL_TIMEOUT") == 1 and node._inference.is_open, "the restart")
    assert node._inference.state().restarts == 1
    objects.clear()
    back = see(lambda message: [o.state for o in message.objects] == [TrackedObject.STATE_TRACKED], "the target again")
    assert back.objects[0].id == target_id
    hanging.hangs.set()
    see(lambda message: message.stale, "STALE again")
    assert client.change_state("deactivate")
    assert client.lifecycle_state() == "inactive"
    assert client.change_state("activate")
    objects.clear()
    see(lambda message: message.objects == [], "a result after all that")
    test_node.destroy_publisher(publisher)
