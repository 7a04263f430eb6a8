"""The stamped outputs of each camera: from a frame's result to messages on topics."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import ImageMarker, MarkerArray

from elysium_core.io.overlay import draw_tracks
from elysium_ros.convert.camera_info import image_message, jpeg_message
from elysium_ros.convert.markers import Annotator, detections, image_marker, outline_markers
from elysium_ros.convert.messages import box_to_message, copy_header, ns_to_duration, object_to_message, to_text
from elysium_ros.msg import ObjectDescription, TrackedObjectArray
from elysium_ros.node.guard import Guard
from elysium_ros.node.parameters import Settings
from elysium_ros.perception.answers import Answer
from elysium_ros.perception.frame_statistics import FrameTimes, Statistics
from elysium_ros.perception.perception import FrameResult

RESULT_QOS = QoSProfile(depth=10)
"""Reliable, volatile; best-effort subscribers match it too."""

PICTURE_QOS = QoSProfile(depth=1)
"""As above; only the newest picture is worth sending."""


@dataclass(frozen=True, slots=True)
class _Topics:
    """Publishers of one camera."""

    objects: Publisher
    descriptions: Publisher
    annotated: Publisher
    annotated_jpeg: Publisher
    image_markers: Publisher
    markers: Publisher
    detections: Publisher | None


class Publishers:
    """Publishes results and descriptions. Results come from the inference thread; pictures have one of their own.

    Args:
        node: The node.
        cameras: Names of the cameras.
        settings: Returns the present settings.
        calibration: Returns the newest calibration of a camera, None if there is none.
        statistics: Hears of each result.
        guard: Where failures go.
    """

    def __init__(
        self,
        node: Node,
        cameras: tuple[str, ...],
        settings: Callable[[], Settings],
        calibration: Callable[[str], CameraInfo | None],
        statistics: Statistics,
        guard: Guard,
    ) -> None:
        self._node = node
        self._settings = settings
        self._calibration = calibration
        self._statistics = statistics
        self._vision_msgs = _optional("vision_msgs.msg")
        self._topics = {camera: self._create(camera) for camera in cameras}
        self._annotator = Annotator(self._publish_picture, guard.report)

    def publish(self, result: FrameResult) -> None:
        """Publish all that is known after one frame, the objects first."""
        topics, header = self._topics[result.image.camera], result.image.payload.header
        latency_ns, node_s = self._latency_ns(result.image.stamp_ns), time.monotonic() - result.image.arrived_s
        topics.objects.publish(_objects(result, latency_ns))
        self._statistics.result_published(_times(result, latency_ns / 1e9 if result.image.stamp_ns else None, node_s))
        width, height = result.frame.width, result.frame.height
        if _has_listener(topics.image_markers):
            topics.image_markers.publish(image_marker(header, result.views, width, height))
        if topics.detections is not None and _has_listener(topics.detections):
            topics.detections.publish(detections(header, result.views, width, height, self._vision_msgs))
        if _has_listener(topics.markers):
            self._publish_outlines(topics.markers, result)
        if _has_listener(topics.annotated) or _has_listener(topics.annotated_jpeg):
            self._annotator.offer(result)

    def publish_description(self, answer: Answer) -> ObjectDescription:
        """Publish a finished text; return the message."""
        message = ObjectDescription(
            header=copy_header(answer.image.payload.header),
            camera=answer.image.camera,
            id=int(answer.target_id),
            box=box_to_message(answer.box, answer.width, answer.height),
            question=str(answer.question),
            text=to_text(answer.text),
        )
        self._topics[answer.image.camera].descriptions.publish(message)
        return message

    def close(self, timeout_s: float) -> None:
        """End the drawing thread.

        Args:
            timeout_s: Longest wait [s].
        """
        self._annotator.stop(timeout_s)

    def _create(self, camera: str) -> _Topics:
        prefix = f"~/{camera}/" if camera else "~/"

        def make(message_type: Any, name: str, qos: QoSProfile = RESULT_QOS) -> Publisher:
            return self._node.create_publisher(message_type, prefix + name, qos)

        vision = self._vision_msgs
        return _Topics(
            objects=make(TrackedObjectArray, "objects"),
            descriptions=make(ObjectDescription, "descriptions"),
            annotated=make(Image, "annotated/image", PICTURE_QOS),
            annotated_jpeg=make(CompressedImage, "annotated/image/compressed", PICTURE_QOS),
            image_markers=make(ImageMarker, "image_markers"),
            markers=make(MarkerArray, "markers"),
            detections=None if vision is None else make(vision.Detection2DArray, "detections"),
        )

    def _latency_ns(self, stamp_ns: int) -> int:
        return self._node.get_clock().now().nanoseconds - stamp_ns if stamp_ns else 0

    def _publish_outlines(self, publisher: Publisher, result: FrameResult) -> None:
        info = self._calibration(result.image.camera)
        if info is None:
            return
        distance_m = self._settings().marker_distance_m
        markers = outline_markers(result.image.payload.header, result.views, info, distance_m)
        if markers is not None:
            publisher.publish(markers)

    def _publish_picture(self, result: FrameResult) -> None:
        topics, settings = self._topics[result.image.camera], self._settings()
        updates = [view.update for view in result.views]
        picture = draw_tracks(result.frame.image, updates, scale=settings.annotated_scale)
        header = result.image.payload.header
        if _has_listener(topics.annotated):
            topics.annotated.publish(image_message(picture, header))
        if _has_listener(topics.annotated_jpeg):
            topics.annotated_jpeg.publish(jpeg_message(picture, header, settings.jpeg_quality))


def _objects(result: FrameResult, latency_ns: int) -> TrackedObjectArray:
    width, height = result.frame.width, result.frame.height
    return TrackedObjectArray(
        header=copy_header(result.image.payload.header),
        camera=result.image.camera,
        image_width=int(width),
        image_height=int(height),
        objects=[object_to_message(view, width, height) for view in result.views],
        dropped=int(result.skipped),
        latency=ns_to_duration(latency_ns),
    )


def _times(result: FrameResult, latency_s: float | None, node_s: float) -> FrameTimes:
    return FrameTimes(
        latency_s=latency_s,
        transport_s=None if latency_s is None else latency_s - node_s,
        wait_s=result.wait_s,
        decode_s=result.decode_s,
        encode_s=result.encode_s,
        generate_s=result.generate_s,
        node_s=node_s,
    )


def _has_listener(publisher: Publisher) -> bool:
    return bool(publisher.get_subscription_count() > 0)


def _optional(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
