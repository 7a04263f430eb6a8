"""The subscriptions of the cameras, and hints for a user whose images do not arrive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from elysium_core.errors import ConfigError
from elysium_ros.convert.messages import StampError, stamp_to_ns
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

_TYPES: Final = {"raw": Image, "compressed": CompressedImage}
_FUTURE_NS: Final = 1_000_000_000
# A hint about a camera that stays silent is repeated this often.
_HINT_PERIOD_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class InputState:
    """State of the images of one camera.

    Attributes:
        camera: Name of the camera.
        topic: Resolved topic that is or will be subscribed to.
        publishers: Publishers of it.
        health: What became of the images since activation.
        qos_problem: Policy in which a publisher did not match since the last image, empty if all do.
    """

    camera: str
    topic: str
    publishers: int
    health: CameraHealth = field(default_factory=CameraHealth)
    qos_problem: str = ""


class CameraInput:
    """Stores the images of one camera in its mailbox; nothing is decoded or copied in a callback.

    Exceptions of its callbacks are reported by the camera thread (:func:`elysium_ros.node.executors.spin`).
    With the transport ``auto``, :meth:`poll` subscribes once somebody publishes.

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
        self._transport = parameters.settings.image_transport
        self._qos_problem = ""
        self._hinted_at_s = float("-inf")

    def open(self) -> None:
        """Subscribe to the calibration, and to the images unless the transport is ``auto``.

        Raises:
            ConfigError: The QoS overrides of a subscription cannot be used.
        """
        try:
            self._create(CameraInfo, self._node.resolve_topic_name(f"{self._prefix}camera_info"), self._on_calibration)
            if self._transport != "auto":
                self._subscribe(self._transport)
        except (InvalidQosOverridesError, RuntimeError) as error:
            raise ConfigError(f"the QoS of an image subscription cannot be used: {error}") from error

    def poll(self) -> None:
        """With the transport ``auto``: subscribe to the first topic that has a publisher, raw images before others."""
        if self._transport != "auto":
            return
        if published := [name for name in _TYPES if self._node.count_publishers(self.topic(name))]:
            self._subscribe(published[0])

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

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
        topic = self.topic(self._transport)
        return InputState(
            self._mailbox.camera,
            topic,
            self._node.count_publishers(topic),
            self._mailbox.record.health(),
            self._qos_problem,
        )

    def warn_if_silent(self) -> None:
        """Log a hint, not too often, if no image has come for longer than ``frame_timeout``."""
        state, now_s = self.state(), time.monotonic()
        is_silent = state.health.silence_s >= self._parameters.settings.frame_timeout_s
        if is_silent and now_s - self._hinted_at_s >= _HINT_PERIOD_S:
            self._hinted_at_s = now_s
            code = "CAM_TIMEOUT" if state.health.received else "CAM_NOT_RECEIVED"
            self._node.get_logger().warning(f"{code}: {self.hint()}")

    def hint(self) -> str:
        """Return a sentence about why no image may be coming and what to do."""
        state = self.state()
        type_name = f"sensor_msgs/msg/{_TYPES.get(self._transport, Image).__name__}"
        start = f"no image on {state.topic} ({type_name}) for {state.health.silence_s:.0f} s: "
        publishers = [_publisher_text(info) for info in self._node.get_publishers_info_by_topic(state.topic)]
        if publishers and state.qos_problem:
            parameter = f"qos_overrides.{state.topic}.subscription.{state.qos_problem.lower()}"
            names = "; ".join(publishers)
            return f"{start}its publisher does not match in {state.qos_problem} ({names}); set {parameter}"
        if publishers:
            return f"{start}it is published by {'; '.join(publishers)}, but nothing arrives"
        others = _other_topics(self._node, type_name)
        if others:
            return f"{start}nobody publishes it; there is {', '.join(others)} (remap {self._prefix}image:={others[0]})"
        return f"{start}nobody publishes it, and there is no other topic of that type"

    def _subscribe(self, transport: str) -> None:
        self._transport = transport
        self._create(_TYPES[transport], self.topic(transport), self._on_image)

    def _create(self, message_type: Any, topic: str, callback: Callable[[Any], None]) -> None:
        # What rclpy calls sensor data; made anew each time because overrides are written into it.
        qos = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
        overridable = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos)
        if message_type is not CameraInfo:
            events.message_lost = self._on_images_lost

        def subscribe() -> Subscription:
            return self._node.create_subscription(
                message_type,
                topic,
                callback,
                qos,
                callback_group=self._group,
                event_callbacks=events,
                qos_overriding_options=QoSOverridingOptions(overridable),
            )

        try:
            self._subscriptions.append(subscribe())
        except UnsupportedEventTypeError:  # a middleware that does not count what it loses
            events.message_lost = None
            self._subscriptions.append(subscribe())

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

    def _on_images_lost(self, event: Any) -> None:
        self._mailbox.record.images_lost(int(event.total_count_change))

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


def _other_topics(node: ManagedNode, type_name: str) -> list[str]:
    """Return topics of a type that somebody else publishes, sorted."""
    own = node.get_fully_qualified_name() + "/"
    names = [name for name, types in node.get_topic_names_and_types() if type_name in types]
    return sorted(name for name in names if not name.startswith(own) and node.count_publishers(name))


def _publisher_text(info: Any) -> str:
    name, qos = f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.qos_profile
    return f"{name} ({qos.reliability.name.lower()}, {qos.durability.name.lower()})"
