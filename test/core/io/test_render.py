from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io import mp4_writer, render
from elysium_core.io.image import read_image
from elysium_core.io.labels import contact_sheet
from elysium_core.io.overlay import draw_tracks
from elysium_core.io.render import GifWriter, open_writer
from elysium_core.io.sampling import EvenSample
from elysium_core.io.video import open_video


def frames(count: int, width: int = 64, height: int = 48, fps: float = 25.0, noise: int = 0):
    random = np.random.default_rng(0)
    for index in range(count):
        image = np.full((height, width, 3), 20 + 200 * index // max(1, count), np.uint8)
        if noise:
            image = random.integers(0, noise, image.shape, np.uint8)
        yield Frame(image, stamp_ns=round(index * 1e9 / fps), index=index)


def write(path, source, fps: float = 25.0):
    with open_writer(path, fps) as writer:
        for frame in source:
            writer.write(frame)


def gif_times_ms(path) -> list[int]:
    with Image.open(path) as picture:
        times = []
        for number in range(picture.n_frames):
            picture.seek(number)
            times.append(picture.info["duration"])
    return times


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49), (33, 17), (3, 3)])
def test_an_mp4_holds_every_frame_at_its_time(tmp_path, width, height):
    write(tmp_path / "a.mp4", frames(10, width, height))
    with open_video(tmp_path / "a.mp4") as recording:
        read = list(recording)
    assert (recording.width, recording.height) == (width // 2 * 2, height // 2 * 2)
    assert recording.fps == 25
    assert [frame.stamp_ns for frame in read] == pytest.approx([i * 40_000_000 for i in range(10)], abs=20_000)
    assert [frame.image.mean() for frame in read] == pytest.approx([20 + 20 * i for i in range(10)], abs=4)


def test_an_mp4_keeps_gaps_and_survives_equal_stamps(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    stamps_s = [5.0, 5.1, 5.1, 7.0]
    write(tmp_path / "a.mp4", (Frame(image, round(stamp * 1e9), i) for i, stamp in enumerate(stamps_s)))
    read = [frame.stamp_ns / 1e9 for frame in open_video(tmp_path / "a.mp4")]
    assert read == pytest.approx([0, 0.1, 0.1, 2.0], abs=0.001)


def test_an_mp4_is_written_without_an_h264_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(mp4_writer.av, "codecs_available", {"mpeg4"})
    write(tmp_path / "a.mp4", frames(5))
    assert len(list(open_video(tmp_path / "a.mp4"))) == 5


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    write(tmp_path / "a.mp4", [*frames(2), Frame(np.zeros((10, 99, 3), np.uint8), 80_000_000, 2)])
    assert {frame.image.shape for frame in open_video(tmp_path / "a.mp4")} == {(48, 64, 3)}


def test_a_gif_plays_at_its_pace_and_is_no_wider_than_allowed(tmp_path):
    write(tmp_path / "a.gif", frames(30, width=1000, height=100, fps=30.0), 30.0)
    times = gif_times_ms(tmp_path / "a.gif")
    assert len(times) == 15
    assert sum(times) == pytest.approx(1000, abs=100)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size == (480, 48)
        assert picture.info["loop"] == 0


def test_a_long_recording_becomes_a_time_lapse(tmp_path):
    write(tmp_path / "a.gif", frames(2000, width=16, height=12, fps=2.0, noise=255), 2.0)
    times = gif_times_ms(tmp_path / "a.gif")
    assert len(times) <= 150
    assert max(times) <= 200


def test_a_gif_that_is_too_large_is_shrunk(tmp_path):
    with GifWriter(tmp_path / "a.gif", max_bytes=25_000) as writer:
        for frame in frames(8, width=200, height=60, fps=10.0, noise=40):
            writer.write(frame)
    assert (tmp_path / "a.gif").stat().st_size <= 25_000
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.size[0] >= 160


def test_frames_are_left_out_before_letters_become_too_small_to_read(tmp_path):
    with GifWriter(tmp_path / "a.gif", max_bytes=330_000) as writer:
        for frame in frames(8, width=480, height=240, fps=10.0, noise=40):
            writer.write(frame)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 4
        assert picture.size[0] >= 380


def test_colours_of_a_gif_stay_true(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:40] = (255, 92, 58)
    write(tmp_path / "a.gif", [Frame(image, 0, 0), Frame(image, 100_000_000, 1)])
    with Image.open(tmp_path / "a.gif") as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - image).max() <= 8


def test_noise_costs_little_and_no_pixel_is_far_off(tmp_path):
    ramp = np.broadcast_to(np.linspace(40, 200, 320)[None, :, None], (240, 320, 3))
    noise = np.random.default_rng(0).normal(0, 2, (6, 240, 320, 3))
    images = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    write(tmp_path / "a.gif", [Frame(image, index * 10**8, index) for index, image in enumerate(images)])
    # One byte a pixel is what the noise of a picture would cost.
    assert (tmp_path / "a.gif").stat().st_size < 0.3 * images[..., 0].size
    with Image.open(tmp_path / "a.gif") as picture:
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - images[0]).max() <= 16


