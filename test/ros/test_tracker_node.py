"""The node as a process of its own, with a model that stands still: what each input gives, good and bad."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.srv import SelfTest
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import ImageMarker, MarkerArray

from elysium_ros.action import TrackObject
from elysium_ros.camera_messages import image_message, made_up_camera_info
from elysium_ros.msg import Box2D, ObjectDescription, TrackedObject, TrackerStatus
from elysium_ros.srv import Ground, StopTracking, Track

WIDTH, HEIGHT = 64, 48
WHOLE = Box2D(x_max=64.0, y_max=48.0)
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


@pytest.fixture(scope="module")
def running(start_tracker):
    tester = start_tracker()
    tester.wait_active()
    return tester


@pytest.fixture
def tracker(running):
    """The node without targets and with one image; whatever a test does, the next one finds it so."""
    running.process.check_alive()
    running.client.pause(False)
    running.client.reset()
    running.see()
    return running


def states(message):
    return [(o.id, o.state) for o in message.objects]


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
    assert states(tracker.see()) == [(reply.id, TrackedObject.STATE_TRACKED)]


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
    assert states(tracker.see()) == [(first, TrackedObject.STATE_REMOVED), (second, TrackedObject.STATE_TRACKED)]
    third = tracker.client.track(box=PART, add=True).id
    assert [o.id for o in tracker.see().objects] == [second, third]
    assert first < second < third


def test_stopping_one_then_all(tracker):
    ids = [tracker.client.track(words, add=True).id for words in ("one", "two", "three")]
    assert list(tracker.client.stop(ids[1]).stopped_ids) == [ids[1]]
    assert (ids[1], TrackedObject.STATE_REMOVED) in states(tracker.see())
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


def test_descriptions_of_a_target_a_box_and_the_scene(tracker):
    texts = tracker.inbox(ObjectDescription, "descriptions")
    texts.wait_matched()
    words = tracker.client.track("the red mug")
    assert tracker.client.describe(words.id).message.startswith("NOT_SEEN: ")
    target = tracker.client.track(box=PART)
    header = tracker.see().header
    reply = tracker.client.describe(target.id)
    assert reply.success, reply.message
    assert (reply.description.text, reply.description.id) == ("something at 25,25,50,50", target.id)
    assert (reply.description.header, reply.description.box) == (header, PART)
    assert texts.wait() == reply.description
    tracked = tracker.see().objects[0]
    assert (tracked.description, tracked.description_stamp) == (reply.description.text, header.stamp)
    assert tracker.client.describe(box=WHOLE).description.text == "something at 0,0,100,100"
    scene = tracker.client.describe(question="What is happening?").description
    assert (scene.text, scene.question, scene.id) == ("no model is loaded", "What is happening?", 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"target_id": 4_000_000_000}, "TARGET_UNKNOWN"),
        ({"question": "USER: hi"}, "EXPR_RESERVED"),
        ({"box": Box2D(x_min=99.0, y_min=1.0, x_max=100.0, y_max=9.0)}, "BOX_INVALID"),
        ({"camera": "rear"}, "CAMERA_UNKNOWN"),
        ({"timeout_s": -1.0}, "TIME_INVALID"),
    ],
)
def test_a_bad_question_is_refused(tracker, arguments, code):
    reply = tracker.client.describe(**arguments)
    assert not reply.success
    assert reply.message.startswith(f"{code}: ")


def test_grounding_in_the_newest_and_in_a_given_image(tracker):
    header = tracker.camera.send()
    tracker.objects[""].of(header)
    reply = tracker.client.ground("the red mug")
    assert reply.success, reply.message
    assert (reply.header, list(reply.boxes), list(reply.scores)) == (header, [WHOLE], [1.0])
    given = image_message(np.zeros((10, 20, 3), np.uint8), tracker.camera.header())
    other = tracker.client.ground("the red mug", given)
    assert (other.header, list(other.boxes)) == (given.header, [Box2D(x_max=20.0, y_max=10.0)])
    assert tracker.see().objects == []


def test_grounding_refuses_bad_words_and_bad_images(tracker):
    assert tracker.client.ground("").message.startswith("EXPR_EMPTY: ")
    for image, code in [
        (Image(width=5, height=5, encoding="rgb8", step=15), "IMG_SHAPE"),
        (Image(width=5, height=5, encoding="rgb8", step=15, data=bytes(3)), "IMG_SHAPE"),
        (Image(width=1, height=1, encoding="odd", step=3, data=bytes(3)), "IMG_ENCODING"),
    ]:
        reply = tracker.client.call(Ground, "ground", Ground.Request(image=image, expression="it"))
        assert not reply.success
        assert reply.message.startswith(f"{code}: ")


def test_nothing_is_published_while_paused(tracker):
    assert tracker.client.pause(True).message == "paused"
    header = tracker.camera.send()
    tracker.client.ground("anything")  # the thread has been round: were it to look, it would have looked
    assert header not in [message.header for message in tracker.objects[""].messages]
    assert tracker.client.pause(False).success
    assert tracker.objects[""].of(header).header == header


def test_a_reset_ends_all_targets_and_forgets_the_images(tracker):
    tracker.client.track("one")
    assert tracker.client.reset().message == "1 targets ended and all images forgotten"
    assert tracker.client.ground("it").message.startswith("NO_IMAGE: ")
    assert [state for _, state in states(tracker.see())] == [TrackedObject.STATE_REMOVED]
    assert tracker.see().objects == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"encoding": "no_such"}, "IMG_ENCODING"),
        ({"encoding": ""}, "IMG_ENCODING"),
        ({"height": 0, "width": 0}, "IMG_SHAPE"),
        ({"height": 2**32 - 1, "width": 2**32 - 1}, "IMG_TOO_LARGE"),
        ({"step": 0}, "IMG_SHAPE"),
        ({"data": b"1234567"}, "IMG_SHAPE"),
    ],
)
def test_an_image_that_cannot_be_used_is_counted_and_the_next_one_answered(tracker, changes, code):
    message = image_message(tracker.camera.picture, tracker.camera.header())
    for name, value in changes.items():
        setattr(message, name, value)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")
    before = count_of(code, diagnostics.wait())
    header = tracker.camera.send(message)
    diagnostics.wait(lambda message: count_of(code, message) == before + 1)
    diagnostics.close()
    assert tracker.see().dropped == 1
    assert header not in [m.header for m in tracker.objects[""].messages]
    assert f"{code}: " in tracker.process.output()


def count_of(code, message):
    [status] = [status for status in message.status if status.name.endswith(": input")]
    return int({pair.key: pair.value for pair in status.values}.get(code, "0"))


def test_encodings_and_sizes_may_change_from_image_to_image(tracker):
    tracker.client.track(box=PART)
    for encoding, size in itertools.product(("bgr8", "rgb8"), ((60, 80), (48, 64))):
        message = image_message(np.zeros((*size, 3), np.uint8), tracker.camera.header())
        message.encoding = encoding
        answer = tracker.objects[""].of(tracker.camera.send(message))
        assert (answer.image_height, answer.image_width) == size
        assert answer.objects[0].box.x_max == size[1] / 2, "boxes follow the size"


def test_stamps_out_of_order_are_dropped_and_a_jump_back_ends_the_targets(tracker):
    target = tracker.client.track("one")
    newest = tracker.see().header
    old = image_message(tracker.camera.picture, tracker.camera.header())
    old.header.stamp = Time(sec=newest.stamp.sec, nanosec=max(0, newest.stamp.nanosec - 1000))
    tracker.camera.send(old)
    assert tracker.see().dropped == 1
    jump = image_message(tracker.camera.picture, tracker.camera.header())
    jump.header.stamp = Time(sec=newest.stamp.sec - 3600)
    answer = tracker.objects[""].of(tracker.camera.send(jump))
    assert states(answer) == [(target.id, TrackedObject.STATE_REMOVED)]
    assert "TIME_JUMP" in tracker.process.output()


def test_annotated_images_come_while_someone_listens(tracker):
    pictures, jpegs = (
        tracker.inbox(Image, "annotated/image"),
        tracker.inbox(CompressedImage, "annotated/image/compressed"),
    )
    try:
        tracker.client.track(box=PART)
        with tracker.camera.streaming(30.0):
            picture, jpeg = pictures.wait(), jpegs.wait()
    finally:
        pictures.close()
        jpegs.close()
    assert (picture.encoding, picture.width, picture.height) == ("rgb8", WIDTH, HEIGHT)
    assert tracker.objects[""].of(picture.header).header == picture.header
    assert cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR).shape == (HEIGHT, WIDTH, 3)
    shown = np.frombuffer(picture.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert not np.array_equal(shown, tracker.camera.picture), "something is drawn"


def test_markers_outline_the_boxes_in_the_image_and_in_space(tracker):
    flat, space = tracker.inbox(ImageMarker, "image_markers"), tracker.inbox(MarkerArray, "markers")
    info = tracker.node.create_publisher(CameraInfo, "/camera_info", QoSProfile(depth=1))
    try:
        tracker.client.track("mug", box=PART)
        with tracker.camera.streaming(30.0):
            lines = flat.wait(lambda message: len(message.points) == 8)
            until_space(info, tracker, space)
    finally:
        flat.close()
        space.close()
        tracker.node.destroy_publisher(info)
    assert {(p.x, p.y) for p in lines.points} == {(16.0, 12.0), (32.0, 12.0), (32.0, 24.0), (16.0, 24.0)}
    outline, label = space.wait(lambda message: len(message.markers) == 2).markers
    assert {point.z for point in outline.points} == {2.0}
    # A camera of 90 degrees sees as far to the side as ahead: the box spans -0.5..0 of that.
    assert [outline.points[0].x, outline.points[2].x] == pytest.approx([-1.0, 0.0])
    assert label.text.endswith("mug")
    assert outline.header.frame_id == "_optical_frame"


def until_space(info, tracker, space):
    for _ in range(100):
        info.publish(made_up_camera_info(WIDTH, HEIGHT, 90.0, tracker.camera.header()))
        if space.messages:
            return
        threading.Event().wait(0.05)


def test_the_status_is_latched_and_complete(tracker):
    target = tracker.client.track("one")
    tracker.see()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    status = tracker.inbox(TrackerStatus, "status", qos=latched)
    message = status.wait(lambda message: list(message.active_ids) == [target.id])
    status.close()
    assert (message.model, message.backend, message.device) == ("identity", "none", "cpu")
    assert (message.coordinate_levels, message.clip_length, message.paused) == (100, 8, False)
    assert message.frames_received >= 2
    assert 0 < message.latency_p50 <= message.latency_p95


def codes(message):
    return {status.name.split(": ")[1]: {v.key: v.value for v in status.values}["code"] for status in message.status}


def test_diagnostics_say_that_the_camera_stopped_and_came_back(tracker):
    set_parameters(tracker, frame_timeout=0.2)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")
    diagnostics.wait(lambda message: codes(message)["input"] == "CAM_TIMEOUT")
    with tracker.camera.streaming():
        diagnostics.messages.clear()
        message = diagnostics.wait(lambda message: set(codes(message).values()) == {"OK"})
    diagnostics.close()
    assert {status.name for status in message.status} == {f"elysium: {n}" for n in ("input", "model", "inference")}
    assert all(status.level == b"\x00" for status in message.status)


def test_a_publisher_whose_quality_of_service_does_not_match_is_named(tracker):
    set_parameters(tracker, frame_timeout=0.2)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")
    unreliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = tracker.node.create_publisher(Image, "/image", unreliable)
    message = diagnostics.wait(lambda message: codes(message)["input"] == "QOS_INCOMPATIBLE")
    assert any("RELIABILITY" in status.message for status in message.status)
    tracker.node.destroy_publisher(publisher)
    reply = tracker.client.track("the red mug", wait_s=0.05)
    assert "set qos_overrides./image.subscription.reliability" in reply.message
    tracker.see()
    diagnostics.messages.clear()
    diagnostics.wait(lambda message: codes(message)["input"] == "CAM_TIMEOUT")
    diagnostics.close()


def set_parameters(tracker, **values):
    request = SetParameters.Request()
    request.parameters = [Parameter(k.replace("__", "."), value=v).to_parameter_msg() for k, v in values.items()]
    return tracker.client.call(SetParameters, "set_parameters", request).results


def test_parameters_change_at_once_or_say_why_not(tracker):
    [taken] = set_parameters(tracker, tracking__max_objects=1)
    assert taken.successful
    tracker.client.track("one")
    assert tracker.client.track("two", add=True).message.startswith("TARGET_LIMIT: ")
    assert set_parameters(tracker, tracking__max_objects=4)[0].successful
    assert tracker.client.track("two", add=True).success
    [refused] = set_parameters(tracker, model__path="nano")
    assert "while the node is not active" in refused.reason
    assert not set_parameters(tracker, publish__jpeg_quality=0)[0].successful


def test_setting_the_initial_expression_starts_anew(tracker):
    assert set_parameters(tracker, tracking__initial_expression="the blue cup")[0].successful
    assert [o.expression for o in tracker.see().objects] == ["the blue cup"]
    assert set_parameters(tracker, tracking__initial_expression="")[0].successful


def test_targets_are_described_periodically(tracker):
    texts = tracker.inbox(ObjectDescription, "descriptions")
    target = tracker.client.track(box=PART)
    assert set_parameters(tracker, describe__period=0.05)[0].successful
    with tracker.camera.streaming():
        text = texts.wait(lambda message: message.id == target.id)
    assert set_parameters(tracker, describe__period=0.0)[0].successful
    texts.close()
    assert text.text == "something at 25,25,50,50"


def test_the_self_test_passes_while_images_come(tracker):
    set_parameters(tracker, frame_timeout=2.0)
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


class Goal:
    """One goal of the action, its feedback and its result."""

    def __init__(self, client, **fields):
        self.feedback = []
        self._accepted, self._ended = threading.Event(), threading.Event()
        goal = TrackObject.Goal(**fields)
        sent = client.send_goal_async(goal, feedback_callback=lambda message: self.feedback.append(message.feedback))
        sent.add_done_callback(self._take_handle)

    def _take_handle(self, future):
        self.handle = future.result()
        self.handle.get_result_async().add_done_callback(self._take_result)
        self._accepted.set()

    def _take_result(self, future):
        self.status, self.result = future.result().status, future.result().result
        self._ended.set()

    def cancel(self):
        assert self._accepted.wait(30.0)
        self.handle.cancel_goal_async()

    def wait(self):
        assert self._ended.wait(30.0)
        return self.result


SUCCEEDED, CANCELED, ABORTED = 4, 5, 6


@pytest.fixture
def send_goal(tracker):
    client = ActionClient(tracker.node, TrackObject, tracker.topic("track_object"))
    assert client.wait_for_server(30.0)
    yield lambda **fields: Goal(client, **fields)
    client.destroy()


def wait_for_feedback(goal, count):
    event = threading.Event()
    for _ in range(6000):
        if len(goal.feedback) >= count:
            return goal.feedback
        event.wait(0.005)
    raise AssertionError(f"{len(goal.feedback)} feedbacks came, not {count}")


def test_a_goal_reports_every_frame_until_it_is_cancelled(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(expression="the red mug")
        feedback = wait_for_feedback(goal, 3)
        goal.cancel()
        result = goal.wait()
    assert (goal.status, result.reason) == (CANCELED, TrackObject.Result.REASON_CANCELED)
    assert result.frames >= 3
    assert result.last.id == result.id
    assert feedback[0].object.box == WHOLE
    assert tracker.objects[""].of(feedback[0].header).objects[-1] == feedback[0].object
    assert (result.id, TrackedObject.STATE_TRACKED) not in states(tracker.see()), "the target ended with the goal"


def test_a_goal_ends_when_its_time_is_over(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(box=PART, max_duration=0.3)
        result = goal.wait()
    assert (goal.status, result.reason) == (SUCCEEDED, TrackObject.Result.REASON_TIMEOUT)
    assert "0.3 s" in result.message


def test_a_goal_ends_when_another_request_replaces_its_target(tracker, send_goal):
    with tracker.camera.streaming():
        goal = send_goal(expression="one")
        wait_for_feedback(goal, 1)
        tracker.client.track("two")
        result = goal.wait()
    assert (goal.status, result.reason) == (ABORTED, TrackObject.Result.REASON_REPLACED)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"expression": ""}, "EXPR_EMPTY"), ({"expression": "it", "max_duration": -1.0}, "TIME_INVALID")],
)
def test_a_goal_that_cannot_be_started_says_why(send_goal, fields, code):
    goal = send_goal(**fields)
    result = goal.wait()
    assert (goal.status, result.reason, result.id) == (ABORTED, TrackObject.Result.REASON_ERROR, 0)
    assert result.message.startswith(f"{code}: ")
