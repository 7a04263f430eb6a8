"""The subscriptions of the cameras, and hints for a user whose images do not arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from elysium_core.errors import ConfigError
from elysium_ros.convert.messages import StampError, stamp_to_ns
from elysium_ros.node.camera_hints import IMAGE_TYPES, InputState, silence_hint, type_name
from elysium_ros.node.depth_input import DepthInput
from elysium_ros.node.executors import CameraGroup
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.node.parameter_server import ParameterServer
from elysium_ros.perception.camera import Mailbox
from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.perception.frame_statistics import Statistics
from elysium_ros.perception.time_line import Verdict

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

_FUTURE_NS: Final = 1_000_000_000
# A hint about a camera that stays silent is repeated this often.
_HINT_PERIOD_S: Final = 5.0


class CameraInput:
    """Stores the images of one camera in its mailbox; nothing is decoded or copied in a callback.

    Exceptions of its callbacks are reported by the camera thread (:func:`elysium_ros.node.executors.spin`).
    With the transport ``auto``, :meth:`poll` subscribes to what is published, and follows a camera that changes it.

    Attributes:
        calibration: Newest calibration of the camera; None if none has come.

    Args:
        node: The node.
        mailbox: Where images go.
        parameters: The node's parameters.
        statistics: Counts images.
    """

    def __init__(
        self, node: ManagedNode, mailbox: Mailbox, parameters: ParameterServer, statistics: Statistics
    ) -> None:
        self.calibration: CameraInfo | None = None
        self._node = node
        self._mailbox = mailbox
        self._parameters = parameters
        self._statistics = statistics
        self._prefix = f"{mailbox.camera}/" if mailbox.camera else ""
        # One group for each camera keeps its images in order.
        self._group = CameraGroup()
        self._subscriptions: list[Subscription] = []
        self._images: Subscription | None = None
        self._is_auto = parameters.settings.image_transport == "auto"
        self._transport = "raw" if self._is_auto else parameters.settings.image_transport
        self._qos_problem = ""
        self._hinted_at_s = float("-inf")

    def open(self) -> None:
        """Subscribe to calibration and depth, and to the images unless the transport is ``auto``.

        Raises:
            ConfigError: The QoS overrides of a subscription cannot be used.
        """
        try:
            self._create(CameraInfo, self._node.resolve_topic_name(f"{self._prefix}camera_info"), self._on_calibration)
            if self._mailbox.depth is not None:
                depth = DepthInput(self._node, self._mailbox.depth, self._prefix, self._group)
                self._subscriptions += depth.open()
            if not self._is_auto:
                self._subscribe(self._transport)
        except (InvalidQosOverridesError, RuntimeError) as error:
            raise ConfigError(f"the QoS of an image subscription cannot be used: {error}") from error

    def poll(self) -> None:
        """With the transport ``auto``: subscribe to a topic that has a publisher, raw images before others.

        One that is subscribed to is kept for as long as somebody publishes there.
        """
        if not self._is_auto:
            return
        published = [name for name in IMAGE_TYPES if self._published_types(self.topic(name), name)]
        if not published or (self._images is not None and self._transport in published):
            return
        if self._images is not None:
            self._subscriptions.remove(self._images)
            self._node.destroy_subscription(self._images)
            self._node.get_logger().info(f"the images now come as {self.topic(published[0])}")
        self._subscribe(published[0])

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._images = None

    def topic(self, transport: str) -> str:
        """Return the resolved topic of a transport, ``raw`` or ``compressed``.

        As in image_transport, the compressed topic follows a remapping of the image topic unless it is remapped itself.
        """
        base = f"{self._prefix}image"
        resolved = self._node.resolve_topic_name(base)
        if transport != "compressed":
            return str(resolved)
        own = self._node.resolve_topic_name(f"{base}/compressed")
        unmapped = self._node.resolve_topic_name(f"{base}/compressed", only_expand=True)
        return str(own if own != unmapped else f"{resolved}/compressed")

    def state(self) -> InputState:
        """Return the state now."""
        topic, health = self.topic(self._transport), self._mailbox.record.health()
        publishers = self._node.count_publishers(topic)
        is_silent = health.silence_s >= self._parameters.settings.frame_timeout_s
        other_type = self._other_type(topic) if publishers and is_silent else ""
        depth = None if self._mailbox.depth is None else self._mailbox.depth.health()
        return InputState(self._mailbox.camera, topic, publishers, health, self._qos_problem, other_type, depth)

    def warn_if_silent(self) -> None:
        """Log a hint, not too often, if no image has come for longer than ``frame_timeout``."""
        state, now_s = self.state(), time.monotonic()
        is_silent = state.health.silence_s >= self._parameters.settings.frame_timeout_s
        if is_silent and now_s - self._hinted_at_s >= _HINT_PERIOD_S:
            self._hinted_at_s = now_s
            code = "CAM_TIMEOUT" if state.health.received else "CAM_NOT_RECEIVED"
            code = "TOPIC_TYPE" if state.other_type else code
            self._node.get_logger().warning(f"{code}: {self.hint()}")

    def hint(self) -> str:
        """Return a sentence about why no image may be coming and what to do."""
        return silence_hint(self._node, self.state(), self._transport, self._prefix)

    def _published_types(self, topic: str, transport: str) -> list[str]:
        """Return the publishers' types of a topic that are those of a transport."""
        types = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
        return [name for name in types if name == type_name(transport)]

    def _other_type(self, topic: str) -> str:
        """Return the type that is published on a topic if nobody publishes the expected one."""
        types = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
        return types[0] if types and type_name(self._transport) not in types else ""

    def _subscribe(self, transport: str) -> None:
        self._transport, self._qos_problem = transport, ""
        self._images = self._create(IMAGE_TYPES[transport], self.topic(transport), self._on_image)

    def _create(self, message_type: Any, topic: str, callback: Callable[[Any], None]) -> Subscription:
        # What rclpy calls sensor data; made anew each time because overrides are written into it.
        qos = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        overridable = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        on_lost = None if message_type is CameraInfo else self._on_images_lost

        def subscribe(message_lost: Callable[[Any], None] | None) -> Subscription:
            return self._node.create_subscription(
                message_type,
                topic,
                callback,
                qos,
                callback_group=self._group,
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=self._on_incompatible_qos, message_lost=message_lost
                ),
                qos_overriding_options=QoSOverridingOptions(overridable),
            )

        try:
            subscription = subscribe(on_lost)
        except UnsupportedEventTypeError:  # a middleware that does not count what it loses
            subscription = subscribe(None)
        self._subscriptions.append(subscription)
        return subscription

    def _on_image(self, message: Any) -> None:
        self._qos_problem = ""
        self._statistics.image_received()
        try:
            stamp_ns = stamp_to_ns(message.header.stamp)
        except StampError as error:
            self._mailbox.refuse(self._node.guard.report(error))
            return
        age_ns = self._node.get_clock().now().nanoseconds - stamp_ns if stamp_ns else 0
        if self._is_too_old(stamp_ns, age_ns):
            return
        verdict = self._mailbox.put(stamp_ns, message, len(message.data), ahead=age_ns < -_FUTURE_NS)
        if verdict is Verdict.OUT_OF_ORDER:
            reason = f"an image with the stamp {stamp_ns} ns came after one as new or newer and was dropped"
            self._mailbox.record.image_refused(self._report("STAMP_ORDER", reason))
        elif verdict is Verdict.TIME_JUMP:
            self._report(
                "TIME_JUMP",
                f"the stamps go on from {stamp_ns} ns, which is earlier; what has words is searched for again",
            )

    def _is_too_old(self, stamp_ns: int, age_ns: int) -> bool:
        if stamp_ns == 0:
            self._report("STAMP_ZERO", "the camera sets no stamps, so there is no latency and no check of the order")
            return False
        limit_s = self._parameters.settings.max_frame_age_s
        if limit_s and age_ns > limit_s * 1e9:
            reason = f"an image {age_ns / 1e9:.2f} s old was dropped (max_frame_age = {limit_s:g} s)"
            self._mailbox.refuse(self._report("FRAME_AGE", reason))
            return True
        if age_ns < -_FUTURE_NS:
            self._report("STAMP_FUTURE", f"an image is stamped {-age_ns / 1e9:.1f} s ahead of this node's clock")
        return False

    def _report(self, code: str, message: str) -> str:
        self._node.events.report(code, f"{self.topic(self._transport)}: {message}")
        return f"{code}: {message}"

    def _on_calibration(self, message: CameraInfo) -> None:
        self.calibration = message
        if self._mailbox.depth is not None:
            self._mailbox.depth.calibrate(message, of_depth=False)

    def _on_images_lost(self, event: Any) -> None:
        self._mailbox.record.images_lost(signed(int(event.total_count_change)))

    def _on_incompatible_qos(self, event: Any) -> None:
        self._qos_problem = str(qos_policy_name_from_kind(event.last_policy_kind))
        self._report("QOS_INCOMPATIBLE", f"a publisher does not match in {self._qos_problem}; nothing comes from it")


