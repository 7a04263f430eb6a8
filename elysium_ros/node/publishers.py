"""Publishes the results of each camera: messages on topics, annotated images, and lines in the log."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import ImageMarker, MarkerArray

from elysium_core.errors import GPU_LOST, ElysiumError, ImageError
from elysium_core.io.overlay import draw_tracks
from elysium_ros.convert.markers import cube_markers, detections, detections_3d, image_marker, outline_markers
from elysium_ros.convert.messages import (
    box_to_message,
    image_message,
    jpeg_message,
    ns_to_duration,
    object_to_message,
    stale_message,
    stamp_to_ns,
)
from elysium_ros.msg import ObjectDescription, TrackedObjectArray
from elysium_ros.node.camera_input import CameraInputs
from elysium_ros.node.guard import Guard
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.node.status_reporter import StatusReporter
from elysium_ros.perception.frame_statistics import FrameTimes, Statistics
from elysium_ros.perception.types import Answer, FrameJob

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
    detections_3d: Publisher | None


class Publishers:
    """Publishes results and descriptions (:class:`elysium_ros.perception.types.Outputs`).

    They come from the inference thread.

    Args:
        node: The node.
        parameters: Its parameters.
        cameras: Where calibrations come from.
        statistics: Counts results.
        status: Publishes the status when the targets have changed.
    """

    def __init__(
        self,
        node: ManagedNode,
        parameters: ParameterServer,
        cameras: CameraInputs,
        statistics: Statistics,
        status: StatusReporter,
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._cameras = cameras
        self._statistics = statistics
        self._status = status
        self._vision_msgs = _optional("vision_msgs.msg")
        self._told_uncalibrated: set[str] = set()
        # The newest message of each camera, for the one that says that no more come.
        self._newest: dict[str, TrackedObjectArray] = {}
        has_depth = parameters.settings.depth_enabled
        self._topics = {
            camera: _make_topics(node, camera, self._vision_msgs, has_depth=has_depth)
            for camera in parameters.settings.cameras
        }
        self._annotator = Annotator(self._topics, parameters, node.guard)

    def close(self, timeout_s: float) -> None:
        """End the drawing thread.

        Args:
            timeout_s: Longest wait [s].
        """
        self._annotator.stop(timeout_s)

    def publish(self, job: FrameJob) -> None:
        """Publish the result of one frame, the objects first, and log what has changed."""
        image, header, topics = job.image, job.image.payload.header, self._topics[job.image.camera]
        width, height = job.frame.width, job.frame.height
        latency_ns = self._node.get_clock().now().nanoseconds - image.stamp_ns if image.stamp_ns else 0
        message = TrackedObjectArray(header=header, camera=image.camera, image_width=width, image_height=height)
        message.dropped, message.latency = job.skipped, ns_to_duration(latency_ns)
        for view in job.views:
            message.objects.append(object_to_message(view, width, height))
        node_s = time.monotonic() - image.arrived_s
        message.stale = node_s > self._parameters.settings.frame_timeout_s
        self._newest[image.camera] = message
        topics.objects.publish(message)
        self._count(job, node_s, latency_ns / 1e9 if image.stamp_ns else None)
        # The others are made only where somebody listens.
        if topics.image_markers.get_subscription_count():
            topics.image_markers.publish(image_marker(header, job.views, width, height))
        if topics.detections is not None and topics.detections.get_subscription_count():
            topics.detections.publish(detections(header, job.views, width, height, self._vision_msgs))
        if topics.detections_3d is not None and topics.detections_3d.get_subscription_count():
            topics.detections_3d.publish(detections_3d(header, job.views, self._vision_msgs))
        if topics.markers.get_subscription_count():
            self._publish_markers(topics.markers, job)
        if topics.annotated.get_subscription_count() or topics.annotated_jpeg.get_subscription_count():
            self._annotator.offer(job)
        self._tell_news(job)

    def publish_stale(self, camera: str) -> None:
        """Say that the results of a camera have stopped: what it showed last is not known any more."""
        last = self._newest.get(camera)
        message = None if last is None else stale_message(last)
        if message is None or not message.objects:
            return  # nobody acts on anything
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns:
            message.latency = ns_to_duration(self._node.get_clock().now().nanoseconds - stamp_ns)
        self._topics[camera].objects.publish(message)

    def publish_description(self, answer: Answer) -> ObjectDescription:
        """Publish a finished text; return the message."""
        message = ObjectDescription(
            header=answer.image.payload.header,
            camera=answer.image.camera,
            id=int(answer.target_id),
            box=box_to_message(answer.box, answer.width, answer.height),
            question=str(answer.question),
            text=answer.text,
        )
        self._topics[answer.image.camera].descriptions.publish(message)
        return message

    def report(self, error: Exception) -> str:
        """Count and log a failure of the model or of an image; a lost GPU ends the process."""
        sentence = self._node.guard.report(error)
        if isinstance(error, ElysiumError) and error.code == GPU_LOST:
            self._node.give_up(sentence)
        return sentence

    def _count(self, job: FrameJob, node_s: float, latency_s: float | None) -> None:
        self._statistics.result_published(
            FrameTimes(
                latency_s=latency_s,
                transport_s=None if latency_s is None else latency_s - node_s,
                wait_s=job.taken_s - job.image.arrived_s,
                decode_s=job.decode_s,
                encode_s=job.encode_s,
                generate_s=job.generate_s,
                node_s=node_s,
            )
        )

    def _publish_markers(self, publisher: Publisher, job: FrameJob) -> None:
        """Publish cubes where there is a position, and outlines of the other boxes where the camera is calibrated."""
        settings, header, views = self._parameters.settings, job.image.payload.header, job.views
        cubes = cube_markers(header, views) if settings.depth_enabled else None
        flat = [view for view in views if view.position is None]
        info = self._cameras.calibration(job.image.camera)
        outlines = None if info is None else outline_markers(header, flat, info, settings.marker_distance_m)
        if outlines is None and flat:
            self._tell_uncalibrated(job.image.camera, info)
        made = [array for array in (cubes, outlines) if array is not None]
        if made:
            publisher.publish(MarkerArray(markers=[marker for array in made for marker in array.markers]))

    def _tell_uncalibrated(self, camera: str, info: CameraInfo | None) -> None:
        """Say once why somebody who waits for outlines in space sees none."""
        if camera in self._told_uncalibrated:
            return
        self._told_uncalibrated.add(camera)
        topic = self._node.resolve_topic_name(f"{camera}/camera_info" if camera else "camera_info")
        why = "has no focal length" if info is not None else "has not come"
        sentence = f"no boxes are drawn in space, because the calibration of the camera {why}: {topic}"
        self._node.guard.report(ImageError(f"{sentence}; publish it, or remap camera_info", code="CAM_NO_CALIBRATION"))

    def _tell_news(self, job: FrameJob) -> None:
        """Log that images have begun to come, and what has become of targets; most frames have no news."""
        camera, log = job.image.camera, self._node.get_logger().info
        where = f" in camera {camera!r}" if camera else ""
        if job.frame.index == 0:
            log(f"images of {job.frame.width} x {job.frame.height} px arrive{where}")
        for view in job.views:
            if view.news:
                words = f" ({view.update.expression!r})" if view.update.expression else ""
                log(f"target {view.id}{words}{where} {view.news}")
        if job.targets_changed:
            self._status.publish_status()


class Annotator:
    """Draws and publishes annotated images in another thread, newest first, so that drawing never delays tracking.

    Args:
        topics: Publishers of each camera.
        parameters: Size and quality of the pictures.
        guard: Where failures go.
    """

    def __init__(self, topics: Mapping[str, _Topics], parameters: ParameterServer, guard: Guard) -> None:
        self._topics = topics
        self._parameters = parameters
        self._guard = guard
        self._condition = threading.Condition()
        self._waiting: dict[str, FrameJob] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None

    def offer(self, job: FrameJob) -> None:
        """Draw this frame next, unless a newer one of the same camera comes first."""
        with self._condition:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="elysium_annotator", daemon=True)
                self._thread.start()
            self._waiting[job.image.camera] = job
            self._condition.notify()

    def stop(self, timeout_s: float) -> None:
        """End the thread; wait for a picture that is being drawn.

        Args:
            timeout_s: Longest wait [s].
        """
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                job = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._draw(job)
            except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn must not end the drawing
                self._guard.report(error)

    def _draw(self, job: FrameJob) -> None:
        topics, settings = self._topics[job.image.camera], self._parameters.settings
        updates = [view.update for view in job.views]
        picture = draw_tracks(job.frame.image, updates, scale=settings.annotated_scale)
        header = job.image.payload.header
        if topics.annotated.get_subscription_count():
            topics.annotated.publish(image_message(picture, header))
        if topics.annotated_jpeg.get_subscription_count():
            topics.annotated_jpeg.publish(jpeg_message(picture, header, settings.jpeg_quality))


def _make_topics(node: Node, camera: str, vision_msgs: ModuleType | None, *, has_depth: bool) -> _Topics:
    prefix = f"~/{camera}/" if camera else "~/"

    def make(message_type: Any, name: str, qos: QoSProfile = RESULT_QOS) -> Publisher:
        return node.create_publisher(message_type, prefix + name, qos)

    return _Topics(
        objects=make(TrackedObjectArray, "objects"),
        descriptions=make(ObjectDescription, "descriptions"),
        annotated=make(Image, "annotated/image", PICTURE_QOS),
        annotated_jpeg=make(CompressedImage, "annotated/image/compressed", PICTURE_QOS),
        image_markers=make(ImageMarker, "image_markers"),
        markers=make(MarkerArray, "markers"),
        detections=None if vision_msgs is None else make(vision_msgs.Detection2DArray, "detections"),
        detections_3d=make(vision_msgs.Detection3DArray, "detections_3d") if vision_msgs and has_depth else None,
    )


def _optional(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
