"""The node through its lifecycle: every state, every end, several cameras. Each node is a process of its own."""

import os
import signal
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.srv import SelfTest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from elysium_ros.client.node_process import PROFILE_VARIABLES
from elysium_ros.convert.messages import image_message, jpeg_message
from elysium_ros.msg import Box2D, TrackedObject, TrackerStatus
from elysium_ros.srv import Track

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


def change_state(tester, transition_id=0, label=""):
    request = ChangeState.Request(transition=Transition(id=transition_id, label=label))
    return tester.client.call(ChangeState, "change_state", request).success


def refusals(tester):
    """Call everything that needs an active node; return what it says."""
    client = tester.client
    replies = [
        client.track("the red mug", wait_s=5.0), client.stop(), client.describe(), client.ground("it"),
        client.pause(True), client.reset(),
    ]  # fmt: skip
    assert not any(reply.success for reply in replies)
    return {reply.message.split(":")[0] for reply in replies}


@pytest.fixture(scope="module")
def waiting(start_tracker):
    """A node that does nothing by itself."""
    tester = start_tracker(autostart=False)
    tester.wait_state("unconfigured")
    return tester


def test_the_whole_life_and_back(waiting):
    client = waiting.client
    assert refusals(waiting) == {"NOT_ACTIVE"}
    assert client.change_state("configure")
    assert client.lifecycle_state() == "inactive"
    assert refusals(waiting) == {"NOT_ACTIVE"}
    for _ in range(2):
        assert client.change_state("activate")
        waiting.wait_active()
        target = client.track(box=PART)
        assert target.success, target.message
        assert [o.id for o in waiting.see().objects] == [target.id]
        assert client.change_state("deactivate")
        assert refusals(waiting) == {"NOT_ACTIVE"}
    assert client.change_state("cleanup")
    assert client.lifecycle_state() == "unconfigured"
    assert client.change_state("configure")
    assert client.change_state("activate")
    waiting.wait_active()
    again = client.track(box=PART)
    assert again.id > target.id, "ids are never used again"
    assert waiting.see().objects[0].state == TrackedObject.STATE_TRACKED
    assert client.change_state("deactivate")
    assert client.change_state("cleanup")


@pytest.mark.parametrize(
    "arguments",
    [{"transition_id": 200}, {"transition_id": 4}, {"transition_id": 10}, {"label": "nonsense"}, {"label": "activate"}],
)
def test_an_impossible_transition_is_refused_and_the_node_lives(waiting, arguments):
    assert not change_state(waiting, **arguments)
    assert waiting.client.lifecycle_state() == "unconfigured"
    transitions = waiting.client.call(
        GetAvailableTransitions, "get_available_transitions", GetAvailableTransitions.Request()
    )
    assert {t.transition.label for t in transitions.available_transitions} >= {"configure", "shutdown"}
    waiting.process.check_alive()


def test_the_self_test_of_an_idle_node_fails_and_says_what_it_is(waiting):
    reply = waiting.client.call(SelfTest, "self_test", SelfTest.Request())
    assert reply.passed == b"\x00"
    assert any("unconfigured" in status.message for status in reply.status)


def set_parameter(tester, name, value):
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    [result] = tester.client.call(SetParameters, "set_parameters", request).results
    return result


@pytest.mark.parametrize(
    ("parameters", "reason", "state", "remedy"),
    [
        (
            {"model.path": "/no/such/model", "allow_model_change": True},
            "/no/such/model",
            "unconfigured",
            ("model.path", "identity"),
        ),
        ({"qos_overrides./image.subscription.reliability": "perfect"}, "perfect", "inactive", None),
        (
            {"frame_timeout": -1.0, "model.pth": "x"},
            "did you mean 'model.path'?; frame_timeout = -1.0 is not in 0.1..60 s",
            "unconfigured",
            None,
        ),
    ],
)
def test_what_cannot_be_configured_says_why_and_can_be_mended(start_tracker, parameters, reason, state, remedy):
    tester = start_tracker(**parameters)
    diagnostics = tester.inbox(DiagnosticArray, "/diagnostics")
    wanted = f"{tester.name}: model"

    def failed(message):
        return any(s.name == wanted and s.level == b"\x02" and reason in s.message for s in message.status)

    try:
        diagnostics.wait(failed, 60.0)
    finally:
        diagnostics.close()
    tester.until(lambda: reason in tester.process.output(), "the reason in the log")
    tester.wait_state(state)
    assert reason in tester.client.track("the red mug").message, "a caller hears it, too"
    if remedy is not None:
        assert set_parameter(tester, *remedy).successful
        assert tester.client.change_state("configure")
        assert tester.client.change_state("activate")
        tester.wait_active()
    tester.end()


