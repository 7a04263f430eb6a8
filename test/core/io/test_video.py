from __future__ import annotations

import itertools
import wave

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import VideoError
from elysium_core.io import video, video_stream
from elysium_core.io.image import write_image
from elysium_core.io.recording import natural_key
from elysium_core.io.video import open_video


def brightness(frame) -> int:
    return round((float(frame.image[:, :, 1].mean()) - 10) / 10)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.mpg", "mpeg2video")]
)
def test_a_file_gives_every_frame_once_and_again(make_video, name, codec):
    with open_video(make_video(name, codec=codec)) as recording:
        assert (recording.width, recording.height, recording.fps) == (64, 48, 25)
        for _ in range(2):
            frames = list(recording)
            assert [brightness(frame) for frame in frames] == list(range(12))
            assert [frame.index for frame in frames] == list(range(12))
            assert [frame.stamp_ns for frame in frames] == pytest.approx([i * 40_000_000 for i in range(12)], abs=1e6)
        assert recording.skipped == 0
        assert not recording.is_live


def test_a_folder_is_read_in_natural_order(make_folder):
    folder = make_folder("1.png", "2.png", "10.png", ".0.png")
    (folder / "notes.txt").write_text("no picture")
    with open_video(folder, fps=10) as recording:
        frames = list(recording)
    assert [brightness(frame) for frame in frames] == [0, 1, 2]
    assert [frame.stamp_ns for frame in frames] == [0, 100_000_000, 200_000_000]
    assert (recording.width, recording.height, recording.fps, recording.frame_count) == (8, 6, 10, 3)


def test_a_broken_picture_is_skipped_and_the_others_keep_their_numbers(make_folder):
    folder = make_folder("1.png", "2.png", "3.png")
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"\x89PNG broken")
    with open_video(folder) as recording:
        assert [frame.index for frame in recording] == [2]
        assert recording.skipped == 2


def test_pictures_of_another_size_are_refused_by_name(make_folder):
    folder = make_folder("1.png", "2.png")
    write_image(folder / "3.png", np.zeros((9, 9, 3), np.uint8))
    frames = iter(open_video(folder))
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(VideoError, match=r"'3\.png' .* 9x9 px, .* 8x6"):
        next(frames)


def test_one_picture_is_a_recording_of_one_frame(make_folder):
    with open_video(make_folder("1.png") / "1.png") as recording:
        assert [frame.index for frame in recording] == [0]


def test_a_folder_without_any_readable_picture_says_why(make_folder):
    folder = make_folder("1.png")
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(VideoError) as error:
        open_video(folder)
    assert error.value.code == "VIDEO_DECODE"
    assert str(folder / "1.png") in str(error.value)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_folder_needs_a_possible_rate(make_folder, fps):
    with pytest.raises(VideoError, match=f"{fps:g} "):
        open_video(make_folder("1.png"), fps=fps)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("", "VIDEO"),
        ("/no/such/video.mp4", "VIDEO_MISSING"),
        ("a" * 100_000, "VIDEO_MISSING"),
        ("\0", "VIDEO_MISSING"),
        ("\ud800.mp4", "VIDEO_MISSING"),
        ("rtsp://camera/stream", "VIDEO"),
        ("http://host/video.mp4", "VIDEO"),
        ("concat:/etc/hostname", "VIDEO_MISSING"),
        ("/dev/null", "VIDEO"),
        ("/dev/video987", "CAM_MISSING"),
        (987, "CAM_MISSING"),
        (-1, "VIDEO_MISSING"),
    ],
)
def test_what_is_no_source_is_refused_in_one_short_sentence(source, code):
    with pytest.raises(VideoError) as error:
        open_video(source)
    assert error.value.code == code
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.mp4", b"", "VIDEO_EMPTY"),
        ("noise.mp4", bytes(range(256)) * 40, "VIDEO_DECODE"),
        ("letters.txt", b"the quick brown fox\n" * 200, "VIDEO_DECODE"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n", "VIDEO_DECODE"),
        ("script.ffconcat", b"ffconcat version 1.0\nfile '/etc/hostname'\n", "VIDEO_DECODE"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, content, code):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=name) as error:
        list(open_video(tmp_path / name))
    assert error.value.code == code


