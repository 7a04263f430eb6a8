"""The path of one ROS image: every function of this repository that runs between its callback and its messages.

    python -m bench.image_path --model nano --json

Starts the tracker node in this process, with the threads and the executor of the real one, sends it images over DDS,
and follows one target. Some images later it records each Python call that the camera thread and the inference thread
make for one image. The number of calls depends on the picture (a box that has moved costs another pass of the model),
so several images are traced and the one with the median number of calls is shown.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import rclpy
import typer
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from bench.call_path import ImagePath, Tracer, lines, median_path
from bench.camera import pictures
from elysium_core.cli.options import DEFAULT_MODEL, JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.errors import ElysiumError
from elysium_ros.client.node_process import claim_domain
from elysium_ros.client.tracker_client import TrackerClient, spinning, wait_until
from elysium_ros.convert.messages import header_at, image_message, stamp_to_ns
from elysium_ros.msg import Box2D, TrackedObjectArray
from elysium_ros.node import executors, tracker_node

_TRACKER = "/elysium"
_ANSWER_S = 30.0
# After the answer has arrived the inference thread still has a few calls to make.
_QUIET_S = 0.1


class PathError(ElysiumError):
    """The path could not be traced."""

    code = "PATH"


class Camera:
    """Sends one image at a time and waits for its answer.

    Args:
        node: A node that spins in another thread.
        width: Image width [px].
        height: Image height [px].
    """

    def __init__(self, node: Node, width: int, height: int) -> None:
        self._node = node
        self._publisher = node.create_publisher(Image, "/image", QoSProfile(depth=5))
        node.create_subscription(TrackedObjectArray, f"{_TRACKER}/objects", self._on_objects, QoSProfile(depth=5))
        self._messages = [image_message(picture, header_at(0, "bench")) for picture in pictures(width, height)]
        self._sent = 0
        self._answered_ns = 0

    @property
    def is_watched(self) -> bool:
        """Whether the node listens."""
        return bool(self._publisher.get_subscription_count())

    def show(self) -> None:
        """Send the next image and wait for the message about it.

        Raises:
            NoAnswerError: None came.
        """
        message = self._messages[self._sent % len(self._messages)]
        self._sent += 1
        stamp_ns = int(self._node.get_clock().now().nanoseconds)
        message.header = header_at(stamp_ns, "bench")
        self._publisher.publish(message)
        wait_until(lambda: self._answered_ns == stamp_ns, _ANSWER_S, "an image was not answered")

    def _on_objects(self, message: TrackedObjectArray) -> None:
        self._answered_ns = stamp_to_ns(message.header.stamp)


@contextmanager
def running_tracker(model: str, device: str, domain: int) -> Iterator[None]:
    """Run an active tracker node in this process, as :func:`elysium_ros.node.tracker_node.main` does.

    Raises:
        PathError: It cannot be configured or activated; its log says why.
    """
    parameters = {
        "autostart": "false",
        "model.path": model,
        "model.device": device,
        "tracking.remove_after": "0.0",
        "describe.period": "0.0",
        "qos_overrides./image.subscription.reliability": "reliable",
    }
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", *arguments], domain_id=domain)
    node = tracker_node.TrackerNode()
    executor = tracker_node.make_executor(node)
    thread = threading.Thread(target=executors.spin, args=(executor, node.guard.report), daemon=True)
    thread.start()
    try:
        for trigger in (node.trigger_configure, node.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise PathError(f"the node cannot follow with the model {model!r}: {node.failure}")
        yield
    finally:
        node.close()
        rclpy.try_shutdown()
        thread.join(_ANSWER_S)


def trace(model: str, device: str, size: tuple[int, int], warm_up: int, images: int) -> list[ImagePath]:
    """Follow one target and return the paths of some images in steady state.

    Args:
        model: Model of the node.
        device: Device of the node.
        size: Width and height of the images [px].
        warm_up: Images to follow the target through before, >= 0.
        images: Images to trace, >= 1.

    Raises:
        ElysiumError: The node cannot be started, or does not answer.
    """
    tracer = Tracer()
    try:
        with claim_domain() as domain, spinning("image_path", domain) as node, running_tracker(model, device, domain):
            camera = Camera(node, *size)
            wait_until(lambda: camera.is_watched, _ANSWER_S, "the node did not subscribe")
            camera.show()
            _follow(node, size)
            for _ in range(warm_up):
                camera.show()
            return [_trace_one(tracer, camera) for _ in range(images)]
    finally:
        tracer.close()


def _follow(node: Node, size: tuple[int, int]) -> None:
    side = float(max(1, min(size) // 6))
    response = TrackerClient(node, _TRACKER, _ANSWER_S).track(box=Box2D(x_max=side, y_max=side))
    if not response.success:
        raise PathError(f"the node refused the target: {response.message}")


def _trace_one(tracer: Tracer, camera: Camera) -> ImagePath:
    _wait_until_quiet(tracer)
    tracer.begin()
    camera.show()
    _wait_until_quiet(tracer)
    return tracer.end()


def _wait_until_quiet(tracer: Tracer) -> None:
    """Return when nothing was called for a moment; only the node's own clocks run then, and those are not traced."""
    before = -1
    while before != tracer.count:
        before = tracer.count
        threading.Event().wait(_QUIET_S)


def command(
    model: Annotated[
        str, typer.Option("--model", "-m", help="nano, identity or a folder with a checkpoint.")
    ] = DEFAULT_MODEL,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    width: Annotated[int, typer.Option("--width", min=1, max=8192, help="Width of the images [px].")] = 640,
    height: Annotated[int, typer.Option("--height", min=1, max=8192, help="Height of the images [px].")] = 480,
    warm_up: Annotated[int, typer.Option("--warm-up", min=0, help="Images before the first that is traced.")] = 20,
    images: Annotated[int, typer.Option("--images", min=1, help="Images to trace.")] = 9,
    as_json: JsonOption = False,
) -> None:
    """Files, functions and calls between an image's callback and its messages."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    paths = trace(model, device, (width, height), warm_up, images)
    path = median_path(paths)
    if as_json:
        parts = {name: path.within(name).totals() for name in ("elysium_ros", "elysium_core")}
        emit(
            {
                "model": model,
                **path.totals(),
                **parts,
                "calls_of_all": [traced.calls for traced in paths],
                "steps": [asdict(step) for step in path.steps],
            }
        )
    else:
        for line in lines(path):
            say(line)
    sys.stdout.flush()
    # As the node does: taking torch apart takes seconds, and may abort while a thread still runs it.
    os._exit(0)


if __name__ == "__main__":
    from bench.app import run

    run("image_path")
