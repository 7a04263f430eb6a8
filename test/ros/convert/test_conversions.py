"""Images against an independent oracle, and everything else that crosses the border of the core."""

import io
import math
import struct
import sys
import tracemalloc
import zlib
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import pytest
from builtin_interfaces.msg import Time
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rosbags.image import message_to_cvimage
from sensor_msgs.msg import CompressedImage, Image

from elysium_core.errors import BoxError, ImageError
from elysium_core.frames import MAX_PIXELS
from elysium_core.geometry import Box
from elysium_core.io import image_message as image_decoding
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.convert import images
from elysium_ros.convert.images import SUPPORTED_ENCODINGS, compressed_to_rgb, decode_image, image_to_rgb
from elysium_ros.convert.messages import (
    StampError,
    box_from_message,
    box_to_message,
    image_message,
    is_no_box,
    jpeg_message,
    ns_to_duration,
    ns_to_stamp,
    object_to_message,
    stamp_to_ns,
)
from elysium_ros.msg import Box2D, TrackedObject
from elysium_ros.perception.types import ObjectView

# What an encoding without a colour order is by OpenCV's convention.
GENERIC = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC1": "mono16"}
PLANAR = ("nv12", "nv21")


def bytes_a_pixel(encoding):
    if encoding in PLANAR:
        return 1
    if encoding in ("uyvy", "yuv422", "yuyv", "yuv422_yuy2"):
        return 2
    name = GENERIC.get(encoding, encoding)
    channels = 4 if "a8" in name or "a16" in name else 3 if name.startswith(("rgb", "bgr")) else 1
    return channels * (2 if name.endswith("16") else 1)


def make_image(encoding, width, height, rng, padding=0, big_endian=False):
    rows = height * 3 // 2 if encoding in PLANAR else height
    row_bytes = width * bytes_a_pixel(encoding)
    pixels = rng.integers(0, 256, (rows, row_bytes), dtype=np.uint8)
    padded = np.concatenate([pixels, np.full((rows, padding), 255, np.uint8)], axis=1)
    message = Image(
        encoding=encoding, width=width, height=height, step=row_bytes + padding, is_bigendian=int(big_endian)
    )
    message.data = padded.tobytes()
    return message, pixels


def oracle(message, pixels):
    """Let rosbags convert the same pixels; it knows neither padding nor generic encodings."""
    rows, row_bytes = pixels.shape
    copy = Image(encoding=GENERIC.get(message.encoding, message.encoding), width=message.width, height=rows)
    copy.step, copy.is_bigendian, copy.data = row_bytes, message.is_bigendian, pixels.tobytes()
    return message_to_cvimage(copy, "rgb8")


@pytest.mark.parametrize("encoding", SUPPORTED_ENCODINGS)
@settings(max_examples=15, deadline=None)
@given(
    half_width=st.integers(1, 20),
    half_height=st.integers(1, 20),
    padding=st.integers(0, 5),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(half_width=1, half_height=1, padding=0, big_endian=True, seed=0)
def test_every_encoding_gives_the_pixels_of_the_oracle(encoding, half_width, half_height, padding, big_endian, seed):
    message, pixels = make_image(
        encoding, 2 * half_width, 2 * half_height, np.random.default_rng(seed), padding, big_endian
    )
    np.testing.assert_array_equal(image_to_rgb(message), oracle(message, pixels))


@pytest.mark.parametrize("encoding", ["rgb8", "bgra8", "mono16", "bayer_rggb8", "8UC1"])
def test_odd_sizes_are_fine_where_the_encoding_allows_them(encoding):
    message, pixels = make_image(encoding, 7, 5, np.random.default_rng(1), padding=3)
    np.testing.assert_array_equal(image_to_rgb(message), oracle(message, pixels))


@pytest.mark.parametrize("encoding", PLANAR)
def test_a_planar_image_may_give_the_height_of_its_buffer(encoding):
    message, pixels = make_image(encoding, 8, 6, np.random.default_rng(2))
    expected = image_to_rgb(message)
    message.height = 9
    np.testing.assert_array_equal(image_to_rgb(message), expected)
    np.testing.assert_array_equal(expected, oracle(message, pixels))


def test_known_values_of_a_big_endian_image():
    message = Image(encoding="mono16", width=2, height=1, step=4, is_bigendian=1)
    message.data = struct.pack(">HH", 257 * 3, 257 * 200)
    assert image_to_rgb(message)[0, :, 0].tolist() == [3, 200]


def test_a_plain_rgb_image_is_not_copied():
    message = image_message(np.zeros((4, 6, 3), np.uint8), Image().header)
    message.data[0] = 77
    assert image_to_rgb(message)[0, 0, 0] == 77
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


class FakeCvBridge:
    """What the real one does with these encodings, done by the oracle; it counts its calls."""

    calls = 0

    def imgmsg_to_cv2(self, message, encoding):
        FakeCvBridge.calls += 1
        return message_to_cvimage(message, encoding)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "yuv422", "bayer_grbg8"])
