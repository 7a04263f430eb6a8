from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elysium_core.errors import ImageError
from elysium_core.io.image import as_rgb, decode_image, image_size, read_image, write_image

ROWS, COLUMNS = np.mgrid[0:30, 0:40]
GRADIENT = np.stack([COLUMNS * 4, ROWS * 4, COLUMNS * 0], axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", GRADIENT)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), GRADIENT)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_back_nearly(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", GRADIENT)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - GRADIENT).mean() < 4


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(GRADIENT).convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    Image.fromarray(np.full((2, 3), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 0x80).all()


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(GRADIENT, -1))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8001, 8001), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_claiming(*size))
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "a.png")
    assert error.value.code in ("IMG_TOO_LARGE", "IMG_DECODE")
    assert error.value.code == "IMG_TOO_LARGE" or size[0] > 30_000


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "EPS", "ICO"])
def test_formats_outside_the_list_are_refused_whatever_they_are_called(tmp_path, format_name):
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", format=format_name)
    with pytest.raises(ImageError) as error:
        read_image(tmp_path / "a.png")
    assert error.value.code == "IMG_DECODE"


def test_a_missing_file_or_a_folder_is_no_image(tmp_path):
    for path in (tmp_path, tmp_path / "none.png", "\0", ""):
        with pytest.raises(ImageError) as error:
            read_image(path)
        assert error.value.code == "IMG_MISSING"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("sixty_fourths", range(0, 64, 3))
def test_a_cut_image_is_refused_unless_all_its_pixels_are_there(tmp_path, suffix, sixty_fourths):
    write_image(tmp_path / f"a{suffix}", GRADIENT)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[: len(content) * sixty_fourths // 64])
    try:
        image = read_image(tmp_path / f"b{suffix}")
    except ImageError:
        return
    # Of a small PNG the last chunks hold no pixels.
    assert suffix == ".png"
    assert np.array_equal(image, GRADIENT)


@given(st.data())
def test_flipped_bytes_give_an_image_or_an_image_error(tmp_path_factory, data):
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, format=data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "PPM"])))
    content = bytearray(buffer.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=20)):
        content[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.png"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except ImageError:
        return
    assert image.ndim == 3
    assert image.dtype == np.uint8


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", "a.tiff"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(ImageError) as error:
        write_image(tmp_path / name, GRADIENT)
    assert error.value.code == "IMG_ENCODING"
    assert repr(str(tmp_path / name)) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", GRADIENT)
    before = (tmp_path / "a.png").read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match="No space left"):
        write_image(tmp_path / "a.png", GRADIENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_file_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError) as error:
        write_image(tmp_path / "file" / "a.png", GRADIENT)
    assert error.value.code == "IMG_WRITE"


def turned(path, orientation: int, size=(40, 30)):
    """Write GRADIENT, scaled, with an orientation flag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GRADIENT).resize(size).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_picture_stay_where_they_are(tmp_path, orientation):
    path = turned(tmp_path / "a.png", orientation)
    assert np.array_equal(read_image(path, (40, 30)), GRADIENT)
    assert image_size(path, (40, 30)) == (40, 30)


@pytest.mark.parametrize("annotated", [(30, 40), (60, 80), (15, 20)])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_upright_picture_stay_where_they_are(tmp_path, orientation, annotated):
    path = turned(tmp_path / "a.png", orientation)
    assert np.array_equal(read_image(path, annotated), read_image(path))
    assert image_size(path, annotated) == image_size(path) == (30, 40)


@pytest.mark.parametrize("annotated", [(80, 60), (20, 15), (41, 31)])
def test_a_scaled_copy_of_the_annotated_picture_is_read(tmp_path, annotated):
    assert read_image(turned(tmp_path / "a.png", 1), annotated).shape == (30, 40, 3)


@pytest.mark.parametrize("annotated", [(30, 40), (40, 40), (0, 0), (640, 360)])
def test_another_picture_than_the_annotated_one_is_refused(tmp_path, annotated):
    with pytest.raises(ImageError, match="40x30") as error:
        read_image(turned(tmp_path / "a.png", 3), annotated)
    assert error.value.code == "IMG_SIZE"


def test_content_is_decoded_as_a_file_is(tmp_path):
    path = turned(tmp_path / "a.png", 6)
    assert np.array_equal(decode_image(path.read_bytes(), "a"), read_image(path))
    with pytest.raises(ImageError, match="b in c"):
        decode_image(b"nothing", "b in c")


def test_the_stand_in_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ImageError, match="git lfs pull"):
        read_image(tmp_path / "a.png")


def test_floating_point_pixels_are_refused():
    with pytest.raises(ValueError, match="floating point"):
        as_rgb(Image.fromarray(np.zeros((2, 2), np.float32)))
