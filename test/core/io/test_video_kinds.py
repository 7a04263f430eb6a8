"""Videos as they come: with covers, cut, joined, mirrored, animated, behind links."""

from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from elysium_core.errors import VideoError
from elysium_core.io.recording import in_order
from elysium_core.io.video import open_video, read_picture
from elysium_core.io.video_stream import StampClock

MS = 1_000_000


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture whose green is its number; red grows to the right, blue to the bottom."""
    image = np.full((height, width, 3), 10 + 8 * index, np.uint8)
    image[:, :, 0] = np.linspace(20, 220, width, dtype=np.uint8)
    image[:, :, 2] = np.linspace(20, 220, height, dtype=np.uint8)[:, None]
    return image


def write_stream(
    path: Path, count: int = 10, codec: str = "mpeg4", sizes=((64, 48),), first=None, noise=0, **options
) -> Path:
    """Write a video with one stream for each size; ``first`` is a cover picture in front of them."""
    with av.open(str(path), "w", options=options) as container:
        streams = []
        if first is not None:
            streams.append(container.add_stream("mjpeg", rate=1))
            streams[0].width, streams[0].height, streams[0].pix_fmt = 32, 32, "yuvj420p"
            streams[0].disposition = first
        for width, height in sizes:
            streams.append(container.add_stream(codec, rate=25))
            streams[-1].width, streams[-1].height, streams[-1].pix_fmt = width, height, "yuv420p"
        for number, stream in enumerate(streams):
            is_cover = first is not None and number == 0
            for index in range(1 if is_cover else count):
                image = picture(index + 20 * is_cover, stream.width, stream.height)
                if noise:
                    image += np.random.default_rng(index).integers(0, noise, image.shape, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("flag", [Disposition.attached_pic, Disposition(0)])
def test_a_cover_in_front_of_the_video_is_not_the_video(tmp_path, flag):
    with open_video(write_stream(tmp_path / "a.mp4", first=flag)) as recording:
        assert (recording.width, recording.height) == (64, 48)
        assert len(list(recording)) == 10


def test_a_cover_alone_is_no_video(tmp_path):
    path = write_stream(tmp_path / "a.mp4", sizes=(), first=Disposition.attached_pic)
    with pytest.raises(VideoError, match="cover") as error:
        open_video(path)
    assert error.value.code == "VIDEO_EMPTY"


def test_a_small_preview_in_front_of_the_video_is_not_the_video(tmp_path):
    path = write_stream(tmp_path / "a.mkv", sizes=((16, 16), (64, 48)))
    assert open_video(path).width == 64


def test_joined_files_whose_times_start_again_keep_their_rate(tmp_path):
    part = write_stream(tmp_path / "part.ts", count=10, codec="mpeg2video").read_bytes()
    (tmp_path / "joined.ts").write_bytes(part * 3)
    stamps = [frame.stamp_ns for frame in open_video(tmp_path / "joined.ts")]
    assert stamps == pytest.approx([index * 40 * MS for index in range(30)], abs=MS)


@pytest.mark.parametrize(
    ("format_name", "times_s", "stamps_ms"),
    [
        ("mp4", [5.0, 5.04, 5.08], [0, 40, 80]),
        ("mp4", [0.0, 0.0, 0.0], [0, 40, 80]),
        ("mp4", [0.0, 0.04, 0.04, 0.08], [0, 40, 80, 120]),
        ("mp4", [0.0, 0.04, -7.0, -6.96], [0, 40, 80, 120]),
        ("mp4", [0.0, 0.04, 3600.0], [0, 40, 3_600_000]),  # a camera that records when something moves
        ("mpegts", [0.0, 0.04, 3600.0, 3600.04], [0, 40, 80, 120]),
        ("mpegts", [0.0, 0.04, 9.0], [0, 40, 9000]),
        ("mp4", [None, None, None], [0, 40, 80]),
    ],
)
def test_times_become_stamps_that_grow(format_name, times_s, stamps_ms):
    clock = StampClock(25, format_name)
    stamps = [clock.stamp_ns(SimpleNamespace(time=time), index) for index, time in enumerate(times_s)]
    assert [round(stamp / MS) for stamp in stamps] == stamps_ms


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4")])
def test_a_file_that_is_cut_off_says_so(tmp_path, name, codec):
    options = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    path = write_stream(tmp_path / name, count=25, codec=codec, sizes=((320, 240),), noise=40, **options)
    with open_video(path) as recording:
        assert len(list(recording)) == 25
        assert list(recording.problems()) == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_video(path) as recording:
        assert 0 < len(list(recording)) < 25
        assert "VIDEO_CUT" in [code for code, _ in recording.problems()]
        recording.is_cut = False
        next(iter(recording))  # of a part that is read, nothing is known
        assert not recording.is_cut


def test_frames_of_damaged_data_are_counted(tmp_path):
    path = write_stream(tmp_path / "a.mkv", count=25)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 300, 5):
        content[place] ^= 0x5A
    path.write_bytes(content)
    recording = open_video(path)
    list(recording)
    assert recording.damaged + recording.skipped > 0


TURNS = {
    (1, 0, 0, 1): lambda image: image,
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (-1, 0, 0, -1): lambda image: image[::-1, ::-1],
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_a_display_matrix_turns_and_mirrors(tmp_path, matrix):
    path = write_stream(tmp_path / "a.mp4", count=2)
    plain = next(iter(open_video(path))).image
    content = path.read_bytes()
    a, b, c, d = (value << 16 for value in matrix)
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = content.index(identity, content.index(b"tkhd"))
    path.write_bytes(
        content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + len(identity) :]
    )
    with open_video(path) as recording:
        shown = next(iter(recording)).image
        assert (recording.height, recording.width) == shown.shape[:2]
    assert np.array_equal(shown, TURNS[matrix](plain))


@pytest.mark.parametrize(
    ("suffix", "options"), [(".webp", {"lossless": True}), (".png", {}), (".avif", {}), (".gif", {})]
)
def test_every_frame_of_an_animation_is_read(tmp_path, suffix, options):
    frames = [Image.fromarray(picture(index)) for index in range(6)]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, **options)
    with open_video(path) as recording:
        assert (recording.width, recording.height, recording.frame_count) == (64, 48, 6)
        shown = list(recording)
    assert [frame.stamp_ns for frame in shown] == pytest.approx([index * 50 * MS for index in range(6)], abs=MS)
    # Compression may lose a little; neighbouring frames differ by 8.
    assert [round(float(f.image[:, :, 1].mean()) - 10, -1) // 8 for f in shown] == pytest.approx(range(6), abs=1)
    assert np.abs(read_picture(path).astype(int) - picture(0)).mean() < 12


def test_the_still_in_front_of_an_animated_png_is_not_a_frame(tmp_path):
    frames = [Image.fromarray(picture(index)) for index in range(4)]
    frames[0].save(
        tmp_path / "a.png", save_all=True, append_images=frames[1:], default_image=True, duration=[40, 40, 40]
    )
    assert [frame.index for frame in open_video(tmp_path / "a.png")] == [0, 1, 2]


def test_an_animation_that_is_cut_off_says_so(tmp_path):
    frames = [
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)) for index in range(6)
    ]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=50)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    recording = open_video(tmp_path / "a.png")
    assert 0 < len(list(recording)) < 6
    assert [code for code, _ in recording.problems()] == ["VIDEO_CUT"]


def test_pages_of_one_size_are_frames_and_smaller_copies_are_not(tmp_path):
    pages = [Image.fromarray(picture(index)) for index in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "pyramid.tif", save_all=True, append_images=[pages[0].resize((32, 24))])
    assert len(list(open_video(tmp_path / "stack.tif"))) == 3
    assert len(list(open_video(tmp_path / "pyramid.tif"))) == 1


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.avif", "a.gif", "a.bmp", "a"])
def test_a_picture_is_read_like_a_video_of_one_frame(tmp_path, name):
    Image.fromarray(picture(3)).save(tmp_path / name, format=None if "." in name else "PNG")
    shown = read_picture(tmp_path / name)
    assert np.abs(shown.astype(int) - picture(3)).mean() < 12
    assert np.array_equal(next(iter(open_video(tmp_path / name))).image, shown)


@pytest.mark.parametrize(
    ("brand", "others"), [(b"heic", b"mif1heic"), (b"mif1", b"mif1heic"), (b"msf1", b"msf1hevc"), (b"hevc", b"")]
)
def test_heic_is_refused_by_name(tmp_path, brand, others):
    box = b"ftyp" + brand + bytes(4) + others
    (tmp_path / "IMG_1.jpg").write_bytes(struct.pack(">I", len(box) + 4) + box + bytes(100))
    with pytest.raises(VideoError, match="HEIC"):
        open_video(tmp_path / "IMG_1.jpg")


@pytest.mark.parametrize("name", ["a.mp4", "a.tif"])
def test_the_stand_in_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(VideoError, match="git lfs pull"):
        open_video(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_link_to_a_camera_is_a_camera(tmp_path):
    try:
        os.mknod(tmp_path / "node", 0o600 | 0o020000, os.makedev(81, 251))
    except PermissionError:
        pytest.skip("this container makes no devices")
    (tmp_path / "usb-Camera-index0").symlink_to("node")
    with pytest.raises(VideoError, match="usb-Camera-index0") as error:
        open_video(tmp_path / "usb-Camera-index0")
    assert error.value.code == "CAM_OPEN"


@pytest.mark.parametrize(
    "names",
    [
        ["1.1.png", "1.15.png", "1.2.png"],
        ["1.1.png", "1.9.png", "1.10.png"],
        ["-1.5.png", "-0.5.png", "0.5.png", "10.png"],
        ["1e-05.png", "0.02.png", "0.1.png"],
        ["t_1.25.png", "t_1.5.png", "t_10.0.png"],
        ["frame-2.png", "frame-10.png"],
        ["a1b2.png", "a1b10.png"],
        ["2024-01-02.png", "2024-01-10.png"],
        ["1305031102.175304.png", "1305031102.2.png", "1305031103.0.png"],
        ["1.5.png", "1.25.png", "x.png"],
    ],
)
def test_names_are_in_the_order_of_their_numbers(names):
    assert in_order(reversed(names)) == names