def test_cv_bridge_is_used_where_it_is_installed_and_gives_the_same_pixels(encoding, monkeypatch):
    message, _ = make_image(encoding, 8, 6, np.random.default_rng(3))
    without = image_to_rgb(message)
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=FakeCvBridge))
    images._cv_bridge.cache_clear()
    try:
        before = FakeCvBridge.calls
        np.testing.assert_array_equal(image_to_rgb(message), without)
        assert FakeCvBridge.calls == before + 1
        padded, padded_pixels = make_image(encoding, 8, 6, np.random.default_rng(3), padding=1)
        np.testing.assert_array_equal(image_to_rgb(padded), oracle(padded, padded_pixels))
        assert FakeCvBridge.calls == before + 1  # it skews rows whose padding is not a whole pixel
    finally:
        images._cv_bridge.cache_clear()


@pytest.mark.parametrize(
    "encoding", ["", "32FC1", "64FC4", "jpeg", "RGB8", "yuv420", "<image>", "x" * 5000, "evil\n\x1b[31m"]
)
def test_an_unknown_encoding_is_one_short_sentence_that_names_it(encoding):
    message = Image(encoding=encoding, width=2, height=2, step=8, data=bytes(16))
    with pytest.raises(ImageError) as caught:
        image_to_rgb(message)
    text = str(caught.value)
    assert caught.value.code == "IMG_ENCODING"
    assert len(text) < 160
    assert text.isprintable()
    assert encoding[:3].strip() in text


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from((*SUPPORTED_ENCODINGS, "32FC1", "")),
    width=st.one_of(st.integers(0, 70), st.sampled_from([2**31, 2**32 - 1])),
    height=st.one_of(st.integers(0, 70), st.sampled_from([2**31, 2**32 - 1])),
    step=st.one_of(st.integers(0, 300), st.just(2**32 - 1)),
    size=st.integers(0, 4096),
)
def test_contradicting_numbers_are_an_image_error_or_a_picture(encoding, width, height, step, size):
    message = Image(encoding=encoding, width=width, height=height, step=step, data=bytes(size))
    try:
        rgb = image_to_rgb(message)
    except ImageError as error:
        assert error.code in ("IMG_ENCODING", "IMG_SHAPE", "IMG_TOO_LARGE")
    else:
        assert rgb.shape[1] == width
        assert rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"width": 2**32 - 1, "height": 2**32 - 1, "step": 2**32 - 1}, "IMG_TOO_LARGE"),
        ({"width": MAX_PIXELS, "height": 2, "step": 2**32 - 1}, "IMG_TOO_LARGE"),
        ({"width": 8000, "height": 7000, "step": 24000}, "IMG_SHAPE"),
        ({"step": 0}, "IMG_SHAPE"),
        ({"step": 11}, "IMG_SHAPE"),
        ({"width": 0}, "IMG_SHAPE"),
        ({"height": 0}, "IMG_SHAPE"),
        ({"data": bytes(35)}, "IMG_SHAPE"),
        ({"data": bytes(37)}, "IMG_SHAPE"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(changes, code):
    message = Image(encoding="rgb8", width=4, height=3, step=12, data=bytes(36))
    for name, value in changes.items():
        setattr(message, name, value)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as caught:
            image_to_rgb(message)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.code == code


def picture(width=64, height=48):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3 % 256, y * 5 % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def compressed(data):
    return CompressedImage(format="whatever it says", data=bytes(data))


def test_a_jpeg_and_a_png_are_decoded_as_the_oracle_does():
    jpeg = jpeg_message(picture(), Image().header)
    np.testing.assert_array_equal(compressed_to_rgb(jpeg), message_to_cvimage(jpeg, "rgb8"))
    png = compressed(cv2.imencode(".png", cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))[1])
    np.testing.assert_array_equal(compressed_to_rgb(png), picture())