class CameraInputs:
    """The inputs of all cameras, while the node is active.

    Args:
        node: The node.
        parameters: Its parameters.
        statistics: Counts images.
    """

    def __init__(self, node: ManagedNode, parameters: ParameterServer, statistics: Statistics) -> None:
        self._node = node
        self._parameters = parameters
        self._statistics = statistics
        self._inputs: dict[str, CameraInput] = {}

    def open(self, mailboxes: Sequence[Mailbox]) -> None:
        """Subscribe to the cameras.

        Args:
            mailboxes: Where the images go, one for each camera.

        Raises:
            ConfigError: The QoS overrides of a subscription cannot be used; :meth:`close` ends the others.
        """
        for mailbox in mailboxes:
            camera_input = CameraInput(self._node, mailbox, self._parameters, self._statistics)
            self._inputs[mailbox.camera] = camera_input
            camera_input.open()

    def close(self) -> None:
        """End all subscriptions."""
        inputs, self._inputs = self._inputs, {}
        for camera_input in inputs.values():
            camera_input.close()

    def check(self) -> None:
        """Subscribe where a publisher has appeared, and log a hint about each camera that is silent."""
        for camera_input in list(self._inputs.values()):
            camera_input.poll()
            camera_input.warn_if_silent()

    def states(self) -> list[InputState]:
        """Return the state of each camera; empty while the node is not active."""
        return [camera_input.state() for camera_input in list(self._inputs.values())]

    def calibration(self, camera: str) -> CameraInfo | None:
        """Return the newest calibration of a camera, None if there is none."""
        camera_input = self._inputs.get(camera)
        return None if camera_input is None else camera_input.calibration

    def health(self, camera: str) -> CameraHealth:
        """Return what became of the images of a camera; as of a camera without images if there is no such one."""
        states = [state for state in self.states() if state.camera == camera]
        return states[0].health if states else CameraHealth()

    def hint(self, camera: str) -> str:
        """Return a sentence about why no image of a camera may be coming."""
        camera_input = self._inputs.get(camera)
        return "the node is not active" if camera_input is None else camera_input.hint()


def signed(count: int) -> int:
    """A change of a count, which the middleware gives as 64 bits without a sign, with its sign."""
    return count - (1 << 64) if count >= 1 << 63 else count
