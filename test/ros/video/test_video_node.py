"""The video node: its settings, its player, its messages, and the process as a whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool

from elysium_core.errors import ConfigError, VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.render import open_writer
from elysium_ros.client.node_process import NodeProcess
from elysium_ros.client.tracker_client import TrackerClient, spinning, wait_until
from elysium_ros.convert.images import compressed_to_rgb, image_to_rgb
from elysium_ros.convert.messages import header_at, image_message, jpeg_message, made_up_camera_info, resize
from elysium_ros.video.player import VIDEO_SPECS, VideoPlayer, VideoSettings

FRAMES, FPS, WIDTH, HEIGHT = 8, 20, 64, 48
MODULE = "elysium_ros.video.video_node"
# Nothing takes this long on an idle machine; on a busy one a process may need it to start.
DEADLINE_S = 60.0


def gray(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height, width, 3), 20 + 20 * index, np.uint8)


class Slides(Recording):
    """Eight gray pictures, each brighter than the one before."""

    name, width, height, fps = "slides", WIDTH, HEIGHT, float(FPS)

    def __init__(self, *, is_live: bool = False, breaks: bool = False, start_ns: int = 0) -> None:
        self.is_live = is_live
        self.start_ns = start_ns
        self.breaks = breaks

    def __iter__(self) -> Iterator[Frame]:
        for index in range(FRAMES):
            yield Frame(gray(index), self.start_ns + round(index * 1e9 / FPS), index)
        if self.breaks:
            raise VideoError("the cable is out")


def play(recording: Recording, *, count: int = FRAMES, **options: object) -> tuple[VideoPlayer, list[tuple[int, int]]]:
    """Play until ``count`` frames came or the end; return the player and (index, stamp) of each frame."""
    seen: list[tuple[int, int]] = []
    ended: list[bool] = []
    player = VideoPlayer(
        recording,
        lambda frame, stamp: seen.append((frame.index, stamp)),
        lambda: 5_000_000_000,
        on_end=lambda: ended.append(True),
        **options,  # type: ignore[arg-type]
    )
    player.play()
    player.start()
    wait_until(lambda: bool(ended) or len(seen) >= count, DEADLINE_S, "the player sent too little")
    player.close()
    return player, seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", -1.0),
        ("rate", float("nan")),
        ("loop", 1),
        ("stamps", "soon"),
        ("width", 1.5),
        ("source", ""),
        ("fov", 180),
    ],
)
def test_a_bad_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        VideoSettings.from_values({"source": "video.mp4", name: value})


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"rate.*loop.*fov"):
        VideoSettings.from_values({"rate": -1.0, "loop": "yes", "fov": 0.0})


def test_numbers_mean_what_a_person_meant() -> None:
    settings = VideoSettings.from_values({"source": 0, "rate": 15})
    assert (settings.source, settings.rate) == ("0", 15.0)


def test_the_defaults_are_valid_but_for_the_missing_source() -> None:
    values = {name: spec.default for name, spec in VIDEO_SPECS.items()}
    assert VideoSettings.from_values({**values, "source": "video.mp4"}) == VideoSettings(source="video.mp4")


def test_frames_come_in_order_with_the_stamps_of_the_video() -> None:
    player, seen = play(Slides(), stamps="video", rate_hz=200.0)
    assert seen == [(index, 5_000_000_000 + index * 5_000_000) for index in range(FRAMES)]
    assert player.frames_sent == FRAMES


def test_frames_are_not_early() -> None:
    begin = time.monotonic()
    play(Slides(), rate_hz=50.0)
    assert time.monotonic() - begin >= (FRAMES - 1) / 50.0


def test_stamps_go_on_when_the_video_starts_over() -> None:
    _, seen = play(Slides(), count=2 * FRAMES, stamps="video", rate_hz=500.0, loop=True)
    stamps = [stamp for _, stamp in seen]
    assert [index for index, _ in seen[: 2 * FRAMES]] == 2 * list(range(FRAMES))
    assert set(np.diff(stamps)) == {2_000_000}


def test_a_bag_whose_stamps_are_times_of_day_is_played_and_started_over_at_once() -> None:
    _, seen = play(Slides(start_ns=1_700_000_000_000_000_000), count=2 * FRAMES, stamps="video", loop=True)
    assert [stamp for _, stamp in seen[: 2 * FRAMES]] == [
        5_000_000_000 + n * 1_000_000_000 // FPS for n in range(2 * FRAMES)
    ]


def test_nothing_is_sent_before_play() -> None:
    seen: list[Frame] = []
    player = VideoPlayer(Slides(), lambda frame, stamp: seen.append(frame), time.time_ns)
    player.start()
    player.close()
    assert seen == []


def test_it_pauses_by_itself_and_goes_on() -> None:
    seen: list[int] = []
    player = VideoPlayer(
        Slides(), lambda frame, stamp: seen.append(frame.index), time.time_ns, rate_hz=500.0, pause_after=2
    )
    player.play()
    player.start()
    wait_until(lambda: player.is_paused, DEADLINE_S, "it did not pause")
    assert seen == [0, 1]
    player.play()
    wait_until(lambda: len(seen) == FRAMES, DEADLINE_S, "it did not go on")
    player.close()


def test_a_camera_is_stamped_now_and_thinned_out() -> None:
    # All eight pictures arrive at once; a camera asked for 1 Hz has time for the first only.
    _, seen = play(Slides(is_live=True), stamps="video", rate_hz=1.0)
    assert seen == [(0, 5_000_000_000)]


def test_a_source_that_breaks_is_reported() -> None:
    player, seen = play(Slides(breaks=True), count=FRAMES + 1, rate_hz=500.0)
    assert len(seen) == FRAMES
    assert str(player.error) == "the cable is out"


def test_an_image_message_holds_the_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    # A slice is not contiguous in memory; the message must be.
    message = image_message(rgb[:, 1:], header_at(1_000_000_007, "eye"))
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id) == (1, 7, "eye")
    np.testing.assert_array_equal(image_to_rgb(message), rgb[:, 1:])


def test_a_jpeg_message_decodes_to_the_picture() -> None:
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[..., 0] = 200
    decoded = compressed_to_rgb(jpeg_message(rgb, header_at(0, "eye")))
    np.testing.assert_allclose(decoded, rgb, atol=6)


def test_the_made_up_camera_sees_the_field_of_view() -> None:
    info = made_up_camera_info(640, 480, 90.0, header_at(0, "eye"))
    assert info.k[0] == pytest.approx(320.0)
    assert (info.k[2], info.k[5], info.p[0]) == (320.0, 240.0, info.k[0])


@pytest.mark.parametrize(
    ("wanted", "expected"), [((0, 0), (64, 48)), ((32, 0), (32, 24)), ((0, 96), (128, 96)), ((10, 10), (10, 10))]
)
def test_pictures_are_scaled(wanted: tuple[int, int], expected: tuple[int, int]) -> None:
    height, width = resize(gray(0), *wanted).shape[:2]
    assert (width, height) == expected


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "gray.mp4"
    with open_writer(path, FPS) as writer:
        for frame in Slides():
            writer.write(frame)
    return path


def test_a_video_arrives_whole(video: Path) -> None:
    images: list[Image] = []
    infos: list[CameraInfo] = []
    jpegs: list[CompressedImage] = []
    parameters = {
        "source": str(video),
        "start_paused": True,
        "exit_at_end": True,
        "stamps": "video",
        "image_transport": "both",
        "width": 32,
        "frame_id": "eye",
    }
    with spinning("probe") as probe, NodeProcess(MODULE, parameters, os.environ) as node:
        qos = QoSProfile(depth=100)
        for kind, topic, sink in [(Image, "image", images), (CompressedImage, "image/compressed", jpegs)]:
            probe.create_subscription(kind, topic, sink.append, qos)
        probe.create_subscription(CameraInfo, "camera_info", infos.append, qos)
        wait_until(
            lambda: all(probe.count_publishers(t) for t in ("image", "camera_info")), DEADLINE_S, "no publishers"
        )
        assert TrackerClient(probe, "video", DEADLINE_S).call(SetBool, "play", SetBool.Request(data=True)).success
        assert node.wait(DEADLINE_S) == 0, node.output()
        wait_until(lambda: len(images) == len(jpegs) == len(infos) == FRAMES, DEADLINE_S, f"{len(images)} images came")
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in images]
    assert set(np.diff(stamps)) == {round(1e9 / FPS)}
    assert [info.header for info in infos] == [image.header for image in images] == [jpeg.header for jpeg in jpegs]
    assert {(image.width, image.height, image.header.frame_id) for image in images} == {(32, 24, "eye")}
    brightness = [float(image_to_rgb(image).mean()) for image in images]
    np.testing.assert_allclose(brightness, [20 + 20 * index for index in range(FRAMES)], atol=4)


def test_it_waits_for_subscribers(video: Path) -> None:
    images: list[Image] = []
    parameters = {"source": str(video), "wait_for_subscribers": 1}
    with spinning("probe") as probe, NodeProcess(MODULE, parameters, os.environ) as node:
        wait_until(lambda: probe.count_publishers("image") == 1, DEADLINE_S, "no publisher")
        probe.create_subscription(Image, "image", images.append, QoSProfile(depth=100))
        wait_until(lambda: len(images) == FRAMES, DEADLINE_S, "some images were sent before anyone listened")
        assert node.is_alive


def test_it_stops_cleanly_when_told_to(video: Path) -> None:
    with NodeProcess(MODULE, {"source": str(video), "loop": True}, os.environ) as node:
        wait_until(lambda: "playing" in node.output(), DEADLINE_S, "the node did not start")
        assert node.stop() == 0
        assert "Traceback" not in node.output()


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"source": "no/such.mp4"}, "no/such.mp4"),
        ({"source": ""}, "no source is given"),
        ({"source": "/dev/video999"}, "/dev/video999"),
        ({"source": "video.mp4", "rate": -3}, "rate"),
    ],
)
def test_bad_input_is_one_sentence(parameters: dict[str, object], complaint: str) -> None:
    with NodeProcess(MODULE, parameters, os.environ) as node:
        assert node.wait(DEADLINE_S) == 2
        lines = node.output().strip().splitlines()
    assert len(lines) == 1
    assert complaint in lines[0]