def test_a_grey_jpeg_has_three_channels():
    grey = compressed(cv2.imencode(".jpg", picture()[..., 0])[1])
    assert compressed_to_rgb(grey).shape == (48, 64, 3)


def test_a_jpeg_cut_anywhere_is_refused():
    data = bytes(jpeg_message(picture(), Image().header).data)
    for part in range(64):
        with pytest.raises(ImageError) as caught:
            compressed_to_rgb(compressed(data[: len(data) * part // 64]))
        assert caught.value.code == "IMG_DECODE"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_flipped_bytes_are_refused_or_decoded_at_the_size_that_was_announced(suffix):
    data = bytes(cv2.imencode(suffix, picture())[1])
    for position in range(0, len(data), max(1, len(data) // 64)):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        try:
            rgb = compressed_to_rgb(compressed(broken))
        except ImageError as error:
            assert error.code in ("IMG_DECODE", "IMG_TOO_LARGE")
        else:
            assert rgb.dtype == np.uint8


@settings(max_examples=300, deadline=None)
@given(head=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]), tail=st.binary(max_size=200))
def test_random_bytes_are_an_image_error(head, tail):
    with pytest.raises(ImageError):
        compressed_to_rgb(compressed(head + tail))


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a" + bytes(20),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"II*\x00" + bytes(20),
        b"8BPS" + bytes(20),
        b"BM" + bytes(60),
    ],
)
def test_other_formats_are_refused_and_their_first_bytes_are_named(data):
    with pytest.raises(ImageError) as caught:
        compressed_to_rgb(compressed(data))
    assert caught.value.code == "IMG_DECODE"
    assert repr(data[:8]) in str(caught.value)


@pytest.mark.parametrize("padding", [bytes(2000), bytes(5000), bytes(1_000_000), b"\x5a" * 2000 + bytes(9000)])
def test_a_jpeg_that_a_camera_has_padded_is_decoded(padding):
    jpeg = bytes(jpeg_message(picture(), Image().header).data)
    padded = jpeg[:2] + b"\xff" * 3 + jpeg[2:] + padding
    np.testing.assert_array_equal(compressed_to_rgb(compressed(padded)), compressed_to_rgb(compressed(jpeg)))


def test_an_orientation_in_the_file_is_ignored():
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # a quarter turn
    file = io.BytesIO()
    PIL.Image.fromarray(picture()).save(file, "JPEG", exif=exif)
    assert compressed_to_rgb(compressed(file.getvalue())).shape == picture().shape


def test_a_png_that_claims_a_huge_size_is_refused_before_decoding():
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as caught:
            compressed_to_rgb(compressed(b"\x89PNG\r\n\x1a\n" + body))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.code == "IMG_TOO_LARGE"


def test_an_image_survives_the_way_there_and_back():
    rgb = np.random.default_rng(4).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(image_message(rgb, Image().header)), rgb)
    assert decode_image(jpeg_message(rgb, Image().header)).shape == (37, 53, 3)


def test_a_picture_for_which_there_is_no_memory_is_an_image_error(monkeypatch):
    def fail(message, convert):
        raise MemoryError("cannot allocate")

    monkeypatch.setattr(image_decoding, "image_to_rgb", fail)
    with pytest.raises(ImageError) as caught:
        decode_image(image_message(np.zeros((1, 1, 3), np.uint8), Image().header))
    assert caught.value.code == "IMG_TOO_LARGE"


@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999_999))
def test_stamps_survive_the_way_there_and_back(seconds, nanoseconds):
    stamp = Time(sec=seconds, nanosec=nanoseconds)
    assert ns_to_stamp(stamp_to_ns(stamp)) == stamp


@pytest.mark.parametrize(("seconds", "nanoseconds"), [(-1, 0), (0, 1_000_000_000), (0, 4_000_000_000)])
def test_a_stamp_that_is_no_time_is_refused(seconds, nanoseconds):
    with pytest.raises(StampError) as caught:
        stamp_to_ns(Time(sec=seconds, nanosec=nanoseconds))
    assert caught.value.code == "STAMP_INVALID"