def test_a_model_that_was_freed_is_loaded_again(start_tracker):
    tester = start_tracker(release_on_deactivate="free")
    tester.wait_active()
    assert "not active" in set_parameter(tester, "model.path", "nano").reason
    assert tester.client.change_state("deactivate")
    status = tester.inbox(TrackerStatus, "status", qos=LATCHED)
    status.wait(lambda message: message.model == "")
    assert tester.client.change_state("activate")
    tester.wait_active()
    status.wait(lambda message: message.model == "identity")
    status.close()
    tester.end()


def test_two_cameras_have_topics_and_targets_of_their_own(start_tracker):
    tester = start_tracker(cameras=("front", "rear"))
    tester.wait_active()
    front = tester.client.track(box=PART, camera="front")
    rear = tester.client.track("the red mug", camera="rear")
    first = tester.client.track("by default", add=True)
    assert tester.see("front").camera == "front"
    assert [o.id for o in tester.see("front").objects] == [front.id, first.id]
    message = tester.see("rear")
    assert [o.id for o in message.objects] == [rear.id]
    assert message.header.frame_id == "rear_optical_frame"
    assert list(tester.client.stop(camera="front").stopped_ids) == [front.id, first.id]
    assert [o.id for o in tester.see("rear").objects] == [rear.id]
    refused = tester.client.track("it", camera="top")
    assert refused.message == "CAMERA_UNKNOWN: there is no camera 'top'; there is 'front', 'rear'"
    tester.end()


def test_the_image_is_remapped_with_its_transports_and_words_given_at_the_start_are_tracked(start_tracker):
    tester = start_tracker(
        remap={"image": "/webcam/color"}, image_transport="auto", tracking__initial_expression="the red mug"
    )
    publisher = tester.node.create_publisher(CompressedImage, "/webcam/color/compressed", 5)
    tester.wait_state("active")
    camera, objects = tester.cameras[""], tester.objects[""]

    def answer():
        publisher.publish(jpeg_message(camera.picture, camera.header()))
        # An image may be faster than the words given at the start.
        return [message for message in list(objects.messages) if message.objects]

    message = tester.until(answer, "an answer to a compressed image")[-1]
    assert (message.image_width, message.image_height) == (64, 48)
    assert [o.expression for o in message.objects] == ["the red mug"]
    tester.node.destroy_publisher(publisher)
    raw = tester.node.create_publisher(Image, "/webcam/color", 5)

    def answer_to_raw():
        header = camera.header()
        raw.publish(image_message(camera.picture, header))
        time.sleep(0.05)  # Long enough for the answer to this very image.
        return [message for message in list(objects.messages) if message.header.stamp == header.stamp]

    tester.until(answer_to_raw, "an answer after the camera has changed to raw images")
    tester.node.destroy_publisher(raw)
    tester.end()


@pytest.mark.skipif(any(name in os.environ for name in PROFILE_VARIABLES), reason="Fast DDS is set up not to lose any")
def test_images_that_the_middleware_loses_are_counted_and_told(start_tracker):
    tester = start_tracker(**{"qos_overrides./image.subscription.reliability": "best_effort"})
    status, diagnostics = tester.inbox(TrackerStatus, "status"), tester.inbox(DiagnosticArray, "/diagnostics")
    tester.wait_state("active")
    camera = tester.cameras[""]
    camera.wait_matched()
    small, large = camera.picture, np.zeros((1080, 1920, 3), np.uint8)

    def told():
        # What is lost is noticed when a later image arrives; on a slow machine only the small one does.
        for camera.picture in (large, large, large, small):
            camera.send()
        said = [s for m in list(diagnostics.messages) for s in m.status if s.name.endswith("input")]
        return [s for s in said if "TRANSPORT_LOSS" in {pair.value for pair in s.values}]

    [first, *_] = tester.until(told, "a warning of lost images")
    assert first.level == b"\x01"
    status.wait(lambda message: message.frames_lost > 0)
    status.close()
    diagnostics.close()
    tester.end()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly_while_callers_wait_and_images_come(start_tracker, how):
    tester = start_tracker()
    tester.wait_active()
    client = tester.node.create_client(Track, tester.topic("track"))
    assert client.wait_for_service(30.0)
    tester.client.pause(True)
    status = tester.inbox(TrackerStatus, "status")
    client.call_async(Track.Request(expression="the red mug", wait_timeout=60.0))
    status.wait(lambda message: len(message.active_ids) == 1)
    with tester.camera.streaming(100.0):
        tester.end(how)
    tester.node.destroy_client(client)
    status.close()