def test_a_contact_sheet_shows_at_most_twelve_frames(tmp_path):
    write(tmp_path / "a.png", frames(500, width=960, height=540))
    sheet = read_image(tmp_path / "a.png")
    assert sheet.shape[1] == 4 * 486 + 6
    # Three rows of pictures, each with a strip of letters below it.
    assert 3 * 276 + 6 < sheet.shape[0] < 3 * (276 + 40) + 6


def test_a_sheet_is_filled_row_by_row_with_captions_below_the_pictures():
    grays = (50, 100, 150)
    sheet = contact_sheet([Frame(np.full((120, 160, 3), gray, np.uint8), index=gray) for gray in grays])
    gap = 6
    row_px, column_px = (sheet.shape[0] - gap) // 2, (sheet.shape[1] - gap) // 2
    strip_px = row_px - 120 - gap
    assert (column_px, strip_px > 10) == (160 + gap, True)
    for number, gray in enumerate(grays):
        top, left = gap + number // 2 * row_px, gap + number % 2 * column_px
        assert (sheet[top : top + 120, left : left + 160] == gray).all()
        assert sheet[top + 120 : top + 120 + strip_px, left : left + 160].std() > 0
    empty = sheet[gap + row_px :, gap + column_px :]
    assert empty.std() == 0


def test_pictures_of_a_sheet_are_scaled_to_the_size_of_the_first():
    small, large = (Frame(np.full((side, side, 3), 99, np.uint8)) for side in (100, 300))
    assert contact_sheet([small, large]).shape == contact_sheet([small, small]).shape


def fail_half_way(path):
    with open_writer(path, 25) as writer:
        for frame in frames(3):
            writer.write(frame)
        raise RuntimeError("something else broke")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_without_frames_there_is_no_file(tmp_path, name):
    write(tmp_path / name, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_one_frame_is_enough(tmp_path, name):
    write(tmp_path / "new" / name, frames(1))
    assert (tmp_path / "new" / name).stat().st_size > 0


@pytest.mark.parametrize("name", ["a.avi", "a", "", ".mp4", "a.mp4.txt"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(VideoError) as error:
        open_writer(tmp_path / name, 25)
    assert error.value.code == "VIDEO_WRITE"
    assert repr(str(tmp_path / name)) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError) as error:
        open_writer(tmp_path / "file" / "a.mp4", 25)
    assert error.value.code == "VIDEO_WRITE"


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, name, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(render, "write_image", fail)
    monkeypatch.setattr(mp4_writer.av, "open", fail)
    with pytest.raises(VideoError, match="No space left on device") as error:
        write(tmp_path / name, frames(3))
    assert error.value.code == "VIDEO_WRITE"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 100, 1000])
def test_an_even_sample_is_bounded_spread_and_begins_at_the_first(count):
    sample: EvenSample[int] = EvenSample(6)
    for number in range(count):
        wanted = sample.wants_next()
        sample.add(number)
        assert wanted or number not in sample.kept
    steps = set(np.diff(sample.kept))
    assert len(sample.kept) <= 6
    assert len(sample.kept) >= min(count, 3)
    assert len(steps) <= 1
    assert sample.kept[:1] == list(range(min(count, 1)))


@pytest.mark.parametrize("size", [(20_000, 64), (64, 20_000), (1, 9000), (9000, 1), (1, 1)])
@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_pictures_of_any_shape_are_scaled_down(tmp_path, name, size):
    width, height = size
    with open_writer(tmp_path / name, 10) as writer:
        image = np.full((height, width, 3), 90, np.uint8)
        writer.write(Frame(draw_tracks(image, [], scale=writer.scale_for(width))))
    shown = next(iter(open_video(tmp_path / name)))
    assert max(shown.width, shown.height) <= 8192 + 40  # a contact sheet has a strip for the number
