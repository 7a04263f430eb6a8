"""A tracker node as a process, a camera that is fed by the test, and what comes out: no sleeps, only deadlines."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from elysium_ros.client.node_process import NodeProcess
from elysium_ros.client.tracker_client import NoAnswerError, TrackerClient
from elysium_ros.convert.messages import header_at, image_message
from elysium_ros.msg import TrackedObjectArray
from elysium_ros.srv import Describe, Ground, StopTracking, Track

WIDTH, HEIGHT = 64, 48
RELIABLE = QoSProfile(depth=50)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Poll until ``condition`` gives something true, and return it; fail with ``what`` if it does not."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        threading.Event().wait(0.005)
    return value


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[..., Any]:
    """The function above, for tests that need it alone."""
    return until


class Camera:
    """Publishes pictures, one by one or as a stream."""

    def __init__(self, node: Node, name: str = "") -> None:
        self.name = name
        self.picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self._node = node
        self._last_ns = 0

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher of raw images; there is none until it is used."""
        return self._node.create_publisher(Image, f"/{self.name}/image" if self.name else "/image", RELIABLE)

    def wait_matched(self) -> None:
        until(lambda: self.publisher.get_subscription_count() > 0, f"a subscription to camera {self.name!r}")

    def header(self) -> Header:
        """Return a header with a stamp of now, later than all before."""
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        return header_at(self._last_ns, f"{self.name}_optical_frame")

    def send(self, message: Image | None = None) -> Header:
        """Publish a message, by default the picture with a new stamp; return its header."""
        message = message or image_message(self.picture, self.header())
        self.publisher.publish(message)
        return message.header

    @contextmanager
    def streaming(self, rate_hz: float = 50.0) -> Iterator[None]:
        """Publish in a thread while the block runs."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(1 / rate_hz):
                self.send()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Inbox:
    """All messages that came on a topic."""

    def __init__(self, node: Node, message_type: Any, topic: str, qos: QoSProfile = RELIABLE) -> None:
        self.messages: list[Any] = []
        self._node, self._topic = node, topic
        self._subscription = node.create_subscription(message_type, topic, self.messages.append, qos)

    def wait_matched(self) -> None:
        until(lambda: self._node.count_publishers(self._topic) > 0, f"a publisher of {self._topic}")

    def wait(self, wanted: Callable[[Any], Any] = lambda message: True, timeout_s: float = 30.0) -> Any:
        """Return the first message, old or new, for which ``wanted`` is true."""
        return until(
            lambda: next((m for m in list(self.messages) if wanted(m)), None), f"a message on {self._topic}", timeout_s
        )

    def of(self, header: Header) -> Any:
        """Return the message with exactly this header."""
        return self.wait(lambda message: message.header == header)

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)


class Tester:
    """One tracker node in a process of its own, and the means to talk to it."""

    until = staticmethod(until)

    def __init__(self, node: Node, process: NodeProcess, name: str, cameras: tuple[str, ...]) -> None:
        self.node = node
        self.process = process
        self.name = name
        self.client = TrackerClient(node, name, timeout_s=30.0)
        self._met = False
        self.cameras = {camera: Camera(node, camera) for camera in cameras}
        self.objects = {
            camera: Inbox(node, TrackedObjectArray, self.topic("objects", camera)) for camera in cameras
        }  # fmt: skip

    @property
    def camera(self) -> Camera:
        return next(iter(self.cameras.values()))

    def topic(self, name: str, camera: str = "") -> str:
        return f"/{self.name}/{camera}/{name}" if camera else f"/{self.name}/{name}"

    def inbox(self, message_type: Any, name: str, camera: str = "", qos: QoSProfile = RELIABLE) -> Inbox:
        """Listen to a topic of the node, or to a global one whose name starts with a slash."""
        return Inbox(self.node, message_type, name if name.startswith("/") else self.topic(name, camera), qos)

    def wait_active(self) -> None:
        """Wait until the node is active and images get through in both directions."""
        self.wait_state("active")
        for name, camera in self.cameras.items():
            camera.wait_matched()
            self.objects[name].messages.clear()
            with camera.streaming():
                self.objects[name].wait()

    def wait_state(self, state: str) -> None:
        """Wait until the node is in a lifecycle state."""

        def reached() -> bool:
            self.process.check_alive()
            return self._answers(lambda: self.client.call(GetState, "get_state", GetState.Request(), 3.0), state)

        until(reached, f"the state {state}", 60.0)
        self._meet_services()

    def _meet_services(self) -> None:
        """Call each service until it answers once.

        The first reply to a new client can be lost: the service may not have discovered the client yet. A request
        that changes nothing can be repeated until that is over. The client does so, but for services that others have.
        """
        if self._met:
            return
        for service, name, request in (
            (Track, "track", Track.Request(wait_timeout=-1.0)),
            (StopTracking, "stop", StopTracking.Request(id=2**32 - 1)),
            (Describe, "describe", Describe.Request(timeout=-1.0)),
            (Ground, "ground", Ground.Request(timeout=-1.0)),
            (SetBool, "pause", SetBool.Request(data=False)),
            (Trigger, "reset", Trigger.Request()),
            (ChangeState, "change_state", ChangeState.Request(transition=Transition(label="none"))),
            (SetParameters, "set_parameters", SetParameters.Request()),
        ):
            waits_s = chain((0.25, 0.5, 1.0), repeat(3.0))
            until(
                lambda s=service, n=name, r=request, w=waits_s: self._answers(
                    lambda: self.client.call(s, n, r, next(w))
                ),
                f"an answer of {name}",
            )
        self._met = True

    @staticmethod
    def _answers(call: Callable[[], Any], state: str = "") -> bool:
        try:
            reply = call()
        except NoAnswerError:
            return False
        return not state or reply.current_state.label == state

    def see(self, camera: str = "") -> TrackedObjectArray:
        """Send one picture and return what was published of it."""
        name = camera if camera in self.cameras else next(iter(self.cameras))
        return self.objects[name].of(self.cameras[name].send())

    @staticmethod
    def states(message: TrackedObjectArray) -> list[tuple[int, int]]:
        """Id and state of each object of a message."""
        return [(o.id, o.state) for o in message.objects]

    def set_parameters(self, **values: Any) -> list[Any]:
        """Set parameters, whose dots are written as two underscores; return the node's verdict on each."""
        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
        ]
        return list(
            self.client.call(SetParameters, "set_parameters", SetParameters.Request(parameters=parameters)).results
        )

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the node by a signal and check that it ended as it should."""
        os.kill(self.process.pid, how)
        code = self.process.wait(30.0)
        output = self.process.output()
        assert code == 0, output
        assert "Traceback" not in output, output


@contextmanager
def spinning_node() -> Iterator[Node]:
    """A node of the test process that spins while the block runs."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("tester", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            # Tests destroy subscriptions while the executor waits for them, which rclpy answers with InvalidHandle.
            with suppress(InvalidHandle, ExternalShutdownException):
                executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield node
    done.set()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


