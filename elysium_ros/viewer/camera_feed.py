"""The topics of one camera that a page looks at: its images, and what the tracker says about them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from elysium_core.errors import ElysiumError
from elysium_core.viewer.backend import Picture, encode_jpeg
from elysium_core.viewer.protocol import State, TargetView
from elysium_ros.convert.images import decode_image
from elysium_ros.convert.messages import STATE_NAMES, StampError, stamp_to_ns
from elysium_ros.msg import TrackedObject, TrackedObjectArray
from elysium_ros.viewer.picture_pairs import PicturePairs

_SENSOR_DATA = QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
_RESULTS = QoSProfile(depth=10)
_LARGEST_PASSED_ON = 2 << 20
_COMPLAINT_PERIOD_S = 5.0


class CameraFeed:
    """Subscribes to one camera while a page shows it.

    Attributes:
        size: Width and height of the newest image [px]; None before the first.

    Args:
        node: What the subscriptions are made on.
        camera: Name of the camera; empty for the only one.
        tracker: Full name of the tracker node.
        transport: ``raw``, ``compressed`` or ``auto``.
        deliver: Where pictures go.
        tell: Where faults go: code and sentence.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        tracker: str,
        transport: str,
        deliver: Callable[[Picture], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self.size: tuple[int, int] | None = None
        self._node = node
        self._camera = camera
        self._transport = transport
        self._deliver = deliver
        self._tell = tell
        self.pairs = PicturePairs(self._show)
        self._told_at_s: dict[str, float] = {}
        self._prefix = f"{camera}/" if camera else ""
        self._objects_topic = f"{tracker}/{self._prefix}objects"
        self._subscriptions: list[Subscription] = []
        self._images: Subscription | None = None
        self._images_topic = ""

    @property
    def is_open(self) -> bool:
        """Whether a page looks at it."""
        return bool(self._subscriptions)

    def open(self) -> None:
        """Subscribe."""
        objects = self._node.create_subscription(TrackedObjectArray, self._objects_topic, self._on_objects, _RESULTS)
        self._subscriptions = [objects]
        self.poll()

    def close(self) -> None:
        """End the subscriptions, and forget images."""
        for subscription in (*self._subscriptions, self._images):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        self._subscriptions, self._images, self._images_topic = [], None, ""
        self.pairs.forget()

    def poll(self) -> None:
        """Subscribe to the images in the form in which they are published; compressed ones come first here.

        A page is sent JPEG, so a camera's own JPEG is the cheapest.
        """
        if not self.is_open:
            return
        wanted = {"raw": ["raw"], "compressed": ["compressed"]}.get(self._transport, ["compressed", "raw"])
        topics = {transport: self._topic(transport) for transport in wanted}
        published = [name for name, topic in topics.items() if self._node.count_publishers(topic)]
        if not published or self._images_topic in [topics[name] for name in published]:
            return
        if self._images is not None:
            self._node.destroy_subscription(self._images)
        kind, self._images_topic = (Image if published[0] == "raw" else CompressedImage), topics[published[0]]
        self._images = self._node.create_subscription(kind, self._images_topic, self._on_image, _SENSOR_DATA)

    def waits_for(self) -> str:
        """Return what is waited for if there are no images, in one sentence; empty if somebody publishes them."""
        if self._images_topic and self._node.count_publishers(self._images_topic):
            return ""
        return f"nobody publishes images on {self._topic('raw')}; start the camera, or remap image"

    def _topic(self, transport: str) -> str:
        base = str(self._node.resolve_topic_name(f"{self._prefix}image"))
        return base if transport == "raw" else f"{base}/compressed"

    def _complain(self, error: ElysiumError) -> None:
        """Tell a fault, the same one not too often: it may come with every image."""
        now_s = time.monotonic()
        if now_s - self._told_at_s.get(error.code, float("-inf")) >= _COMPLAINT_PERIOD_S:
            self._told_at_s[error.code] = now_s
            self._tell(error.code, str(error))

    def _on_image(self, message: Any) -> None:
        try:
            stamp_ns = stamp_to_ns(message.header.stamp)
        except StampError as error:
            self._complain(error)
            return
        self.pairs.image(stamp_ns, message, len(message.data))

    def _on_objects(self, message: TrackedObjectArray) -> None:
        self.size = message.image_width, message.image_height
        self.pairs.result(stamp_to_ns(message.header.stamp), message)

    def _show(self, image: Any, result: TrackedObjectArray | None) -> None:
        if result is not None:
            width, height = result.image_width, result.image_height
        elif isinstance(image, Image):
            width, height = image.width, image.height
        else:
            width, height = self.size or (0, 0)
        encode: Callable[[], bytes] = partial(jpeg_of, image)
        if not width or not height:
            # Only its content says how large a compressed image is, and nothing else has said it yet.
            try:
                pixels = decode_image(image)
            except ElysiumError as error:
                self._complain(error)
                return
            (height, width), encode = pixels.shape[:2], partial(encode_jpeg, pixels)
        self.size = width, height
        targets = () if result is None else tuple(target_view(tracked, width, height) for tracked in result.objects)
        stamp_ns = stamp_to_ns(image.header.stamp)
        self._deliver(Picture(self._camera, stamp_ns, width, height, targets, result is not None, encode))


def jpeg_of(image: Any) -> bytes:
    """Return an image as JPEG; one that is a JPEG of moderate size already is passed on.

    Raises:
        ImageError: It cannot be decoded.
    """
    if isinstance(image, CompressedImage) and len(image.data) <= _LARGEST_PASSED_ON:
        data = bytes(image.data)
        if data.startswith(b"\xff\xd8"):
            return data
    return encode_jpeg(decode_image(image))


def target_view(tracked: TrackedObject, width: int, height: int) -> TargetView:
    """Return what the page shows of an object.

    Args:
        tracked: The message.
        width: Width of the image [px].
        height: Height of the image [px].
    """
    box = tracked.box
    corners = (box.x_min / width, box.y_min / height, box.x_max / width, box.y_max / height)
    is_box = box.x_max > box.x_min and box.y_max > box.y_min and all(map(math.isfinite, corners))
    return TargetView(
        id=str(tracked.id),
        words=tracked.expression,
        state=cast("State", STATE_NAMES.get(tracked.state, "STALE")),
        box=corners if is_box else None,
        score=float(tracked.score) if math.isfinite(tracked.score) else 0.0,
        text=tracked.description,
    )
