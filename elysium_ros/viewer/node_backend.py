"""A backend whose tracker is a node: images and objects come from topics, requests go to services."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from elysium_core.errors import ElysiumError, TargetError
from elysium_core.geometry import Box
from elysium_core.viewer.backend import Deliver, Picture, Tell, ViewerError
from elysium_core.viewer.protocol import CameraStatus
from elysium_ros.client.tracker_client import TrackerClient
from elysium_ros.convert.messages import box_to_message, ns_to_stamp
from elysium_ros.msg import Box2D, TrackerStatus
from elysium_ros.viewer.camera_feed import CameraFeed

_POLL_S = 0.5
# The node publishes its status every diagnostics.period, at most every minute.
_STATUS_OLD_S = 5.0
_SERVICE_TIMEOUT_S = 5.0
_CODED = re.compile(r"([A-Z][A-Z0-9_]{2,40}): (.+)", re.DOTALL)


class NodeBackend:
    """Implements :class:`elysium_core.viewer.backend.Backend` for a tracker node.

    The node that is given must be spinning in another thread. It subscribes only to what a page shows. The tracker
    itself has no more work than for any other subscriber of its objects.

    Args:
        node: What subscriptions and clients are made on.
        tracker: Name of the tracker node, with its namespace.
        cameras: Names of its cameras; one empty name for the only one.
        transport: How images come: ``raw``, ``compressed`` or ``auto``.
    """

    def __init__(self, node: Node, tracker: str, cameras: Sequence[str] = ("",), transport: str = "auto") -> None:
        self.cameras = tuple(cameras)
        self._node = node
        self._is_closed = False
        self._client = TrackerClient(node, tracker, _SERVICE_TIMEOUT_S, self._check_open)
        self.source = self._client.tracker
        self._transport = transport
        self._lock = threading.Lock()
        self._status: TrackerStatus | None = None
        self._status_at_s = 0.0
        self._feeds: dict[str, CameraFeed] = {}

    def start(self, deliver: Deliver, tell: Tell) -> None:
        """Listen to the status of the tracker."""
        self._deliver, self._tell = deliver, tell
        for camera in self.cameras:
            self._feeds[camera] = CameraFeed(
                self._node,
                camera,
                self.source,
                self._transport,
                self._show,
                partial(tell, camera),
            )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(TrackerStatus, f"{self.source}/status", self._on_status, latched)
        self._timer = self._node.create_timer(_POLL_S, self._poll)

    def watch(self, cameras: frozenset[str]) -> None:
        """Subscribe to the cameras that are shown, and to no others."""
        with self._lock:
            for camera, feed in self._feeds.items():
                if camera in cameras and not feed.is_open:
                    feed.open()
                elif camera not in cameras and feed.is_open:
                    feed.close()

    def status(self, camera: str) -> CameraStatus:
        """Return the node's own status, or what is wrong."""
        feed = self._feeds[camera]
        fault, sentence = "", ""
        if not self._node.count_publishers(f"{self.source}/status"):
            fault, sentence = "NODE_MISSING", f"there is no tracker node {self.source}; start it, or name another"
        elif waits := feed.waits_for():
            fault, sentence = "CAM_NOT_RECEIVED", waits
        status = self._status if time.monotonic() - self._status_at_s < _STATUS_OLD_S else None
        if status is None:
            return CameraStatus(input_hz=_rate(feed.pairs.arrival_times), fault=fault, fault_text=sentence)
        return CameraStatus(
            model=Path(status.model).name,
            device=status.device,
            paused=status.paused,
            input_hz=float(status.input_rate),
            output_hz=float(status.output_rate),
            latency_p50_ms=1e3 * float(status.latency_p50),
            latency_p95_ms=1e3 * float(status.latency_p95),
            received=status.frames_received,
            dropped=status.frames_dropped,
            fault=fault,
            fault_text=sentence,
        )

    def track(self, camera: str, expression: str, box: Box | None, stamp_ns: int, add: bool) -> str:
        """Call ``~/track``."""
        if not expression.strip() and box is None:
            raise TargetError("say what to follow, or draw a box", code="TARGET_EMPTY")
        drawn = None if box is None else self._in_pixels(camera, box)
        stamp = ns_to_stamp(stamp_ns if drawn is not None else 0)
        reply = self._client.track(expression, drawn, box_stamp=stamp, camera=camera, add=add)
        return str(_checked(reply).id)

    def stop(self, camera: str, target: str) -> None:
        """Call ``~/stop``."""
        _checked(self._client.stop(int(target or 0), camera))

    def describe(self, camera: str, target: str) -> str:
        """Call ``~/describe`` for a target."""
        return str(_checked(self._client.describe(int(target), camera=camera)).description.text)

    def ask(self, camera: str, question: str) -> str:
        """Call ``~/describe`` for the scene."""
        return str(_checked(self._client.describe(question=question, camera=camera)).description.text)

    def pause(self, paused: bool) -> None:
        """Call ``~/pause``."""
        _checked(self._client.pause(paused))

    def close(self) -> None:
        """End the subscriptions, and the waiting for answers."""
        self._is_closed = True
        self.watch(frozenset())
        self._node.destroy_timer(self._timer)

    def _show(self, picture: Picture) -> None:
        self._deliver(picture)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ViewerError("the viewer ends", code="VIEWER_CLOSED")

    def _on_status(self, message: TrackerStatus) -> None:
        self._status, self._status_at_s = message, time.monotonic()

    def _poll(self) -> None:
        with self._lock:
            for feed in self._feeds.values():
                feed.poll()

    def _in_pixels(self, camera: str, box: Box) -> Box2D:
        size = self._feeds[camera].size
        if size is None:
            raise ViewerError("there is no picture of this camera yet; wait for the first", code="NO_IMAGE")
        return box_to_message(box, *size)


def _checked(reply: Any) -> Any:
    """Return a reply of the node.

    Raises:
        ElysiumError: The node refused; with the code that its sentence begins with.
    """
    if reply.success:
        return reply
    coded = _CODED.match(reply.message)
    code, sentence = coded.groups() if coded else ("REFUSED", reply.message or "the node refused")
    raise ElysiumError(sentence, code=code)


def _rate(times: deque[float]) -> float:
    points = list(times)
    if len(points) < 2 or time.monotonic() - points[-1] > 2.0:
        return 0.0
    return (len(points) - 1) / max(points[-1] - points[0], 1e-9)
