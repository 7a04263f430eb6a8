"""A model that follows by words, in a real node: its folder is configured, and each service answers with it."""

from __future__ import annotations

import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from elysium_ros.client.tracker_client import TrackerClient
from elysium_ros.convert.messages import box_to_message, header_at, image_message
from elysium_ros.msg import TrackedObject, TrackedObjectArray
from elysium_ros.node.executors import spin
from elysium_ros.node.tracker_node import TrackerNode, make_executor

CORE_TESTS = Path(__file__).resolve().parents[2] / "core"


@pytest.fixture(scope="module")
def lessons():
    """The clip that the model knows by heart; shared with the tests of the library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CORE_TESTS))
        yield import_module("qwen_lessons")
        sys.modules.pop("qwen_lessons", None)


@pytest.fixture(scope="module")
def folder(lessons, tmp_path_factory):
    path = import_module("qwen_checkpoint").write_qwen_checkpoint(
        tmp_path_factory.mktemp("qwen") / "taught", "qwen3_vl"
    )
    lessons.teach(path)
    return path


@pytest.fixture
def running(folder, lessons, test_node, until):
    """An active node with that folder, a camera that shows a frame of the clip, and a client."""
    parameters = {
        "model.path": folder,
        "autostart": "false",
        "qos_overrides./image.subscription.reliability": "reliable",
    }
    parameters |= {"model.device": "cpu", "describe.period": 0.0, "model.max_pixels": 16384}
    rclpy.init(args=["--ros-args", *(word for item in parameters.items() for word in ("-p", "{}:={}".format(*item)))])
    node = TrackerNode()
    executor = make_executor(node)
    spinning = threading.Thread(target=spin, args=(executor, node.guard.report))
    spinning.start()
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.failure
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.failure
    heard = []
    subscription = test_node.create_subscription(
        TrackedObjectArray, "/elysium/objects", heard.append, QoSProfile(depth=50)
    )
    publisher = test_node.create_publisher(Image, "/image", QoSProfile(depth=5))
    frame = [0]
    done = threading.Event()

    def film():
        while not done.wait(0.03):
            publisher.publish(image_message(lessons.picture(frame[0]), header_at(time.time_ns(), "camera")))

    camera = threading.Thread(target=film)
    camera.start()

    def show(number):
        frame[0] = number
        heard.clear()

    client = TrackerClient(test_node, "elysium", timeout_s=30.0)
    until(lambda: heard, "a result")
    yield SimpleNamespace(client=client, show=show, heard=heard, until=until)
    done.set()
    camera.join(10.0)
    test_node.destroy_subscription(subscription)
    test_node.destroy_publisher(publisher)
    rclpy.try_shutdown()
    spinning.join(30.0)
    node.close()
    node.destroy_node()


def test_words_and_boxes_are_followed_found_and_described(running, lessons):
    client, size = running.client, (lessons.WIDTH, lessons.HEIGHT)

    def rounded(box):
        return tuple(round(side) for side in (box.x_min, box.y_min, box.x_max, box.y_max))

    def truth(number, words):
        box = lessons.truth(number).get(words)
        return None if box is None else rounded(box_to_message(box, *size))

    def newest():
        """Words of each target, and where it is; None if it is not TRACKED."""
        objects = running.heard[-1].objects if running.heard else []
        return [(o.expression, rounded(o.box) if o.state == TrackedObject.STATE_TRACKED else None) for o in objects]

    by_box = client.track(box=box_to_message(lessons.truth(0)[lessons.MUG], *size), wait_s=30.0)
    assert by_box.success, by_box.message
    assert f"followed by the words {lessons.MUG!r}" in by_box.message
    by_words = client.track(lessons.APPLE, add=True, wait_s=30.0)
    assert by_words.success, by_words.message
    for number in (1, lessons.HIDDEN[0], 7):  # it is lost, and found again
        running.show(number)
        wanted = [("", truth(number, lessons.MUG)), (lessons.APPLE, truth(number, lessons.APPLE))]
        running.until(lambda wanted=wanted: newest() == wanted, f"{wanted} in frame {number}")
    found = client.ground(lessons.APPLE)
    assert found.success, found.message
    assert [rounded(box) for box in found.boxes] == [truth(7, lessons.APPLE)]
    texts = [client.describe(target.id).description.text for target in (by_box, by_words)]
    assert texts == [lessons.MUG, lessons.APPLE]