@pytest.mark.parametrize("nanoseconds", [0, 1, -1, -1_500_000_000, 10**30, -(10**30)])
def test_durations_of_either_sign_fit_the_message(nanoseconds):
    message = ns_to_duration(nanoseconds)
    assert 0 <= message.nanosec < 1_000_000_000
    if abs(nanoseconds) < 10**18:
        assert message.sec * 10**9 + message.nanosec == nanoseconds


def box2d(*values):
    return Box2D(**dict(zip(("x_min", "y_min", "x_max", "y_max"), values, strict=True)))


@given(
    st.tuples(st.integers(0, 600), st.integers(0, 440), st.integers(2, 40), st.integers(2, 40)),
)
def test_boxes_survive_the_way_there_and_back(place):
    left, top, width, height = place
    message = box2d(float(left), float(top), float(left + width), float(top + height))
    back = box_to_message(box_from_message(message, 640, 480), 640, 480)
    for name in ("x_min", "y_min", "x_max", "y_max"):
        assert getattr(back, name) == pytest.approx(getattr(message, name), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((math.nan, 0.0, 5.0, 5.0), "not finite"),
        ((0.0, 0.0, math.inf, 5.0), "not finite"),
        ((9.0, 9.0, 3.0, 3.0), "reversed or empty"),
        ((3.0, 3.0, 3.0, 9.0), "reversed or empty"),
        ((700.0, 10.0, 800.0, 20.0), "outside the 640x480 px image"),
        ((-20.0, -20.0, -1.0, -1.0), "outside"),
        ((0.2, 0.2, 0.8, 0.8), "not fractions"),
        ((0.0, 0.0, 1.0, 1.0), "not fractions"),
    ],
)
def test_a_bad_box_is_refused_with_the_rule_it_breaks(values, reason):
    with pytest.raises(BoxError, match=reason) as caught:
        box_from_message(box2d(*values), 640, 480)
    assert caught.value.code == "BOX_INVALID"


@given(st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 4))
def test_any_four_numbers_are_a_box_inside_or_a_box_error(values):
    try:
        box = box_from_message(box2d(*values), 640, 480)
    except BoxError:
        return
    message = box_to_message(box, 640, 480)
    assert 0 <= message.x_min < message.x_max <= 640
    assert 0 <= message.y_min < message.y_max <= 480


def test_a_box_partly_outside_is_cut_and_no_box_is_all_zero():
    assert box_from_message(box2d(-10.0, -10.0, 320.0, 240.0), 640, 480) == Box(0, 0, 0.5, 0.5)
    assert is_no_box(Box2D())
    assert not is_no_box(box2d(0.0, 0.0, 0.0, 1.0))
    assert box_to_message(None, 640, 480) == Box2D()


def view(state, box, last_box=None, expression="the red mug"):
    update = TrackUpdate("7", 3, box, np.float32(0.5), state, 9, expression, np.int64(12), last_box)
    return ObjectView(7, update, "the mug", "a mug", 1_000_000_001)


def test_an_object_carries_everything_that_is_known():
    message = object_to_message(view(TrackState.TRACKED, Box(0.25, 0.5, 0.5, 1.0)), 640, 480)
    assert (message.id, message.expression, message.label) == (7, "the red mug", "the mug")
    assert (message.state, message.age, message.score) == (TrackedObject.STATE_TRACKED, 12, 0.5)
    assert message.box == box2d(160.0, 240.0, 320.0, 480.0)
    assert (message.description, message.description_stamp) == ("a mug", Time(sec=1, nanosec=1))
    bare = object_to_message(replace(view(TrackState.TRACKED, None), description=""), 640, 480)
    assert (bare.description, bare.description_stamp) == ("", Time())


@pytest.mark.parametrize(
    ("state", "number"),
    [
        (TrackState.UNCERTAIN, TrackedObject.STATE_UNCERTAIN),
        (TrackState.LOST, TrackedObject.STATE_LOST),
        (TrackState.REMOVED, TrackedObject.STATE_REMOVED),
    ],
)
def test_each_state_has_its_number(state, number):
    assert object_to_message(view(state, None), 640, 480).state == number


def test_a_lost_object_shows_the_last_box_and_says_that_it_is_lost():
    message = object_to_message(view(TrackState.LOST, None, Box(0.0, 0.0, 0.5, 0.5)), 640, 480)
    assert message.state == TrackedObject.STATE_LOST
    assert message.box == box2d(0.0, 0.0, 320.0, 240.0)
