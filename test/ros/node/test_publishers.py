"""What is published of a frame and what the log says of it, with a node in this process."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.msg import TrackedObjectArray
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameters import Settings
from elysium_ros.node.publishers import Publishers
from elysium_ros.perception.frame_statistics import Statistics
from elysium_ros.perception.types import FrameJob, Incoming, ObjectView

BOX = Box(0.25, 0.25, 0.5, 0.5)
HEADER = Header(frame_id="optical_frame")


class Log:
    """The lines of the log."""

    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)


@pytest.fixture
def made(monkeypatch):
    """Publishers of two cameras, what was counted, logged, and how often the status was published."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node, log, statistics = ManagedNode("published", context=context), Log(), Statistics()
    monkeypatch.setattr(node, "get_logger", lambda: log)
    parameters = SimpleNamespace(settings=Settings(cameras=("", "front")))
    cameras, status = SimpleNamespace(calibration=lambda camera: None), SimpleNamespace(count=0)
    status.publish_status = lambda: setattr(status, "count", status.count + 1)
    yield SimpleNamespace(
        publishers=Publishers(node, parameters, cameras, statistics, status),
        node=node, log=log, statistics=statistics, status=status,
    )  # fmt: skip
    node.destroy_node()
    rclpy.shutdown(context=context)


def job(index=1, *, camera="", stamp_ns=0, news="", **fields):
    image = Incoming(camera, stamp_ns, Image(header=HEADER), 0, 1)
    update = TrackUpdate("3", index, BOX, 0.625, TrackState.TRACKED, stamp_ns, "the red mug", 7, BOX)
    frame = Frame(np.zeros((48, 64, 3), np.uint8), stamp_ns, index)
    return FrameJob(image, frame, views=(ObjectView(3, update, "the red mug", news=news),), **fields)


def test_the_message_has_the_header_of_the_image_and_all_that_is_known(made, until):
    heard = []
    made.node.create_subscription(TrackedObjectArray, "~/front/objects", heard.append, 5)
    executor = rclpy.executors.SingleThreadedExecutor(context=made.node.context)
    executor.add_node(made.node)

    def is_heard():
        made.publishers.publish(job(camera="front", skipped=2))
        executor.spin_once(timeout_sec=0.05)
        return heard

    until(is_heard, "a message")
    message = heard[0]
    assert (message.header, message.camera, message.dropped) == (HEADER, "front", 2)
    assert (message.image_width, message.image_height) == (64, 48)
    assert [(o.id, o.label, o.box.x_max) for o in message.objects] == [(3, "the red mug", 32.0)]
    assert (message.latency.sec, message.latency.nanosec) == (0, 0), "the camera sets no stamps"


def test_the_log_says_when_images_begin_and_what_is_new_and_else_nothing(made):
    made.publishers.publish(job(0))
    made.publishers.publish(job(1, news="found, score 0.62"))
    made.publishers.publish(job(2))
    made.publishers.publish(job(0, camera="front", news="lost, no box"))
    assert made.log.lines == [
        "images of 64 x 48 px arrive",
        "target 3 ('the red mug') found, score 0.62",
        "images of 64 x 48 px arrive in camera 'front'",
        "target 3 ('the red mug') in camera 'front' lost, no box",
    ]


def test_the_status_is_published_when_the_targets_have_changed(made):
    made.publishers.publish(job())
    assert made.status.count == 0
    made.publishers.publish(job(targets_changed=True))
    assert made.status.count == 1


def test_every_frame_is_counted_with_its_times_and_without_a_stamp_there_is_no_latency(made):
    made.publishers.publish(job(taken_s=0.25, decode_s=0.125, encode_s=0.5, generate_s=0.0))
    now = made.statistics.snapshot()
    assert (now.results, now.latency_p50_s) == (1, 0.0)
    assert [now.stage(name).p50_s for name in ("wait", "decode", "encode", "generate")] == [0.25, 0.125, 0.5, 0.0]
    made.publishers.publish(job(stamp_ns=made.node.get_clock().now().nanoseconds - 10**9))
    assert 1.0 <= made.statistics.snapshot().latency_p50_s < 60.0
