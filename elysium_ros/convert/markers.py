"""Boxes as rviz and Foxglove draw them. Pure functions from results to messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import ImageMarker, Marker, MarkerArray

from elysium_core.geometry import Box
from elysium_core.io.box_lines import (
    LINE_WIDTH_M,
    LINE_WIDTH_PX,
    MARKER_LIFETIME_NS,
    TEXT_HEIGHT_M,
    corners,
    is_calibrated,
    outline_on_plane,
)
from elysium_core.io.overlay import target_color
from elysium_ros.convert.messages import center_of, ns_to_duration, size_of
from elysium_ros.perception.depth import Position
from elysium_ros.perception.types import ObjectView

_CUBE_OPACITY = 0.4
# rviz draws no cube without a thickness.
_THINNEST_M = 0.01


def image_marker(header: Header, views: Sequence[ObjectView], width: int, height: int) -> ImageMarker:
    """Return all boxes of a frame as one list of lines in its pixels.

    Args:
        header: Header of the image.
        views: The targets; those without a box in this frame are left out.
        width: Image width [px].
        height: Image height [px].
    """
    marker = ImageMarker(header=header, ns="elysium", type=ImageMarker.LINE_LIST, action=ImageMarker.ADD)
    marker.scale = LINE_WIDTH_PX
    marker.lifetime = ns_to_duration(MARKER_LIFETIME_NS)
    for view, box in _with_box(views):
        points = [Point(x=x, y=y) for x, y in corners(*box.to_px(width, height))]
        for start, end in pairwise(points):
            marker.points += [start, end]
            marker.outline_colors += [_color(view), _color(view)]
    return marker


def outline_markers(
    header: Header, views: Sequence[ObjectView], info: CameraInfo, distance_m: float
) -> MarkerArray | None:
    """Return the boxes as outlines on a plane in front of the camera, with their names.

    The plane is a way to see boxes in 3D, not a measurement of depth.

    Args:
        header: Header of the image; its frame is the camera's optical frame (z forward, x right, y down).
        views: The targets; those without a box in this frame are deleted.
        info: Calibration of the camera, for any image size of the same aspect ratio.
        distance_m: Distance of the plane [m], > 0.

    Returns:
        The markers, or None if the camera is not calibrated.
    """
    if not is_calibrated(info.k, info.width, info.height):
        return None
    markers = []
    for view in views:
        box = view.update.box
        if box is None:
            markers += [_deletion(header, view, "box"), _deletion(header, view, "label")]
            continue
        outline = outline_on_plane(box, info.k, info.width, info.height, distance_m)
        left, top = outline[0]
        markers.append(_outline(header, view, [Point(x=x, y=y, z=distance_m) for x, y in outline]))
        markers.append(_label(header, view, Point(x=left, y=top - TEXT_HEIGHT_M, z=distance_m)))
    return MarkerArray(markers=markers)


def cube_markers(header: Header, views: Sequence[ObjectView]) -> MarkerArray:
    """Return the targets that have a position as cubes with their names; the outlines of those are deleted.

    Args:
        header: Header of the image; its frame is the camera's optical frame.
        views: The targets; cubes and names of those without a position are deleted.
    """
    markers = []
    for view in views:
        if view.position is None:
            markers += [_deletion(header, view, "cube"), _deletion(header, view, "label")]
            continue
        x, y, z = view.position.center
        top = y - view.position.size[1] / 2 - TEXT_HEIGHT_M
        markers += [_deletion(header, view, "box"), _cube(header, view, view.position)]
        markers.append(_label(header, view, Point(x=x, y=top, z=z)))
    return MarkerArray(markers=markers)


def detections_3d(header: Header, views: Sequence[ObjectView], messages: Any) -> Any:
    """Return the targets that have a position as ``vision_msgs/Detection3DArray``.

    Args:
        header: Header of the image.
        views: The targets; those without a position are left out.
        messages: The module ``vision_msgs.msg``, of whichever ROS distribution: its fields have changed.
    """
    array = messages.Detection3DArray(header=header)
    for view in views:
        if view.position is None:
            continue
        detection = messages.Detection3D(header=header)
        if hasattr(detection, "id"):
            detection.id = str(view.id)
        detection.bbox.center.position = center_of(view.position)
        detection.bbox.center.orientation.w = 1.0
        detection.bbox.size = size_of(view.position)
        result = _hypothesis(view, messages)
        result.pose.pose = detection.bbox.center
        detection.results.append(result)
        array.detections.append(detection)
    return array


def detections(header: Header, views: Sequence[ObjectView], width: int, height: int, messages: Any) -> Any:
    """Return the boxes of a frame as ``vision_msgs/Detection2DArray``.

    Args:
        header: Header of the image.
        views: The targets; those without a box in this frame are left out.
        width: Image width [px].
        height: Image height [px].
        messages: The module ``vision_msgs.msg``, of whichever ROS distribution: its fields have changed.
    """
    array = messages.Detection2DArray(header=header)
    for view, box in _with_box(views):
        x1, y1, x2, y2 = box.to_px(width, height)
        detection = messages.Detection2D(header=header, id=str(view.id))
        center = detection.bbox.center
        position = center.position if hasattr(center, "position") else center
        position.x, position.y = (x1 + x2) / 2, (y1 + y2) / 2
        detection.bbox.size_x, detection.bbox.size_y = x2 - x1, y2 - y1
        detection.results.append(_hypothesis(view, messages))
        array.detections.append(detection)
    return array


def _hypothesis(view: ObjectView, messages: Any) -> Any:
    result = messages.ObjectHypothesisWithPose()
    hypothesis = getattr(result, "hypothesis", result)
    name_field = "class_id" if hasattr(hypothesis, "class_id") else "id"
    setattr(hypothesis, name_field, view.label)
    hypothesis.score = float(view.update.score)
    return result


def _with_box(views: Sequence[ObjectView]) -> list[tuple[ObjectView, Box]]:
    return [(view, view.update.box) for view in views if view.update.box is not None]


def _color(view: ObjectView) -> ColorRGBA:
    red, green, blue = target_color(view.update.target_id)
    return ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=1.0)


def _marker(header: Header, view: ObjectView, kind: str, marker_type: int) -> Marker:
    marker = Marker(header=header, ns=f"elysium/{kind}", id=view.id % 2**31, type=marker_type, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.color = _color(view)
    marker.lifetime = ns_to_duration(MARKER_LIFETIME_NS)
    return marker


def _outline(header: Header, view: ObjectView, points: list[Point]) -> Marker:
    marker = _marker(header, view, "box", Marker.LINE_STRIP)
    marker.scale.x = LINE_WIDTH_M
    marker.points = points
    return marker


def _cube(header: Header, view: ObjectView, position: Position) -> Marker:
    marker = _marker(header, view, "cube", Marker.CUBE)
    marker.pose.position, marker.scale = center_of(position), size_of(position)
    marker.scale.z = max(marker.scale.z, _THINNEST_M)
    marker.color.a = _CUBE_OPACITY
    return marker


def _label(header: Header, view: ObjectView, position: Point) -> Marker:
    marker = _marker(header, view, "label", Marker.TEXT_VIEW_FACING)
    marker.pose.position = position
    marker.scale.z = TEXT_HEIGHT_M
    marker.text = f"{view.id} {view.label}"
    return marker


def _deletion(header: Header, view: ObjectView, kind: str) -> Marker:
    marker = _marker(header, view, kind, Marker.LINE_STRIP)
    marker.action = Marker.DELETE
    return marker