def test_sound_alone_is_no_video(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 800)
    with pytest.raises(VideoError, match=r"a\.wav") as error:
        open_video(tmp_path / "a.wav")
    assert error.value.code == "VIDEO_EMPTY"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(VideoError, match=str(tmp_path)) as error:
        open_video(tmp_path)
    assert error.value.code == "VIDEO_EMPTY"


def test_frames_over_the_limit_are_refused_before_decoding(make_video, monkeypatch):
    monkeypatch.setattr(video_stream, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="64x48 px") as error:
        open_video(make_video())
    assert error.value.code == "IMG_TOO_LARGE"


@pytest.mark.parametrize("sixteenths", range(16))
@pytest.mark.parametrize("name", ["a.mpg", "a.mkv", "a.mp4"])
def test_a_file_cut_anywhere_gives_the_frames_before_or_a_reason(make_video, name, sixteenths):
    path = make_video(name, count=15, codec="mpeg2video")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * sixteenths // 16])
    try:
        frames = list(open_video(path))
    except VideoError:
        return
    assert 0 < len(frames) <= 15
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})


@given(st.data())
def test_flipped_bytes_never_crash_the_reader(tmp_path_factory, data):
    content = bytearray(_video_bytes(tmp_path_factory))
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=40)):
        content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.mkv"
    path.write_bytes(content)
    try:
        recording = open_video(path)
        stamps = [frame.stamp_ns for frame in recording]
    except VideoError:
        return
    assert all(before < after for before, after in itertools.pairwise(stamps))


_CACHED: list[bytes] = []


def _video_bytes(tmp_path_factory) -> bytes:
    if not _CACHED:
        path = tmp_path_factory.getbasetemp() / "whole.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            for index in range(10):
                image = np.full((16, 32, 3), index * 20, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        _CACHED.append(path.read_bytes())
    return _CACHED[0]


@pytest.mark.parametrize(("rotation", "size"), [(90, (48, 64)), (-90, (48, 64)), (180, (64, 48))])
def test_a_phone_video_is_turned_upright(make_video, rotation, size):
    with open_video(make_video(rotation=rotation)) as recording:
        frame = next(iter(recording))
    assert (recording.width, recording.height) == (frame.width, frame.height) == size
    red = frame.image[:, :, 0].astype(int)
    # The picture's red grows to the right; counter-clockwise turns take "right" to the top, left or bottom.
    top, bottom, left, right = red[0].mean(), red[-1].mean(), red[:, 0].mean(), red[:, -1].mean()
    slope = {90: top - bottom, -90: bottom - top, 180: left - right}
    assert slope[rotation] > 20


def test_a_camera_is_read_until_it_stops(make_video, monkeypatch):
    path, real_open = make_video(count=4), av.open
    monkeypatch.setattr(video.Path, "exists", lambda self: True)
    monkeypatch.setattr(video.av, "open", lambda name, **options: real_open(str(path)))
    with open_video("/dev/video7") as camera:
        assert (camera.name, camera.is_live, camera.frame_count) == ("/dev/video7", True, None)
        assert (camera.width, camera.height, camera.fps) == (64, 48, 25)
        assert next(iter(camera)).index == 0
        frames = iter(camera)
        assert [next(frames).index for _ in range(3)] == [1, 2, 3]
        with pytest.raises(VideoError, match="/dev/video7") as error:
            next(frames)
    assert error.value.code == "CAM_TIMEOUT"


def test_a_file_that_is_no_camera_is_refused_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(video.Path, "exists", lambda self: True)
    with pytest.raises(VideoError, match="/dev/video998") as error:
        open_video("/dev/video998")
    assert error.value.code == "CAM_OPEN"


def test_numbers_sort_by_value():
    names = ["10.jpg", "2.jpg", "a10", "a9", "A1", "1.jpg", "²"]
    assert sorted(names, key=natural_key)[:3] == ["1.jpg", "2.jpg", "10.jpg"]
    assert sorted(names, key=natural_key)[3:6] == ["A1", "a9", "a10"]


@given(st.lists(st.text(max_size=20)))
def test_any_names_can_be_sorted(names):
    assert sorted(sorted(names, key=natural_key)) == sorted(names)