@contextmanager
def starting_trackers(test_node: Node) -> Iterator[Callable[..., Tester]]:
    """Start tracker nodes; those that still run at the end must end cleanly on SIGTERM."""
    testers: list[Tester] = []

    def start(cameras: tuple[str, ...] = ("",), remap: dict[str, str] | None = None, **parameters: Any) -> Tester:
        name = f"elysium{len(testers)}" if testers else "elysium"
        given = {"model.path": "identity", "cameras": list(cameras), "diagnostics.period": 0.2}
        for camera in cameras:
            topic = f"/{camera}/image" if camera else "/image"
            given[f"qos_overrides.{topic}.subscription.reliability"] = "reliable"
        given |= {key.replace("__", "."): value for key, value in parameters.items()}
        process = NodeProcess("elysium_ros.node.tracker_node", given, os.environ, {"__node": name, **(remap or {})})
        testers.append(Tester(test_node, process, name, cameras))
        return testers[-1]

    yield start
    for tester in testers:
        if tester.process.is_alive:
            tester.end()


class Harness:
    """For folders whose tests share one node: the above, to be used in fixtures of another scope."""

    node = staticmethod(spinning_node)
    trackers = staticmethod(starting_trackers)


@pytest.fixture(scope="session")
def harness() -> type[Harness]:
    return Harness


@pytest.fixture(scope="module")
def test_node() -> Iterator[Node]:
    with spinning_node() as node:
        yield node


@pytest.fixture(scope="module")
def start_tracker(test_node: Node) -> Iterator[Callable[..., Tester]]:
    with starting_trackers(test_node) as start:
        yield start
