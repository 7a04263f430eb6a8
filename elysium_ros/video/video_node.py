"""Plays a video, a folder of images or a V4L2 device as a camera.

Publishes ``image`` (rgb8) and ``camera_info``, and ``image/compressed`` where asked;
``~/play`` (SetBool) starts and pauses. All parameters are in
:class:`elysium_ros.video.player.VideoSettings`::

    ros2 run elysium_ros video_node --ros-args -p source:=street.mp4 -p loop:=true
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from elysium_core.errors import ElysiumError
from elysium_core.frames import Frame
from elysium_core.io.video import open_video
from elysium_ros.convert.messages import header_at, image_message, jpeg_message, made_up_camera_info, resize
from elysium_ros.node.executors import NO_HANDLERS, SignalGate, ends_with_rclpy
from elysium_ros.node.parameter_spec import Spec
from elysium_ros.video.player import VIDEO_SPECS, VideoPlayer, VideoSettings

_SUBSCRIBER_CHECK_S = 0.05
# Ten images are megabytes; a calibration is small, and who counts frames by it should miss none on a busy machine.
_IMAGE_DEPTH, _INFO_DEPTH = 10, 200
_ACKNOWLEDGE_S = 2.0


class VideoNode(Node):
    """The node: parameters, publishers and the service around a :class:`VideoPlayer`.

    Attributes:
        finished: Done when there will be no more frames.
        player: What plays.

    Raises:
        ConfigError: A parameter is out of range.
        VideoError: The source is missing, unreadable or empty.
    """

    def __init__(self) -> None:
        super().__init__("video")
        settings = VideoSettings.from_values({name: _declare(self, spec) for name, spec in VIDEO_SPECS.items()})
        self.settings = settings
        recording = open_video(settings.source, topic=settings.topic, allow_network=True)
        self.finished: Future = Future()
        policy = ReliabilityPolicy.RELIABLE if settings.reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=_IMAGE_DEPTH, reliability=policy)
        info_qos = QoSProfile(depth=_INFO_DEPTH, reliability=policy)
        raw, jpeg = settings.image_transport != "compressed", settings.image_transport != "raw"
        self._info_publisher = self.create_publisher(CameraInfo, "camera_info", info_qos)
        self._raw_publisher = self.create_publisher(Image, "image", qos) if raw else None
        self._jpeg_publisher = self.create_publisher(CompressedImage, "image/compressed", qos) if jpeg else None
        self.player = VideoPlayer(
            recording,
            self._publish,
            lambda: int(self.get_clock().now().nanoseconds),
            rate_hz=settings.rate,
            loop=settings.loop,
            pause_after=settings.pause_after,
            stamps=settings.stamps,
            on_end=lambda: self.finished.set_result(None),
        )
        self.create_service(SetBool, "~/play", self._on_play)
        self._released = not settings.start_paused
        self._start_timer = self.create_timer(_SUBSCRIBER_CHECK_S, self._start_when_ready)
        self.player.start()
        self.get_logger().info(f"playing {settings.source!r} at {settings.rate or recording.fps:g} Hz")

    @property
    def _image_publishers(self) -> list[Publisher]:
        return [publisher for publisher in (self._raw_publisher, self._jpeg_publisher) if publisher is not None]

    def _start_when_ready(self) -> None:
        """Start playing once nobody holds it back; runs until then."""
        watchers = sum(publisher.get_subscription_count() for publisher in self._image_publishers)
        if self._released and watchers >= self.settings.wait_for_subscribers:
            self._start_timer.cancel()
            self.player.play()

    def _on_play(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        started = self._start_timer.is_canceled()
        self._released = request.data
        if started and request.data:
            self.player.play()
        elif started:
            self.player.pause()
        response.success = not self.finished.done()
        response.message = "" if response.success else "the video is over; start the node again, or with loop:=true"
        return response

    def _publish(self, frame: Frame, stamp_ns: int) -> None:
        image = resize(frame.image, self.settings.width, self.settings.height)
        header = header_at(stamp_ns, self.settings.frame_id)
        height, width = image.shape[:2]
        self._info_publisher.publish(made_up_camera_info(width, height, self.settings.fov, header))
        if self._raw_publisher is not None:
            self._raw_publisher.publish(image_message(image, header))
        if self._jpeg_publisher is not None:
            self._jpeg_publisher.publish(jpeg_message(image, header, self.settings.jpeg_quality))

    def spin(self, executor: Executor) -> None:
        """Serve until the context is shut down, or the video is over and ``exit_at_end`` is set.

        Args:
            executor: What runs the callbacks.

        Raises:
            Exception: What ended the player, if it did not reach the end of the video.
        """
        rclpy.spin_until_future_complete(self, self.finished, executor)
        if self.player.error is not None:
            raise self.player.error
        if not self.finished.done():
            return
        self.get_logger().info(f"the video is over after {self.player.frames_sent} frames")
        if not self.settings.exit_at_end:
            rclpy.spin(self, executor)
        for publisher in [self._info_publisher, *self._image_publishers]:
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))


def _declare(node: Node, spec: Spec) -> object:
    # The type is checked by VideoSettings: rclpy would refuse rate:=15 with a traceback.
    descriptor = ParameterDescriptor(description=spec.description, read_only=True, dynamic_typing=True)
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    elif spec.limits:
        descriptor.additional_constraints = f"{spec.limits[0]}..{spec.limits[1]} {spec.unit}".strip()
    return node.declare_parameter(spec.name, spec.default, descriptor).value


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until its context is shut down.

    Args:
        args: Command line without the program's name; that of the process if omitted.

    Returns:
        The exit code: 0, 1 if the source broke while playing, 2 for a bad parameter or source.
    """
    gate = SignalGate()
    rclpy.init(args=None if args is None else list(args), signal_handler_options=NO_HANDLERS)
    node: VideoNode | None = None
    try:
        executor = SingleThreadedExecutor()
        node = VideoNode()
        if gate.open():
            with ends_with_rclpy():
                node.spin(executor)
    except (ElysiumError, ParameterException) as error:
        sys.stderr.write(f"video_node: {error}\n")
        return 2 if node is None else 1
    finally:
        if node is not None:
            node.player.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
