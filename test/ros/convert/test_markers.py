"""Boxes as markers and detections: geometry, deletion of what is gone, and both shapes of vision_msgs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from elysium_core.geometry import Box
from elysium_core.types import TrackState, TrackUpdate
from elysium_ros.convert.markers import cube_markers, detections, detections_3d, image_marker, outline_markers
from elysium_ros.convert.messages import made_up_camera_info
from elysium_ros.perception.depth import Position
from elysium_ros.perception.types import ObjectView

HEADER = Header(frame_id="camera_optical_frame")
BOX = Box(0.5, 0.5, 0.75, 1.0)


def view(number, box, state=TrackState.TRACKED, expression="the red mug"):
    return ObjectView(number, TrackUpdate(str(number), 0, box, 0.5, state, 0, expression, 3, BOX), expression)


def test_all_boxes_of_a_frame_are_one_list_of_lines():
    marker = image_marker(HEADER, [view(1, BOX), view(2, None, TrackState.LOST), view(3, Box(0, 0, 1, 1))], 640, 480)
    assert marker.header == HEADER
    assert len(marker.points) == len(marker.outline_colors) == 16
    assert {(p.x, p.y) for p in marker.points[:8]} == {(320.0, 240.0), (480.0, 240.0), (480.0, 480.0), (320.0, 480.0)}
    assert marker.outline_colors[0] != marker.outline_colors[8], "each target has its colour"


@pytest.mark.parametrize("scale", [1, 2])
def test_outlines_lie_on_a_plane_and_follow_the_calibration_at_any_scale(scale):
    # 90 degrees: at 2 m the image spans -2..2 m; 3:4 of that vertically.
    info = made_up_camera_info(640 * scale, 480 * scale, 90.0, HEADER)
    outline, label = outline_markers(HEADER, [view(1, BOX)], info, 2.0).markers
    first, opposite = outline.points[0], outline.points[2]
    assert (first.x, first.y, first.z) == pytest.approx((0.0, 0.0, 2.0))
    assert (opposite.x, opposite.y, opposite.z) == pytest.approx((1.0, 1.5, 2.0))
    assert outline.points[0] == outline.points[-1]
    assert (label.text, label.type) == ("1 the red mug", Marker.TEXT_VIEW_FACING)


def test_the_outline_of_a_target_without_a_box_is_deleted():
    info = made_up_camera_info(640, 480, 90.0, HEADER)
    markers = outline_markers(HEADER, [view(7, None, TrackState.LOST)], info, 2.0).markers
    assert [(m.id, m.action) for m in markers] == [(7, Marker.DELETE), (7, Marker.DELETE)]
    assert len({m.ns for m in markers}) == 2


def test_there_are_no_outlines_without_a_calibration():
    assert outline_markers(HEADER, [view(1, BOX)], CameraInfo(width=640, height=480), 2.0) is None
    assert outline_markers(HEADER, [view(1, BOX)], CameraInfo(), 2.0) is None


def test_a_position_is_a_cube_and_what_has_none_has_no_cube():
    placed = replace(view(1, BOX), position=Position((0.5, -0.25, 2.0), (0.4, 1.0, 0.0), 0.8))
    cubes = cube_markers(HEADER, [placed, view(2, BOX)]).markers
    said = [(marker.id, marker.ns.split("/")[1], marker.action) for marker in cubes]
    assert said == [
        (1, "box", Marker.DELETE),
        (1, "cube", Marker.ADD),
        (1, "label", Marker.ADD),
        (2, "cube", Marker.DELETE),
        (2, "label", Marker.DELETE),
    ]
    cube, label = cubes[1], cubes[2]
    assert (cube.pose.position.x, cube.pose.position.y, cube.pose.position.z) == (0.5, -0.25, 2.0)
    assert (cube.type, cube.scale.x, cube.scale.y) == (Marker.CUBE, 0.4, 1.0)
    assert cube.scale.z > 0, "rviz draws nothing flat"
    assert label.pose.position.y < -0.75, "above the cube: y is down"


def make(**fields):
    """A stand-in for a message class."""
    return lambda **given: SimpleNamespace(**{name: default() for name, default in fields.items()}, **given)


# The fields of vision_msgs changed between Foxy and Humble.
FOXY = SimpleNamespace(
    Detection2DArray=make(detections=list),
    Detection2D=make(bbox=make(center=make(x=float, y=float), size_x=float, size_y=float), results=list),
    ObjectHypothesisWithPose=make(id=str, score=float),
)
HUMBLE = SimpleNamespace(
    Detection2DArray=make(detections=list),
    Detection2D=make(bbox=make(center=make(position=make(x=float, y=float)), size_x=float, size_y=float), results=list),
    ObjectHypothesisWithPose=make(hypothesis=make(class_id=str, score=float)),
)


@pytest.mark.parametrize("messages", [FOXY, HUMBLE], ids=["foxy", "humble"])
def test_detections_have_centre_size_and_the_words_as_class(messages):
    array = detections(HEADER, [view(7, BOX), view(8, None, TrackState.LOST)], 640, 480, messages)
    [detection] = array.detections
    center = getattr(detection.bbox.center, "position", detection.bbox.center)
    assert (center.x, center.y) == (400.0, 360.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (160.0, 240.0)
    [result] = detection.results
    hypothesis = getattr(result, "hypothesis", result)
    assert (detection.id, hypothesis.score) == ("7", 0.5)
    assert getattr(hypothesis, "class_id", None) == "the red mug" or hypothesis.id == "the red mug"


POSE = make(position=make(x=float, y=float, z=float), orientation=make(w=float))
BOX_3D = {"bbox": make(center=POSE, size=make(x=float, y=float, z=float)), "results": list}
FOXY_3D = SimpleNamespace(
    Detection3DArray=make(detections=list),
    Detection3D=make(**BOX_3D),
    ObjectHypothesisWithPose=make(id=str, score=float, pose=make(pose=POSE)),
)
HUMBLE_3D = SimpleNamespace(
    Detection3DArray=make(detections=list),
    Detection3D=make(**BOX_3D, id=str),
    ObjectHypothesisWithPose=make(hypothesis=make(class_id=str, score=float), pose=make(pose=POSE)),
)


@pytest.mark.parametrize("messages", [FOXY_3D, HUMBLE_3D], ids=["foxy", "humble"])
def test_detections_in_space_are_those_with_a_position(messages):
    placed = replace(view(7, BOX), position=Position((0.5, -0.25, 2.0), (0.4, 1.0, 0.1), 0.8))
    array = detections_3d(HEADER, [placed, view(8, BOX), view(9, None, TrackState.LOST)], messages)
    [detection] = array.detections
    center, size = detection.bbox.center.position, detection.bbox.size
    assert (center.x, center.y, center.z, size.x, size.y, size.z) == (0.5, -0.25, 2.0, 0.4, 1.0, 0.1)
    assert getattr(detection, "id", "7") == "7"
    assert detection.results[0].pose.pose.position == center
    assert detection.bbox.center.orientation.w == 1.0
