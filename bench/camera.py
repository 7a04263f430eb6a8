"""The camera of the bench: sends pictures at a steady rate and notes how old the answers are."""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from elysium_ros.client.node_process import NodeProcess
from elysium_ros.convert.messages import header_at, image_message, stamp_to_ns
from elysium_ros.msg import StageLatency, TrackedObjectArray, TrackerStatus
from elysium_ros.node.status_reporter import LATCHED_QOS

_MEMORY_PERIOD_S = 1.0
_DISTINCT_PICTURES = 16


class BenchCamera:
    """Sends moving pictures and collects the ages of the answers.

    Args:
        node: A node that spins in another thread.
        tracker: Full name of the tracker node.
        width: Image width [px].
        height: Image height [px].
    """

    def __init__(self, node: Node, tracker: str, width: int, height: int) -> None:
        self._node = node
        self._publisher = node.create_publisher(Image, "/image", QoSProfile(depth=5))
        node.create_subscription(TrackedObjectArray, f"{tracker}/objects", self._on_objects, QoSProfile(depth=100))
        node.create_subscription(TrackerStatus, f"{tracker}/status", self._on_status, LATCHED_QOS)
        # Made beforehand: drawing must not cost time while the node is measured.
        self._messages = [image_message(picture, header_at(0, "bench")) for picture in pictures(width, height)]
        self._lock = threading.Lock()
        self._recording = False
        self.ages_s: list[float] = []
        self.node_ages_s: list[float] = []
        self.superseded = 0
        self.sent = 0
        self._sent_ns = self._answered_ns = self._answered_at_ns = self._status_ns = 0
        self._stages: tuple[StageLatency, ...] = ()

    @property
    def is_watched(self) -> bool:
        """Whether the node listens."""
        return bool(self._publisher.get_subscription_count())

    def send(self, seconds: float, rate_hz: float, process: NodeProcess) -> list[tuple[float, int]]:
        """Send pictures at a steady rate; return the memory of the process as (time [s], bytes)."""
        memory: list[tuple[float, int]] = []
        start_s = time.monotonic()
        for number in range(max(1, round(seconds * rate_hz))):
            time.sleep(max(0.0, start_s + number / rate_hz - time.monotonic()))
            self._send_one(number)
            elapsed_s = time.monotonic() - start_s
            if not memory or elapsed_s - memory[-1][0] >= _MEMORY_PERIOD_S:
                process.check_alive()
                memory.append((elapsed_s, process.resident_bytes()))
        return memory

    def begin(self) -> None:
        """Start to count; what came before was warming up."""
        with self._lock:
            self.ages_s, self.node_ages_s, self.superseded, self.sent = [], [], 0, 0
            self._recording = True

    @property
    def answered(self) -> int:
        """Answers since :meth:`begin`."""
        return len(self.ages_s)

    @property
    def is_settled(self) -> bool:
        """Whether the newest image has its answer; then each one before is answered, superseded or lost."""
        return self._answered_ns == self._sent_ns

    @property
    def has_last_word(self) -> bool:
        """Whether the node has told its stages since the last answer."""
        return self._status_ns > self._answered_at_ns

    @property
    def stages_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile of the node's stages over its last frames [ms], but for those not passed."""
        return {stage.name: (stage.p50 * 1e3, stage.p95 * 1e3) for stage in self._stages if stage.p95}

    def _send_one(self, number: int) -> None:
        message = self._messages[number % len(self._messages)]
        self._sent_ns = int(self._node.get_clock().now().nanoseconds)
        message.header = header_at(self._sent_ns, "bench")
        self._publisher.publish(message)
        self.sent += 1

    def _on_objects(self, message: TrackedObjectArray) -> None:
        now_ns, stamp_ns = int(self._node.get_clock().now().nanoseconds), stamp_to_ns(message.header.stamp)
        age_s = (now_ns - stamp_ns) * 1e-9
        with self._lock:
            self._answered_at_ns = now_ns
            self._answered_ns = stamp_ns
            if self._recording:
                self.ages_s.append(age_s)
                self.node_ages_s.append(message.latency.sec + message.latency.nanosec * 1e-9)
                self.superseded += message.dropped

    def _on_status(self, message: TrackerStatus) -> None:
        self._stages = tuple(message.stages)
        self._status_ns = stamp_to_ns(message.header.stamp)


def pictures(width: int, height: int) -> list[NDArray[np.uint8]]:
    """Return a few RGB pictures of noise with a square that moves, shape (height, width, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = max(1, min(width, height) // 6)
    result = []
    for number in range(_DISTINCT_PICTURES):
        picture = noise.copy()
        left = (width - side) * number // _DISTINCT_PICTURES
        picture[:side, left : left + side] = (220, 40, 40)
        result.append(picture)
    return result
