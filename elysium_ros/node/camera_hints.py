"""The state of a camera's images, and what to tell a user whose images do not arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from elysium_ros.perception.camera_record import CameraHealth
from elysium_ros.perception.depth_source import DepthHealth

IMAGE_TYPES: Final = {"raw": Image, "compressed": CompressedImage}
"""Message type of each transport."""


@dataclass(frozen=True, slots=True)
class InputState:
    """State of the images of one camera.

    Attributes:
        camera: Name of the camera.
        topic: Resolved topic that is or will be subscribed to.
        publishers: Publishers of it.
        health: What became of the images since activation.
        qos_problem: Policy in which a publisher did not match since the last image, empty if all do.
        other_type: Type that is published on the topic instead of images of the expected type; empty if there is none.
        depth: What became of its depth images; None if there are none.
    """

    camera: str
    topic: str
    publishers: int
    health: CameraHealth = field(default_factory=CameraHealth)
    qos_problem: str = ""
    other_type: str = ""
    depth: DepthHealth | None = None


def type_name(transport: str) -> str:
    """Return the full name of a transport's message type."""
    return f"sensor_msgs/msg/{IMAGE_TYPES[transport].__name__}"


def silence_hint(node: Node, state: InputState, transport: str, prefix: str) -> str:
    """Return a sentence about why no image may be coming and what to do.

    Args:
        node: The node.
        state: The camera.
        transport: Transport that is listened to, ``raw`` or ``compressed``.
        prefix: What comes before ``image`` in the names of the camera's topics.
    """
    start = f"no image on {state.topic} ({type_name(transport)}) for {state.health.silence_s:.0f} s: "
    if state.other_type:
        return f"{start}what is published there is {state.other_type}{_remedy(state, prefix)}"
    publishers = [_publisher_text(info) for info in node.get_publishers_info_by_topic(state.topic)]
    if publishers and state.qos_problem:
        parameter = f"qos_overrides.{state.topic}.subscription.{state.qos_problem.lower()}"
        names = "; ".join(publishers)
        return f"{start}its publisher does not match in {state.qos_problem} ({names}); set {parameter}"
    if publishers:
        return f"{start}it is published by {'; '.join(publishers)}, but nothing arrives"
    if others := _other_topics(node, type_name(transport)):
        return f"{start}nobody publishes it; there is {', '.join(others)} (remap {prefix}image:={others[0]})"
    nobody = f"{start}nobody publishes it, and there is no other topic of that type"
    other = "raw" if transport == "compressed" else "compressed"
    if others := _other_topics(node, type_name(other)):
        return f"{nobody}; there is {', '.join(others)} ({_setting(other, others[0], prefix)})"
    return nobody


def _remedy(state: InputState, prefix: str) -> str:
    for transport in IMAGE_TYPES:
        if state.other_type == type_name(transport):
            return f"; {_setting(transport, state.topic, prefix)}"
    return ", which holds no images; remap image to a topic that does"


def _setting(transport: str, topic: str, prefix: str) -> str:
    """Say how to listen to a topic of a transport."""
    base = topic.removesuffix("/compressed")
    if transport == "raw" or base != topic:
        return f"set image_transport to {transport} and {prefix}image:={base if transport == 'compressed' else topic}"
    return f"set image_transport to {transport} and {prefix}image/compressed:={topic}"


def _other_topics(node: Node, wanted: str) -> list[str]:
    """Return topics of a type that somebody else publishes, sorted."""
    own = node.get_fully_qualified_name() + "/"
    names = [name for name, types in node.get_topic_names_and_types() if wanted in types]
    return sorted(name for name in names if not name.startswith(own) and node.count_publishers(name))


def _publisher_text(info: Any) -> str:
    name, qos = f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.qos_profile
    return f"{name} ({qos.reliability.name.lower()}, {qos.durability.name.lower()})"
