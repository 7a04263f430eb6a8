"""What a user is told whose images do not arrive."""

from types import SimpleNamespace

import pytest

from elysium_ros.node.camera_hints import InputState, silence_hint

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


class Graph:
    """The part of a node that knows who publishes what."""

    def __init__(self, **topics):
        self._topics = {f"/{name.replace('__', '/')}": kind for name, kind in topics.items()}

    def get_fully_qualified_name(self):
        return "/elysium"

    def get_topic_names_and_types(self):
        return [(name, [kind]) for name, kind in self._topics.items()]

    def count_publishers(self, topic):
        return int(topic in self._topics)

    def get_publishers_info_by_topic(self, topic):
        qos = SimpleNamespace(reliability=SimpleNamespace(name="RELIABLE"), durability=SimpleNamespace(name="VOLATILE"))
        info = SimpleNamespace(node_namespace="/", node_name="camera", qos_profile=qos)
        return [info] if topic in self._topics else []


@pytest.mark.parametrize(
    ("graph", "topic", "other_type", "transport", "said"),
    [
        (Graph(), "/image", "", "raw", "no other topic of that type"),
        (Graph(cam=RAW), "/image", "", "raw", "remap image:=/cam"),
        (Graph(image=RAW), "/image", "", "raw", "published by /camera (reliable, volatile)"),
        (Graph(cam__compressed=COMPRESSED), "/image", "", "raw", "set image_transport to compressed and image:=/cam)"),
        (Graph(cam=RAW), "/image/compressed", "", "compressed", "set image_transport to raw and image:=/cam"),
        (Graph(), "/cam/raw/compressed", COMPRESSED, "raw", "set image_transport to compressed and image:=/cam/raw"),
        (Graph(), "/jpegs", COMPRESSED, "raw", "set image_transport to compressed and image/compressed:=/jpegs"),
        (Graph(), "/cam/compressed", RAW, "compressed", "set image_transport to raw and image:=/cam/compressed"),
        (Graph(), "/image", "std_msgs/msg/String", "raw", "std_msgs/msg/String, which holds no images"),
    ],
)
def test_the_hint_names_what_there_is_and_what_to_set(graph, topic, other_type, transport, said):
    assert said in silence_hint(graph, InputState("", topic, 1, other_type=other_type), transport, "")


def test_a_camera_with_a_name_is_remapped_by_its_name():
    hint = silence_hint(Graph(cam=RAW), InputState("front", "/front/image", 0), "raw", "front/")
    assert "remap front/image:=/cam" in hint
