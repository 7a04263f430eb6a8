"""What goes out beside the objects: pictures, markers, status, diagnostics."""

import threading

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import ImageMarker, MarkerArray

from elysium_ros.convert.messages import made_up_camera_info
from elysium_ros.msg import Box2D, TrackedObject, TrackerStatus

WIDTH, HEIGHT = 64, 48
PART = Box2D(x_min=16.0, y_min=12.0, x_max=32.0, y_max=24.0)


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
    stages = {stage.name: (stage.p50, stage.p95) for stage in message.stages}
    assert list(stages) == ["transport", "wait", "decode", "encode", "generate", "node"]
    assert stages["encode"] == stages["generate"] == (0.0, 0.0), "this model has neither"
    for name in ("transport", "wait", "decode", "node"):
        assert 0 < stages[name][0] <= stages[name][1], name
    assert stages["wait"][0] < stages["node"][0] < message.latency_p95


def codes(message):
    return {status.name.split(": ")[1]: {v.key: v.value for v in status.values}["code"] for status in message.status}


def test_diagnostics_say_that_the_camera_stopped_and_came_back(tracker):
    tracker.set_parameters(frame_timeout=0.2)
    diagnostics = tracker.inbox(DiagnosticArray, "/diagnostics")
    diagnostics.wait(lambda message: codes(message)["input"] == "CAM_TIMEOUT")
    with tracker.camera.streaming():
        diagnostics.messages.clear()
        message = diagnostics.wait(lambda message: set(codes(message).values()) == {"OK"})
    diagnostics.close()
    assert {status.name for status in message.status} == {f"elysium: {n}" for n in ("input", "model", "inference")}
    assert all(status.level == b"\x00" for status in message.status)


def test_a_publisher_whose_quality_of_service_does_not_match_is_named(tracker):
    tracker.set_parameters(frame_timeout=0.2)
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


def test_a_camera_that_stops_makes_targets_stale_once_and_answers_about_old_images_are_refused(tracker):
    tracker.set_parameters(frame_timeout=0.3)
    target = tracker.client.track(box=PART)
    tracker.objects[""].messages.clear()
    header = tracker.see().header

    def is_stale(message):
        return [item.state for item in message.objects] == [TrackedObject.STATE_STALE]

    stale = tracker.objects[""].wait(is_stale)
    assert (stale.header, stale.stale, stale.objects[0].id) == (header, True, target.id)
    assert stale.objects[0].box == Box2D(), "no old box looks like a new one"
    assert stale.latency.sec * 10**9 + stale.latency.nanosec >= 300_000_000
    reply = tracker.client.ground("the red mug")
    assert (reply.success, "ago" in reply.message) == (True, True)
    assert "ago" in tracker.client.describe(target.id).message
    tracker.set_parameters(max_answer_age=0.1)
    refused = [tracker.client.ground("it"), tracker.client.describe(), tracker.client.describe(target.id)]
    assert [(reply.success, reply.message.partition(":")[0]) for reply in refused] == [(False, "IMAGE_OLD")] * 3
    tracker.set_parameters(max_answer_age=5.0, frame_timeout=2.0)
    assert tracker.see().objects[0].state == TrackedObject.STATE_TRACKED
    assert len([message for message in tracker.objects[""].messages if is_stale(message)]) == 1
