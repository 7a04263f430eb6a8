"""Pictures in the forms in which people have them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from elysium_core.errors import ImageError
from elysium_core.frames import Frame, require_frame
from elysium_core.io.image import write_image
from elysium_core.io.pictures import as_frames

ROWS, COLUMNS = np.mgrid[0:30, 0:40]
GRADIENT = np.stack([COLUMNS * 4, ROWS * 4, COLUMNS * 0], axis=2).astype(np.uint8)


def test_pictures_of_any_form_become_frames(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, GRADIENT)
    frame, picture = Frame(GRADIENT, stamp_ns=7, index=5), Image.fromarray(GRADIENT)
    for single in (frame, GRADIENT, picture, Image.open(path), path, str(path)):
        (found,) = as_frames(single)
        assert np.array_equal(found.image, GRADIENT)
    several = as_frames(iter([picture, path, frame, GRADIENT]))
    assert [each.index for each in several] == [0, 1, 5, 3]
    assert several[2] is frame
    assert len(as_frames(np.stack([GRADIENT] * 3))) == 3


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "I", "HSV", "LAB"])
def test_a_pil_image_of_any_kind_is_one_of_rgb(mode):
    source = Image.fromarray(GRADIENT)
    picture = source.convert("L").convert("I").convert(mode) if mode.startswith("I") else source.convert(mode)
    (frame,) = as_frames(picture)
    assert (frame.width, frame.height) == (40, 30)


def test_a_pil_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        (frame,) = as_frames(picture)
    assert np.array_equal(frame.image, np.rot90(GRADIENT, -1))


@pytest.mark.parametrize(
    ("images", "code", "named"),
    [
        ("https://example.org/a.jpg", "IMG_ADDRESS", "https://example.org/a.jpg"),
        ("HTTP://a.b/c", "IMG_ADDRESS", "HTTP://a.b/c"),
        ("s3://bucket/key", "IMG_ADDRESS", "s3://bucket/key"),
        ("file:///tmp/a.png", "IMG_ADDRESS", "file:///tmp/a.png"),
        ("data:image/png;base64,iVBORw0KGgo", "IMG_ADDRESS", "data:image"),
        ("a picture.png", "IMG_MISSING", "'a picture.png'"),
        ("C:/a.png", "IMG_MISSING", "C:/a.png"),
        ("", "IMG_MISSING", "'.'"),
        ("a\0b", "IMG_MISSING", "a"),
        ("x" * 5000, "IMG_MISSING", "xxx"),
        (b"\xff\xd8", "IMG_SHAPE", "bytes"),
        (None, "IMG_SHAPE", "NoneType"),
        (7, "IMG_SHAPE", "int"),
        ([[1, 2], [3, 4]], "IMG_SHAPE", "list"),
        ({}, "IMG_SHAPE", "no frame"),
        (np.zeros((4, 4), np.uint8), "IMG_SHAPE", "(4, 4)"),
        (np.zeros((4, 4, 3)), "IMG_SHAPE", "float64"),
        (Image.new("F", (4, 4)), "IMG_DECODE", "4x4"),
        (Image.new("1", (9000, 9000)), "IMG_TOO_LARGE", "9000x9000"),
    ],
    ids=lambda value: str(type(value)) if not isinstance(value, str) else value[:12],
)
def test_what_is_no_picture_is_named(images, code, named):
    with pytest.raises(ImageError) as caught:
        as_frames(images)
    assert caught.value.code == code
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_video_is_no_picture_and_the_sentence_says_how_to_read_it(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 64)
    with pytest.raises(ImageError, match="open_video") as caught:
        as_frames(tmp_path / "v.mp4")
    assert caught.value.code == "IMG_DECODE"


def test_a_path_may_be_made_of_bytes(tmp_path):
    class InBytes:
        def __fspath__(self):
            return bytes(tmp_path / "a.png")

    write_image(tmp_path / "a.png", GRADIENT)
    assert len(as_frames(InBytes())) == 1


def test_a_pil_image_of_a_damaged_file_is_an_image_error(tmp_path):
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:4000])
    with Image.open(tmp_path / "a.png") as picture, pytest.raises(ImageError) as caught:
        as_frames(picture)
    assert caught.value.code == "IMG_DECODE"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (GRADIENT, "Frame(image"),
        (Image.fromarray(GRADIENT), "np.array(picture.convert('RGB'))"),
        ("a.png", "read_picture(path)"),
        ("https://a.b/c.png", "nothing is downloaded"),
        (None, "NoneType"),
    ],
)
def test_a_tracker_says_how_to_make_a_frame(value, remedy):
    with pytest.raises(ImageError) as caught:
        require_frame(value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "an animation.webp", "a.jp2", "a.avif", "a.apng"])
def test_a_path_may_be_that_of_any_picture_that_the_command_line_reads(tmp_path, name):
    picture = Image.fromarray(GRADIENT)
    more = {"save_all": True, "append_images": [picture]} if name.endswith(("gif", "webp", "apng")) else {}
    try:
        picture.save(tmp_path / name, format="PNG" if name.endswith("apng") else None, **more)
    except (OSError, KeyError, ValueError):
        pytest.skip("this Pillow cannot write it")
    (frame,) = as_frames(tmp_path / name)
    assert (frame.width, frame.height) == (40, 30)
    assert np.abs(frame.image.astype(int) - GRADIENT).mean() < 8


def test_an_address_is_shown_without_its_password_and_a_file_of_that_name_is_read(tmp_path, monkeypatch):
    with pytest.raises(ImageError) as caught:
        as_frames("https://me:secret@a.b/c.png?token=secret")
    assert "secret" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "data:1.png", GRADIENT)
    assert len(as_frames("data:1.png")) == 1
