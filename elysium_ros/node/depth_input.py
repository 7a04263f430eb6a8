"""The subscriptions of one camera's depth images and of their calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image

from elysium_ros.convert.messages import StampError, stamp_to_ns
from elysium_ros.node.lifecycle import ManagedNode
from elysium_ros.perception.depth_source import DepthSource


class DepthInput:
    """Passes depth images on; nothing is decoded or copied in a callback.

    Args:
        node: The node.
        source: Where they go.
        prefix: What comes before ``depth/image`` in the names of the camera's topics.
        group: The callback group of the camera.
    """

    def __init__(self, node: ManagedNode, source: DepthSource, prefix: str, group: CallbackGroup) -> None:
        self._node = node
        self._source = source
        self._group = group
        self._image_name, self._info_name = f"{prefix}depth/image", f"{prefix}depth/camera_info"
        source.listen(node.resolve_topic_name(self._image_name))

    def open(self) -> list[Subscription]:
        """Subscribe; return the subscriptions.

        Raises:
            InvalidQosOverridesError, RuntimeError: The QoS overrides of a subscription cannot be used.
        """
        return [
            self._subscribe(Image, self._image_name, self._on_depth),
            self._subscribe(CameraInfo, self._info_name, self._on_calibration),
        ]

    def _subscribe(self, message_type: Any, name: str, callback: Callable[[Any], None]) -> Subscription:
        overridable = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
        return self._node.create_subscription(
            message_type,
            self._node.resolve_topic_name(name),
            callback,
            QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions(overridable),
        )

    def _on_depth(self, message: Image) -> None:
        try:
            self._source.put(stamp_to_ns(message.header.stamp), message)
        except StampError as error:
            self._node.guard.report(error)

    def _on_calibration(self, message: CameraInfo) -> None:
        self._source.calibrate(message, of_depth=True)
