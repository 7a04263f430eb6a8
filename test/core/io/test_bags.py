"""Bags of ROS 2: read as recordings, written by ``elysium track``, and read again with nothing but what is in them."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from elysium_core.cli.app import app
from elysium_core.errors import BackendError, ConfigError, DataError, VideoError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.bag_recording import BagRecording
from elysium_core.io.bag_writer import BagWriter
from elysium_core.io.message_types import message_types
from elysium_core.io.video import open_video, read_picture
from elysium_core.types import TrackState, TrackUpdate

FRAMES, WIDTH, HEIGHT = 6, 64, 48
START_NS, STEP_NS, DELAY_NS = 1_700_000_000_000_000_000, 50_000_000, 3_000_000
IMAGE, INFO = "/camera/color/image_raw", "/camera/color/camera_info"
TRACK = ("--model", "identity", "--box", "0.25,0.25,0.75,0.75")
STORE = get_typestore(Stores.LATEST)


def pixels(number: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), (20 * number, 100, 200), np.uint8)


def header(number: int):
    sec, nanosec = divmod(START_NS + number * STEP_NS, 1_000_000_000)
    return message_types().new(
        "std_msgs/msg/Header",
        stamp=message_types().new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec),
        frame_id="camera_color_optical_frame",
    )


def raw(number: int, encoding: str = "rgb8"):
    data = pixels(number) if encoding == "rgb8" else np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    return message_types().new(
        "sensor_msgs/msg/Image",
        header=header(number),
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        step=data[0].size,
        data=data.ravel(),
    )


def compressed(number: int, content: bytes | None = None):
    _, jpeg = cv2.imencode(".jpg", pixels(number)[..., ::-1])
    data = jpeg.ravel() if content is None else np.frombuffer(content, np.uint8)
    return message_types().new("sensor_msgs/msg/CompressedImage", header=header(number), format="jpeg", data=data)


def calibration():
    return message_types().new(
        "sensor_msgs/msg/CameraInfo",
        header=header(0),
        width=WIDTH,
        height=HEIGHT,
        k=np.array([32.0, 0, 32, 0, 32, 24, 0, 0, 1]),
    )


def write_bag(path: Path, messages: dict[str, list], plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Write messages of each topic, in turns, as a camera sends them."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        topics = {
            topic: writer.add_connection(topic, content[0].__msgtype__, typestore=STORE)
            for topic, content in messages.items()
            if content
        }
        for number in range(max(map(len, messages.values()))):
            for topic, content in messages.items():
                if number < len(content):
                    data = STORE.serialize_cdr(content[number], content[number].__msgtype__)
                    writer.write(topics[topic], START_NS + number * STEP_NS + DELAY_NS, data)
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "raw"
    return write_bag(path, {IMAGE: [raw(number) for number in range(FRAMES)], INFO: [calibration()]})


@pytest.fixture(scope="module")
def elysium(invoke):
    return partial(invoke, app)


@pytest.fixture(scope="module")
def tracked(bag, elysium, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "out.mcap"
    outcome = elysium("track", bag, *TRACK, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


def messages_of(path: Path) -> dict[str, list]:
    """Return topic -> (time, message), read with the definitions that are embedded in the file alone."""
    found: dict[str, list] = {}
    with AnyReader([path]) as reader:
        for connection, time_ns, data in reader.messages():
            found.setdefault(connection.topic, []).append((time_ns, reader.deserialize(data, connection.msgtype)))
    return found


@pytest.mark.parametrize("make", [raw, compressed])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_the_images_of_a_bag_come_with_their_stamps(make, plugin, tmp_path):
    topic = IMAGE if make is raw else f"{IMAGE}/compressed"
    path = write_bag(tmp_path / "bag", {topic: [make(number) for number in range(FRAMES)]}, plugin)
    one_file = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    for source in (path, one_file):
        with open_video(source) as recording:
            frames = list(recording)
            assert (recording.width, recording.height, recording.frame_count) == (WIDTH, HEIGHT, FRAMES)
            assert recording.fps == pytest.approx(20)
            assert list(recording.problems()) == []
        assert [frame.stamp_ns for frame in frames] == [START_NS + number * STEP_NS for number in range(FRAMES)]
        assert [frame.index for frame in frames] == list(range(FRAMES))
        for number, frame in enumerate(frames):
            assert np.abs(frame.image.astype(int) - pixels(number)).max() <= (0 if make is raw else 4)
    assert read_picture(path).shape == (HEIGHT, WIDTH, 3)


def test_each_image_of_the_bag_has_its_messages_in_the_bag_that_track_writes(tracked):
    found = messages_of(tracked)
    assert set(found) == {
        f"/elysium/{name}" for name in ("objects", "annotated/image/compressed", "image_markers", "markers")
    }
    for topic, entries in found.items():
        assert [time for time, _ in entries] == [START_NS + n * STEP_NS + DELAY_NS for n in range(FRAMES)], topic
    for number, (_, message) in enumerate(found["/elysium/objects"]):
        stamp = message.header.stamp
        assert stamp.sec * 1_000_000_000 + stamp.nanosec == START_NS + number * STEP_NS
        assert message.header.frame_id == "camera_color_optical_frame"
        assert (message.image_width, message.image_height) == (WIDTH, HEIGHT)
        (item,) = message.objects
        assert (item.id, item.label, item.state, item.age) == (1, "target 1", item.STATE_TRACKED, number)
        assert (item.box.x_min, item.box.y_min, item.box.x_max, item.box.y_max) == (16, 12, 48, 36)


def test_the_pictures_and_markers_of_the_bag_show_the_box(tracked):
    found = messages_of(tracked)
    _, picture = found["/elysium/annotated/image/compressed"][3]
    drawn = cv2.imdecode(picture.data, cv2.IMREAD_COLOR)[..., ::-1]
    changed = np.abs(drawn.astype(int) - pixels(3)).max(axis=2) > 60
    assert changed[36, 20:44].mean() > 0.5, "the lower edge of the box"
    assert not changed[:6].any(), "above the box"
    _, lines = found["/elysium/image_markers"][3]
    assert {(point.x, point.y) for point in lines.points} == {(16, 12), (48, 12), (48, 36), (16, 36)}
    _, markers = found["/elysium/markers"][3]
    outline, label = markers.markers
    corners = np.array([(point.x, point.y, point.z) for point in outline.points[::2]])
    np.testing.assert_allclose(corners, [(-1, -0.75, 2), (1, 0.75, 2), (-1, -0.75, 2)])
    assert label.text == "1 target 1"


def test_the_definitions_in_the_bag_are_those_of_the_node(tracked):
    """A subscriber of the node and a reader of the bag must agree, so the hashes of the types do."""
    built = pytest.importorskip("elysium_ros.msg", reason="the package is not built").__file__
    prefix = next(folder for folder in Path(built).parents if (folder / "share" / "elysium_ros").is_dir())
    described = json.loads((prefix / "share" / "elysium_ros" / "msg" / "TrackedObjectArray.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in described["type_hashes"]}
    with AnyReader([tracked]) as reader:
        digests = {connection.msgtype: connection.digest for connection in reader.connections}
    store = message_types().store
    assert store.hash_rihs01("elysium_ros/msg/TrackedObjectArray") == hashes["elysium_ros/msg/TrackedObjectArray"]
    assert digests["elysium_ros/msg/TrackedObjectArray"] in ("", hashes["elysium_ros/msg/TrackedObjectArray"])


def test_a_video_can_be_tracked_into_a_bag_and_a_lost_target_has_no_outline(tmp_path):
    with BagWriter(tmp_path / "out.mcap", calibration()) as writer:
        last = Box(0.1, 0.1, 0.5, 0.5)
        lost = TrackUpdate("1", 0, None, 0.0, TrackState.LOST, expression="the mug", last_box=last)
        writer.write(Frame(pixels(1), stamp_ns=5_000_000_000), [lost])
    found = messages_of(tmp_path / "out.mcap")
    ((time_ns, message),) = found["/elysium/objects"]
    assert (time_ns, message.header.stamp.sec, message.objects[0].state) == (5_000_000_000, 5, 3)
    assert message.objects[0].box.x_max == pytest.approx(32)
    assert [marker.action for marker in found["/elysium/markers"][0][1].markers] == [2, 2]
    assert len(found["/elysium/image_markers"][0][1].points) == 0


def test_a_bag_can_be_resumed_into_lines_but_not_into_a_bag(bag, elysium, tmp_path):
    lines = tmp_path / "tracks.jsonl"
    assert elysium("track", bag, *TRACK, "-o", lines, "--limit", 2).code == 0
    assert elysium("track", bag, *TRACK, "-o", lines, "--resume").code == 0
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == list(range(FRAMES))
    outcome = elysium("track", bag, *TRACK, "-o", tmp_path / "out.mcap", "--resume")
    assert (outcome.code, "out.mcap" in outcome.err) == (2, True)


def test_an_unfinished_bag_is_not_left_behind(tmp_path):
    writer = BagWriter(tmp_path / "out.mcap")
    writer.write(Frame(pixels(1)), [])
    writer.__exit__(KeyboardInterrupt, None, None)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_not_written_over(bag, elysium, tmp_path):
    out = tmp_path / "out.mcap"
    out.write_bytes(b"somebody's recording")
    outcome = elysium("track", bag, *TRACK, "-o", out)
    assert (outcome.code, "out.mcap" in outcome.err) == (2, True)
    assert out.read_bytes() == b"somebody's recording"
    with pytest.raises(DataError) as caught:
        BagWriter(out)
    assert caught.value.code == "BAG_EXISTS"
    assert elysium("track", bag, *TRACK, "-o", tmp_path / "out.db3").code == 2


def test_an_image_that_cannot_be_decoded_is_skipped_and_its_number_left_out(tmp_path):
    content = [compressed(0), compressed(1, b"\xff\xd8 no picture"), compressed(2)]
    with open_video(write_bag(tmp_path / "bag", {IMAGE: content})) as recording:
        assert [frame.index for frame in recording] == [0, 2]
        assert [code for code, _ in recording.problems()] == ["FRAMES_SKIPPED"]


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    topics = {"/left/image": [raw(0)], "/right/image": [raw(1)], "/left/camera_info": [calibration()]}
    return write_bag(tmp_path_factory.mktemp("bags") / "several", topics)


@pytest.mark.parametrize(
    ("topic", "named"),
    [
        ("", ["/left/image", "/right/image"]),
        ("/rear/image", ["/rear/image", "/left/image", "/right/image"]),
        ("/left/camera_info", ["sensor_msgs/msg/CameraInfo", "/left/image"]),
    ],
)
def test_a_topic_that_is_not_chosen_or_not_there_is_one_sentence_with_those_that_are(several, topic, named):
    with pytest.raises(VideoError) as caught:
        open_video(several, topic=topic)
    assert caught.value.code == "BAG_TOPIC"
    assert [name for name in named if name not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def test_the_topic_that_is_named_is_read(several, elysium):
    outcome = elysium("track", several, *TRACK, "--topic", "right/image", "--json")
    assert [line["stamp_ns"] for line in outcome.lines] == [START_NS + STEP_NS]
    with open_video(several, topic="/right/image") as right, open_video(several, topic="/left/image") as left:
        assert left.fingerprint() != right.fingerprint()


def test_a_bag_without_images_says_what_it_holds(tmp_path):
    with pytest.raises(VideoError) as caught:
        open_video(write_bag(tmp_path / "bag", {INFO: [calibration()]}))
    assert caught.value.code == "BAG_TOPIC"
    assert "sensor_msgs/msg/CameraInfo" in str(caught.value)


def test_an_encoding_that_is_no_picture_is_named(tmp_path):
    with pytest.raises(VideoError) as caught:
        open_video(write_bag(tmp_path / "bag", {"/depth/image": [raw(0, "32FC1")]}))
    assert caught.value.code == "IMG_ENCODING"
    assert "32FC1" in str(caught.value)


def test_a_topic_for_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_video(tmp_path, topic="/camera/image")
    assert "/camera/image" in str(caught.value)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_bag_that_is_cut_off_is_one_sentence_or_a_shorter_recording(plugin, share, tmp_path):
    path = write_bag(tmp_path / "bag", {IMAGE: [raw(number) for number in range(FRAMES)]}, plugin)
    data = next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))
    data.write_bytes(data.read_bytes()[: int(data.stat().st_size * share)])
    for source in (path, data):
        try:
            with open_video(source) as recording:
                assert len(list(recording)) < FRAMES
                assert [code for code, _ in recording.problems()] == ["VIDEO_CUT"]
        except VideoError as error:
            assert error.code in ("BAG_DAMAGED", "VIDEO_EMPTY", "BAG_TOPIC")
            assert str(path) in str(error)
            assert "\n" not in str(error)


def test_messages_that_the_metadata_counts_and_the_file_lacks_are_told(tmp_path):
    path = write_bag(tmp_path / "bag", {IMAGE: [raw(0), raw(1)]})
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 2", "message_count: 5"))
    with open_video(path) as recording:
        assert len(list(recording)) == 2
        assert [code for code, _ in recording.problems()] == ["VIDEO_CUT"]


def test_a_folder_without_metadata_names_both_remedies(tmp_path):
    path = write_bag(tmp_path / "bag", {IMAGE: [raw(0)]})
    (path / "metadata.yaml").unlink()
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert caught.value.code == "BAG_DAMAGED"
    assert "ros2 bag reindex" in str(caught.value)
    assert ".mcap" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["rosbag2_bagfile_information:", "rosbag2_bagfile_information: [}", "a: rosbag2_bagfile_information"]
)
def test_damaged_metadata_is_one_sentence(text, tmp_path):
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(VideoError) as caught:
        open_video(tmp_path)
    assert caught.value.code == "BAG_DAMAGED"
    assert "\n" not in str(caught.value)


def test_without_rosbags_the_sentence_has_the_command_that_installs_it(bag, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rosbags"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(BackendError) as caught:
        BagRecording(bag)
    assert caught.value.code == "PACKAGE_MISSING"
    assert "pip install" in str(caught.value)
    assert "rosbags" in str(caught.value)
