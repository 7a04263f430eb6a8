"""Markers without a calibration: the node says why there are none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.convert.messages import made_up_camera_info
from elysium_ros.node.publishers import Publishers
from elysium_ros.perception.types import ObjectView


@pytest.fixture
def publishers():
    """Publishers without a node; what is reported is in ``reported``."""
    made = object.__new__(Publishers)
    made.reported = []
    made.info = None
    made._told_uncalibrated = set()
    made._parameters = SimpleNamespace(settings=SimpleNamespace(depth_enabled=False, marker_distance_m=2.0))
    made._cameras = SimpleNamespace(calibration=lambda camera: made.info)
    made._node = SimpleNamespace(
        resolve_topic_name=lambda name: f"/robot/{name}", guard=SimpleNamespace(report=made.reported.append)
    )
    return made


def job_of(camera: str):
    view = ObjectView(1, TrackUpdate("1", 0, Box(0, 0, 1, 1), 1.0, TrackState.TRACKED))
    image = SimpleNamespace(camera=camera, payload=SimpleNamespace(header=Header()))
    return SimpleNamespace(image=image, views=[view])


def test_who_waits_for_markers_is_told_once_why_there_are_none(publishers):
    sent: list[MarkerArray] = []
    publisher = SimpleNamespace(publish=sent.append)
    for camera in ("", "", "rear"):
        publishers._publish_markers(publisher, job_of(camera))
    assert [error.code for error in publishers.reported] == ["CAM_NO_CALIBRATION"] * 2
    assert [
        "/robot/camera_info" in str(publishers.reported[0]),
        "/robot/rear/camera_info" in str(publishers.reported[1]),
    ]
    assert sent == []
    publishers.info = made_up_camera_info(64, 48, 90.0, Header())
    publishers._publish_markers(publisher, job_of(""))
    assert len(sent[0].markers) == 2


def test_an_empty_calibration_is_another_reason(publishers):
    publishers.info = CameraInfo(width=64, height=48)
    publishers._publish_markers(SimpleNamespace(), job_of(""))
    assert "no focal length" in str(publishers.reported[0])
