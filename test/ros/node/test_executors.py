"""The node's callbacks: images in a thread of their own, nothing twice, nothing forgotten, whatever fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Int64
from std_srvs.srv import Trigger

from elysium_ros.node.executors import CAMERA_THREAD, CameraGroup, PoolExecutor, spin

READY = -1


class Running:
    """A node that is spun as the tracker node is."""

    def __init__(self, until: Callable[..., Any]) -> None:
        self.until = until
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("spun", context=self.context)
        self.publisher = self.node.create_publisher(Int64, "numbers", QoSProfile(depth=100))
        self.heard: list[tuple[int, str]] = []
        self.failures: list[Exception] = []
        self.executor = PoolExecutor(self.node, 4)
        self._thread = threading.Thread(target=spin, args=(self.executor, self.failures.append), daemon=True)
        self._thread.start()

    def hear(self, message: Int64) -> None:
        self.heard.append((message.data, threading.current_thread().name))

    def listen(self, group: CameraGroup | None, callback: Callable[[Int64], None] | None = None) -> None:
        """Subscribe, and wait until messages get through: the first ones may come before the two have met."""
        ready = threading.Event()

        def hear(message: Int64) -> None:
            if message.data == READY:
                ready.set()
            else:
                (callback or self.hear)(message)

        self.node.create_subscription(Int64, "numbers", hear, QoSProfile(depth=100), callback_group=group)

        def is_heard() -> bool:
            self.send(READY)
            return ready.wait(0.05)

        self.until(is_heard, "a first message")

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.publisher.publish(Int64(data=number))

    def end(self) -> None:
        rclpy.shutdown(context=self.context)
        self._thread.join(5.0)
        assert not self._thread.is_alive()
        assert not any(thread.name == CAMERA_THREAD for thread in threading.enumerate())


@pytest.fixture
def running(until: Callable[..., Any]) -> Iterator[Running]:
    value = Running(until)
    yield value
    value.end()


def test_images_are_taken_in_order_by_one_thread_and_others_by_the_pool(running: Running) -> None:
    running.listen(CameraGroup())
    running.listen(None)
    running.send(*range(20))
    running.until(lambda: len(running.heard) == 40, "all of them")
    cameras = [number for number, thread in running.heard if thread == CAMERA_THREAD]
    pool = [number for number, thread in running.heard if thread != CAMERA_THREAD]
    assert cameras == list(range(20))
    assert sorted(pool) == list(range(20))
    assert not running.failures


def test_a_camera_that_is_added_or_removed_later_wakes_its_thread(running: Running) -> None:
    running.listen(None)
    running.send(1)
    running.until(lambda: running.heard, "the first")
    running.listen(CameraGroup())
    running.send(2)
    running.until(lambda: (2, CAMERA_THREAD) in running.heard, "a message to the new subscription")
    for subscription in list(running.node.subscriptions):
        running.node.destroy_subscription(subscription)
    running.heard.clear()
    running.listen(CameraGroup())
    running.send(3)
    running.until(lambda: (3, CAMERA_THREAD) in running.heard, "a message to the subscription after that")


def test_a_busy_pool_does_not_hold_images_back(running: Running) -> None:
    release = threading.Event()

    def wait(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        release.wait(30.0)
        return response

    running.node.create_service(Trigger, "slow", wait)
    client = running.node.create_client(Trigger, "slow", callback_group=CameraGroup())
    running.listen(CameraGroup())
    running.until(client.service_is_ready, "the service")
    future = client.call_async(Trigger.Request())
    running.send(7)
    running.until(lambda: (7, CAMERA_THREAD) in running.heard, "an image while a service waits")
    assert not future.done()
    release.set()
    running.until(future.done, "the answer")


def test_a_failing_callback_is_reported_and_the_next_image_is_taken(running: Running) -> None:
    def fail_on_one(message: Int64) -> None:
        if message.data == 1:
            raise RuntimeError("scripted")
        running.hear(message)

    running.listen(CameraGroup(), fail_on_one)
    running.send(1, 2)
    running.until(lambda: (2, CAMERA_THREAD) in running.heard, "the image after the failure")
    assert [str(error) for error in running.failures] == ["scripted"]
