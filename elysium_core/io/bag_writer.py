"""Writes what a tracker says about each frame into a bag: the messages of the tracker node, without ROS."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2

from elysium_core.errors import DataError, packages_needed
from elysium_core.frames import Frame
from elysium_core.io.bag_recording import BagFrame
from elysium_core.io.box_lines import (
    LINE_WIDTH_M,
    LINE_WIDTH_PX,
    MARKER_LIFETIME_NS,
    TEXT_HEIGHT_M,
    corners,
    is_calibrated,
    outline_on_plane,
)
from elysium_core.io.complete_file import CompleteFile
from elysium_core.io.files import draft_of, publish
from elysium_core.io.labels import target_name
from elysium_core.io.message_types import OBJECTS_TYPE, message_types
from elysium_core.io.overlay import draw_tracks, target_color
from elysium_core.types import TrackState, TrackUpdate

_OBJECTS, _PICTURES, _LINES, _MARKERS = "objects", "annotated/image/compressed", "image_markers", "markers"
_TYPES: Mapping[str, str] = {
    _OBJECTS: OBJECTS_TYPE,
    _PICTURES: "sensor_msgs/msg/CompressedImage",
    _LINES: "visualization_msgs/msg/ImageMarker",
    _MARKERS: "visualization_msgs/msg/MarkerArray",
}
_MARKER, _IMAGE_MARKER = "visualization_msgs/msg/Marker", "visualization_msgs/msg/ImageMarker"
_POINT, _COLOR = "geometry_msgs/msg/Point", "std_msgs/msg/ColorRGBA"
_JPEG_QUALITY = 90
_LONGEST_JPEG_SIDE = 65_500
_NS_PER_S = 1_000_000_000


def check_bag_name(path: Path) -> None:
    """Refuse to write a bag over anything: it may be somebody's recording.

    Raises:
        DataError: ``path`` exists (``BAG_EXISTS``).
    """
    if path.exists():
        raise DataError(f"the bag {str(path)!r} exists; delete it, or write to another file", code="BAG_EXISTS")


class BagWriter(CompleteFile):
    """Writes a bag (MCAP) with a message on each topic for each frame; the file appears when it is complete.

    Topics are those of a tracker node of the name ``/elysium``: ``objects``, ``annotated/image/compressed``,
    ``image_markers``, and ``markers`` where the camera is calibrated. Each message has the header of its image, and
    the time of recording of that.

    Use it as a context manager: leaving the block normally completes the file, leaving it by an exception discards it.

    Args:
        path: The file, ending in ``.mcap``; it must not exist.
        camera_info: Calibration (``sensor_msgs/CameraInfo``) for the markers; None for none.
        node: Name in front of the topics.
        marker_distance_m: Distance of the outlines from the camera [m]; the node's ``publish.marker_distance``.

    Raises:
        DataError: The file exists (``BAG_EXISTS``) or cannot be written (``BAG_WRITE``).
        BackendError: The package ``rosbags`` is not installed (``PACKAGE_MISSING``).
    """

    def __init__(
        self, path: Path, camera_info: Any | None = None, *, node: str = "/elysium", marker_distance_m: float = 2.0
    ) -> None:
        self.path = path
        self.frames = 0
        check_bag_name(path)
        with packages_needed():
            from rosbags.rosbag2 import StoragePlugin, Writer
        self._types = message_types()
        calibrated = camera_info is not None and is_calibrated(camera_info.k, camera_info.width, camera_info.height)
        self._info: Any = camera_info if calibrated else None
        self._distance_m = marker_distance_m
        try:
            # rosbags writes a folder; its one file with messages is a bag by itself.
            self._folder = draft_of(path)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._writer = Writer(self._folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except (OSError, ValueError) as error:
            raise self._failure(error) from error
        self._topics = {
            name: self._writer.add_connection(f"{node}/{name}", kind, typestore=self._types.store)
            for name, kind in _TYPES.items()
            if name != _MARKERS or self._info is not None
        }

    def write(self, frame: Frame, updates: Sequence[TrackUpdate]) -> None:
        """Add the messages about one frame.

        Args:
            frame: The frame; of a :class:`~elysium_core.io.bag_recording.BagFrame` the header is kept.
            updates: Its updates; the ids of the targets are numbers.

        Raises:
            DataError: The file cannot be written (``BAG_WRITE``).
        """
        header = self._header(frame)
        width, height = frame.size if isinstance(frame, BagFrame) else (frame.width, frame.height)
        time_ns = frame.log_ns if isinstance(frame, BagFrame) else frame.stamp_ns
        messages = {
            _OBJECTS: self._objects(header, updates, width, height),
            _PICTURES: self._picture(header, frame, updates),
            _LINES: self._lines(header, updates, width, height),
        }
        if self._info is not None:
            messages[_MARKERS] = self._markers(header, updates)
        try:
            for name, message in messages.items():
                self._writer.write(self._topics[name], time_ns, self._types.write(message))
        except OSError as error:
            raise self._failure(error) from error
        self.frames += 1

    def close(self) -> None:
        """Complete the file. Without a single frame no file is written.

        Raises:
            DataError: The file cannot be written (``BAG_WRITE``).
        """
        try:
            self._writer.close()
            if self.frames:
                publish(next(self._folder.glob("*.mcap")), self.path)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def abort(self) -> None:
        """Discard what was written."""
        self._writer.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _header(self, frame: Frame) -> Any:
        stamp_ns, frame_id = frame.stamp_ns, "camera_optical_frame"
        if isinstance(frame, BagFrame):
            stamp_ns, frame_id = frame.header_ns, frame.frame_id
        sec, nanosec = divmod(stamp_ns, _NS_PER_S)
        stamp = self._types.new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self._types.new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _objects(self, header: Any, updates: Sequence[TrackUpdate], width: int, height: int) -> Any:
        return self._types.new(
            OBJECTS_TYPE,
            header=header,
            image_width=width,
            image_height=height,
            objects=[self._object(update, width, height) for update in updates],
        )

    def _object(self, update: TrackUpdate, width: int, height: int) -> Any:
        number, kind = int(update.target_id), "elysium_ros/msg/TrackedObject"
        return self._types.new(
            kind,
            id=number,
            expression=update.expression,
            label=target_name(number, update.expression),
            state=self._types.constant(kind, f"STATE_{update.state.name}"),
            box=self._box(update, width, height),
            score=float(update.score),
            age=update.age,
        )

    def _box(self, update: TrackUpdate, width: int, height: int) -> Any:
        # As the node has it: of a lost target the last certain box, and the state says so.
        box = update.box or update.last_box
        sides = (0.0, 0.0, 0.0, 0.0) if box is None else box.to_px(width, height)
        names = ("x_min", "y_min", "x_max", "y_max")
        return self._types.new("elysium_ros/msg/Box2D", **dict(zip(names, map(float, sides), strict=True)))

    def _picture(self, header: Any, frame: Frame, updates: Sequence[TrackUpdate]) -> Any:
        scale = min(1.0, _LONGEST_JPEG_SIDE / max(frame.width, frame.height))
        picture = draw_tracks(frame.image, updates, scale=scale)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
        return self._types.new(_TYPES[_PICTURES], header=header, format="rgb8; jpeg compressed bgr8", data=jpeg.ravel())

    def _lines(self, header: Any, updates: Sequence[TrackUpdate], width: int, height: int) -> Any:
        points, colors = [], []
        for update in updates:
            if update.box is not None:
                ends = [end for line in pairwise(corners(*update.box.to_px(width, height))) for end in line]
                points += [self._types.new(_POINT, x=float(x), y=float(y)) for x, y in ends]
                colors += [self._color(update)] * len(ends)
        return self._types.new(
            _IMAGE_MARKER,
            header=header,
            ns="elysium",
            type=self._types.constant(_IMAGE_MARKER, "LINE_LIST"),
            scale=LINE_WIDTH_PX,
            lifetime=self._lifetime(),
            points=points,
            outline_colors=colors,
        )

    def _markers(self, header: Any, updates: Sequence[TrackUpdate]) -> Any:
        markers = []
        for update in updates:
            if update.box is None or update.state is TrackState.REMOVED:
                markers += [self._marker(header, update, kind, "LINE_STRIP", action=2) for kind in ("box", "label")]
                continue
            info, distance_m = self._info, self._distance_m
            outline = outline_on_plane(update.box, info.k, info.width, info.height, distance_m)
            points = [self._types.new(_POINT, x=x, y=y, z=distance_m) for x, y in outline]
            label = self._types.new(_POINT, x=outline[0][0], y=outline[0][1] - TEXT_HEIGHT_M, z=distance_m)
            line = self._types.new("geometry_msgs/msg/Vector3", x=LINE_WIDTH_M)
            text = self._types.new("geometry_msgs/msg/Vector3", z=TEXT_HEIGHT_M)
            name = f"{update.target_id} {target_name(int(update.target_id), update.expression)}"
            markers.append(self._marker(header, update, "box", "LINE_STRIP", scale=line, points=points))
            markers.append(self._marker(header, update, "label", "TEXT_VIEW_FACING", at=label, scale=text, text=name))
        return self._types.new(_TYPES[_MARKERS], markers=markers)

    def _marker(
        self, header: Any, update: TrackUpdate, kind: str, shape: str, at: Any | None = None, **given: Any
    ) -> Any:
        upright = self._types.new("geometry_msgs/msg/Quaternion", w=1.0)
        position = at or self._types.new(_POINT)
        return self._types.new(
            _MARKER,
            header=header,
            ns=f"elysium/{kind}",
            id=int(update.target_id),
            type=self._types.constant(_MARKER, shape),
            pose=self._types.new("geometry_msgs/msg/Pose", position=position, orientation=upright),
            color=self._color(update),
            lifetime=self._lifetime(),
            **given,
        )

    def _color(self, update: TrackUpdate) -> Any:
        red, green, blue = target_color(update.target_id)
        return self._types.new(_COLOR, r=red / 255, g=green / 255, b=blue / 255, a=1.0)

    def _lifetime(self) -> Any:
        sec, nanosec = divmod(MARKER_LIFETIME_NS, _NS_PER_S)
        return self._types.new("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec)

    def _failure(self, error: Exception) -> DataError:
        reason = getattr(error, "strerror", None) or error
        return DataError(f"cannot write the bag {str(self.path)!r}: {reason}", code="BAG_WRITE")
