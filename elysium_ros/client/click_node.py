"""Follows what is clicked in rviz or rqt_image_view: ``ros2 run elysium_ros click_node``, or ``clicks:=true``.

Topics it listens to:

- ``/clicked_point`` (``geometry_msgs/PointStamped``): the tool *Publish Point* of rviz, and of Foxglove's 3D panel;
- ``image_mouse_left`` and ``<tracker>/annotated/image_mouse_left`` (``geometry_msgs/Point``): rqt_image_view with its
  check box *publish click location*, of the image and of the annotated one at full size;
- the tracker's objects, and ``camera_info``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Queue
from typing import Any

import rclpy
from geometry_msgs.msg import Point, PointStamped
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo

from elysium_core.errors import ElysiumError
from elysium_ros.client.clicks import Clicks
from elysium_ros.client.tracker_client import TrackerClient, spinning
from elysium_ros.msg import TrackedObjectArray

# More clicks than this at a time are not meant as so many targets.
_MOST_WAITING = 8
_POLL_S = 0.2
_SERVICE_TIMEOUT_S = 5.0

Convert = Callable[[Any], tuple[Any, Any]]


class ClickNode(Node):
    """Listens for clicks; :meth:`follow` turns each into a target.

    Args:
        client: Calls the tracker.
        options: For tests: what a node takes beyond its name.
    """

    def __init__(self, client: Callable[[str], TrackerClient], **options: Any) -> None:
        super().__init__("clicks", **options)
        name = str(self.declare_parameter("tracker", "elysium").value)
        self._camera = str(self.declare_parameter("camera", "").value)
        self._add = bool(self.declare_parameter("add", True).value)
        tracker = name if name.startswith("/") else f"{self.get_namespace().rstrip('/')}/{name}"
        prefix = f"{tracker}/{self._camera}" if self._camera else tracker
        inputs = f"{self._camera}/" if self._camera else ""
        self._client = client(tracker)
        self._clicks = Clicks()
        self._waiting: Queue[tuple[Convert, Any]] = Queue(_MOST_WAITING)
        self.create_subscription(TrackedObjectArray, f"{prefix}/objects", self._clicks.see, 1)
        self.create_subscription(CameraInfo, f"{inputs}camera_info", self._clicks.calibrate, qos_profile_sensor_data)
        pixels = (f"{inputs}image_mouse_left", f"{prefix}/annotated/image_mouse_left")
        clicked: list[tuple[Any, str, Convert]] = [(PointStamped, "/clicked_point", self._clicks.in_space)]
        clicked += [(Point, topic, self._clicks.in_image) for topic in pixels]
        for kind, topic, convert in clicked:
            self.create_subscription(kind, topic, partial(_put, self._waiting, convert), 10)
        self.get_logger().info(f"clicks on /clicked_point and image_mouse_left become targets of {tracker}")

    def follow(self) -> str:
        """Wait a moment for a click and start following what is there.

        Returns:
            What came of it, for the log; empty if nobody clicked.
        """
        try:
            convert, message = self._waiting.get(timeout=_POLL_S)
        except Empty:
            return ""
        try:
            box, stamp = convert(message)
            reply = self._client.track(box=box, box_stamp=stamp, camera=self._camera, add=self._add)
        except ElysiumError as error:
            return f"the click is not followed: {error}"
        return (
            f"target {reply.id} is what was clicked" if reply.success else f"the click is not followed: {reply.message}"
        )


def _put(waiting: Queue[tuple[Convert, Any]], convert: Convert, message: Any) -> None:
    if not waiting.full():
        waiting.put((convert, message))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: Command line without the program's name; that of the process if omitted.

    Returns:
        The exit code, 0.
    """
    rclpy.init(args=None if args is None else list(args))
    executor = SingleThreadedExecutor()
    try:
        # The services are called on a node of their own, because the answers must come while this one goes on.
        with spinning("click_calls") as calls:
            node = ClickNode(lambda tracker: TrackerClient(calls, tracker, _SERVICE_TIMEOUT_S))
            executor.add_node(node)
            threading.Thread(target=_spin, args=(executor,), name="click_spin", daemon=True).start()
            while rclpy.ok():
                if outcome := node.follow():
                    node.get_logger().info(outcome)
    except KeyboardInterrupt:
        return 0
    finally:
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except (ExternalShutdownException, ShutdownException):
        return


if __name__ == "__main__":
    sys.exit(main())
