"""Targets: by words, by a box, beside others; stopped, replaced, refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile

from elysium_ros.msg import Box2D, TrackedObject, TrackerStatus
from elysium_ros.srv import Track

WIDTH, HEIGHT = 64, 48
WHOLE = Box2D(x_max=64.0, y_max=48.0)
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


def test_a_picture_without_targets_gives_an_empty_list_with_its_header_and_size(tracker):
    header = tracker.camera.send()
    message = tracker.objects[""].of(header)
    assert message.header == header
    assert (message.camera, message.image_width, message.image_height) == ("", WIDTH, HEIGHT)
    assert message.objects == []
    assert 0 <= message.latency.sec < 10


def test_tracking_by_words_waits_for_the_first_box(tracker):
    with tracker.camera.streaming():
        reply = tracker.client.track("  the red\n mug ", wait_s=10.0)
    assert reply.success, reply.message
    assert (reply.id, reply.object.id, reply.object.expression) == (reply.id, reply.id, "the red mug")
    assert reply.object.box == WHOLE
    assert reply.object.state == TrackedObject.STATE_TRACKED
    assert tracker.objects[""].of(reply.header).objects[0] == reply.object
    assert tracker.states(tracker.see()) == [(reply.id, TrackedObject.STATE_TRACKED)]


def test_a_call_that_waits_all_day_keeps_no_one_from_an_answer(tracker):
    tracker.set_parameters(tracking__max_objects=16)
    client = tracker.node.create_client(Track, tracker.topic("track"), qos_profile=QoSProfile(depth=100))
    assert client.wait_for_service(30.0)
    # No image comes, so there is no box to reply with.
    futures = [client.call_async(Track.Request(expression="it", add=True, wait_timeout=60.0)) for _ in range(9)]
    tracker.until(lambda: any(future.done() for future in futures), "the refusal of one")
    [refused] = [future.result() for future in futures if future.done()]
    assert refused.message.startswith("BUSY: 8 calls of ~/track are waiting")
    assert tracker.client.describe(question="What is it?", timeout_s=5.0).success
    assert tracker.client.track("it", add=True).success
    tracker.see()
    tracker.until(lambda: all(future.done() for future in futures), "the replies to the others")
    assert sum(future.result().success for future in futures) == 8
    tracker.node.destroy_client(client)
    tracker.set_parameters(tracking__max_objects=4)


def test_tracking_by_a_box_without_waiting(tracker):
    reply = tracker.client.track(box=PART)
    assert reply.success, reply.message
    assert reply.object == TrackedObject()
    [tracked] = tracker.see().objects
    assert (tracked.id, tracked.box, tracked.expression) == (reply.id, PART, "")


def test_a_box_belongs_to_the_image_with_its_stamp(tracker):
    header = tracker.camera.send()
    tracker.objects[""].of(header)
    tracker.see()
    reply = tracker.client.track(box=PART, box_stamp=header.stamp)
    assert reply.success, reply.message
    assert tracker.see().objects[0].box == PART
    refused = tracker.client.track(box=PART, box_stamp=Time(sec=5))
    assert (refused.success, refused.id) == (False, 0)
    assert refused.message.startswith("BOX_STAMP: there is no image with the stamp 5000000000 ns")
    assert len(tracker.see().objects) == 1, "a refused request changes nothing"


def test_a_second_target_replaces_the_first_or_is_added(tracker):
    first, second = tracker.client.track("one").id, tracker.client.track("two").id
    assert tracker.states(tracker.see()) == [
        (first, TrackedObject.STATE_REMOVED),
        (second, TrackedObject.STATE_TRACKED),
    ]
    third = tracker.client.track(box=PART, add=True).id
    assert [o.id for o in tracker.see().objects] == [second, third]
    assert first < second < third


def test_stopping_one_then_all(tracker):
    ids = [tracker.client.track(words, add=True).id for words in ("one", "two", "three")]
    assert list(tracker.client.stop(ids[1]).stopped_ids) == [ids[1]]
    assert (ids[1], TrackedObject.STATE_REMOVED) in tracker.states(tracker.see())
    assert [o.id for o in tracker.see().objects] == [ids[0], ids[2]]
    refused = tracker.client.stop(ids[1])
    assert not refused.success
    assert refused.message == f"TARGET_UNKNOWN: there is no target {ids[1]}; followed are: {ids[0]}, {ids[2]}"
    assert list(tracker.client.stop().stopped_ids) == [ids[0], ids[2]]
    nothing = tracker.client.stop()
    assert (nothing.success, list(nothing.stopped_ids)) == (True, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "EXPR_EMPTY"),
        ({"expression": " \t"}, "EXPR_EMPTY"),
        ({"expression": "x" * 600}, "EXPR_TOO_LONG"),
        ({"expression": "x" * 1_000_000}, "EXPR_TOO_LONG"),
        ({"expression": "the <image> mug"}, "EXPR_RESERVED"),
        ({"expression": "mug ASSISTANT: yes"}, "EXPR_RESERVED"),
        ({"expression": "mug", "camera": "rear"}, "CAMERA_UNKNOWN"),
        ({"expression": "mug", "wait_s": -1.0}, "TIME_INVALID"),
        ({"expression": "mug", "wait_s": float("nan")}, "TIME_INVALID"),
        ({"box": Box2D(x_min=70.0, y_min=1.0, x_max=90.0, y_max=9.0)}, "BOX_INVALID"),
        ({"box": Box2D(x_min=9.0, y_min=9.0, x_max=3.0, y_max=3.0)}, "BOX_INVALID"),
        ({"box": Box2D(x_min=0.1, y_min=0.1, x_max=0.9, y_max=0.9)}, "BOX_INVALID"),
        ({"box": Box2D(x_max=float("nan"), y_max=9.0)}, "BOX_INVALID"),
        ({"box": PART, "box_stamp": Time(sec=-1)}, "STAMP_INVALID"),
    ],
)
def test_a_bad_request_is_refused_with_a_code_and_a_sentence_and_a_good_one_still_works(tracker, arguments, code):
    request = Track.Request(expression=arguments.get("expression", ""), camera=arguments.get("camera", ""))
    request.box, request.box_stamp = arguments.get("box", Box2D()), arguments.get("box_stamp", Time())
    request.wait_timeout = arguments.get("wait_s", 0.0)
    reply = tracker.client.call(Track, "track", request)
    assert (reply.success, reply.id) == (False, 0)
    assert reply.message.startswith(f"{code}: ")
    assert len(reply.message) < 450
    assert tracker.client.track("the red mug").success


def test_a_silent_camera_and_a_paused_node_are_said_to_be_the_reason(tracker):
    silent = tracker.client.track("the red mug", wait_s=0.05)
    assert not silent.success
    assert silent.message.startswith("NO_IMAGE: no image on /image (sensor_msgs/msg/Image)")
    assert "tester" in silent.message, "who publishes it"
    tracker.client.pause(True)
    paused = tracker.client.track("the red mug", wait_s=0.05)
    assert paused.message.startswith("PAUSED: ")
    assert paused.id > silent.id > 0, "the search goes on"
    tracker.client.pause(False)
    assert [o.id for o in tracker.see().objects][-1] == paused.id


def test_a_caller_who_waits_hears_that_another_one_replaced_its_target(tracker):
    with ThreadPoolExecutor() as pool:
        status = tracker.inbox(TrackerStatus, "status")
        before = set(status.wait().active_ids)
        waiting = pool.submit(tracker.client.track, "one", wait_s=20.0)
        status.wait(lambda message: set(message.active_ids) - before)
        assert tracker.client.track("two").success
        reply = waiting.result(30.0)
    assert not reply.success
    assert reply.message.startswith("REPLACED: ")
