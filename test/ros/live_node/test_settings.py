"""Parameters that change while the node runs, the self test, a burst of calls."""

import threading

from diagnostic_msgs.srv import SelfTest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from elysium_ros.msg import Box2D, ObjectDescription
from elysium_ros.srv import StopTracking

PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


def test_parameters_change_at_once_or_say_why_not(tracker):
    [taken] = tracker.set_parameters(tracking__max_objects=1)
    assert taken.successful
    tracker.client.track("one")
    assert tracker.client.track("two", add=True).message.startswith("TARGET_LIMIT: ")
    assert tracker.set_parameters(tracking__max_objects=4)[0].successful
    assert tracker.client.track("two", add=True).success
    [refused] = tracker.set_parameters(model__path="nano")
    assert "while the node is not active" in refused.reason
    assert not tracker.set_parameters(publish__jpeg_quality=0)[0].successful


def test_setting_the_initial_expression_starts_anew(tracker):
    assert tracker.set_parameters(tracking__initial_expression="the blue cup")[0].successful
    assert [o.expression for o in tracker.see().objects] == ["the blue cup"]
    assert tracker.set_parameters(tracking__initial_expression="")[0].successful


def test_targets_are_described_periodically(tracker):
    texts = tracker.inbox(ObjectDescription, "descriptions")
    target = tracker.client.track(box=PART)
    assert tracker.set_parameters(describe__period=0.05)[0].successful
    with tracker.camera.streaming():
        text = texts.wait(lambda message: message.id == target.id)
    assert tracker.set_parameters(describe__period=0.0)[0].successful
    texts.close()
    assert text.text == "something at 25,25,50,50"


def test_the_self_test_passes_while_images_come(tracker):
    tracker.set_parameters(frame_timeout=2.0)
    with tracker.camera.streaming():
        tracker.objects[""].wait()
        reply = tracker.client.call(SelfTest, "self_test", SelfTest.Request())
    assert reply.passed == b"\x01", reply
    assert len(reply.status) == 3


def test_a_burst_of_calls_is_answered_call_by_call(tracker):
    client = tracker.node.create_client(StopTracking, tracker.topic("stop"), qos_profile=QoSProfile(depth=1000))
    assert client.wait_for_service(30.0)
    futures = [client.call_async(StopTracking.Request(id=4_000_000_000)) for _ in range(200)]
    done = threading.Event()
    futures[-1].add_done_callback(lambda _: done.set())
    assert done.wait(30.0)
    tracker.see()
    replies = [future.result() for future in futures if future.done()]
    assert len(replies) == 200
    assert {reply.message.split(":")[0] for reply in replies} == {"TARGET_UNKNOWN"}
    tracker.node.destroy_client(client)


def test_a_parameter_of_an_unknown_type_is_refused_and_the_others_are_set(tracker):
    strange = ParameterMessage(name="frame_timeout", value=ParameterValue(type=77))
    known = Parameter("publish.jpeg_quality", value=80).to_parameter_msg()
    request = SetParameters.Request(parameters=[strange, known])
    results = tracker.client.call(SetParameters, "set_parameters", request).results
    assert [result.successful for result in results] == [False, True]
    assert "77" in results[0].reason
    request = SetParametersAtomically.Request(parameters=[known, strange])
    result = tracker.client.call(SetParametersAtomically, "set_parameters_atomically", request).result
    assert (result.successful, "77" in result.reason) == (False, True)
