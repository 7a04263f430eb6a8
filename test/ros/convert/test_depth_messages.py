"""Depth messages and calibrations: what is read, and the code of what is not."""

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from elysium_ros.convert.depth import DepthError, depth_pixels, pinhole
from elysium_ros.convert.messages import made_up_camera_info

MILLIMETRES = np.array([[1, 2, 3], [400, 500, 65_535]], np.uint16)


def message(pixels, kind, **fields):
    given = {
        "encoding": kind, "height": pixels.shape[0], "width": pixels.shape[1], "is_bigendian": 0,
        "step": pixels.strides[0], "data": pixels.tobytes(), **fields,
    }  # fmt: skip
    return SimpleNamespace(**given)


@pytest.mark.parametrize(
    ("pixels", "encoding", "fields", "metres"),
    [
        (MILLIMETRES, "16UC1", {}, 0.001),
        (MILLIMETRES, "mono16", {}, 0.001),
        (MILLIMETRES.astype(np.float32) / 8, "32FC1", {}, 1.0),
        (MILLIMETRES.byteswap(), "16UC1", {"is_bigendian": 1}, 0.001),
        (np.pad(MILLIMETRES, ((0, 0), (0, 2))), "16UC1", {"width": 3}, 0.001),
    ],
    ids=["integers", "other name", "floats", "other byte order", "padded rows"],
)
def test_both_encodings_are_read_with_their_unit(pixels, encoding, fields, metres):
    read, unit = depth_pixels(message(pixels, encoding, **fields))
    assert unit == metres
    assert np.array_equal(read, MILLIMETRES / 8 if encoding == "32FC1" else MILLIMETRES)
    assert depth_pixels(message(pixels, encoding, **fields), 0.00025)[1] == 0.00025


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"encoding": "rgb8"}, "DEPTH_ENCODING", "rgb8"),
        ({"encoding": "16UC1; compressedDepth"}, "DEPTH_ENCODING", "compressedDepth"),
        ({"height": 3}, "DEPTH_SHAPE", "3x3"),
        ({"step": 5}, "DEPTH_SHAPE", "step 5"),
        ({"width": 0}, "DEPTH_SHAPE", "0x2"),
        ({"width": 2**31, "height": 2**31}, "DEPTH_SHAPE", "2147483648"),
        ({"data": b""}, "DEPTH_SHAPE", "0 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_by_a_code_that_names_the_value(fields, code, named):
    with pytest.raises(DepthError) as caught:
        depth_pixels(message(MILLIMETRES, "16UC1", **fields))
    assert caught.value.code == code
    assert named in str(caught.value)


def test_a_message_of_ros_is_read():
    image = Image(encoding="16UC1", height=2, width=3, step=6)
    image.data = MILLIMETRES.tobytes()
    assert np.array_equal(depth_pixels(image)[0], MILLIMETRES)


def test_a_calibration_is_a_camera_in_fractions_of_the_image_that_is_sent():
    info = made_up_camera_info(640, 480, 90.0, Header())
    camera = pinhole(info)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((0.5, 320 / 480, 0.5, 0.5))
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 160, 120, 320, 240
    camera = pinhole(info)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((1.0, 320 / 240, 0.5, 0.5))


@pytest.mark.parametrize("k", [[0.0] * 9, [float("nan")] * 9, [1.0, 0.0, 1.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0]])
def test_an_uncalibrated_camera_is_refused(k):
    with pytest.raises(DepthError) as caught:
        pinhole(CameraInfo(width=640, height=480, k=k))
    assert caught.value.code == "DEPTH_CALIBRATION"
