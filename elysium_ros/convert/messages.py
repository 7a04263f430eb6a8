"""Between messages and the core's types: stamps, boxes, objects, pictures, calibrations. Pure functions, no node.

rclpy does not check fields, and a number of the wrong kind fails only when the message is sent. So every number that
goes into a message passes ``int()`` or ``float()`` here.
"""

from __future__ import annotations

import array
import math
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from elysium_core.errors import BoxError, ElysiumError, ImageError
from elysium_core.geometry import Box
from elysium_core.types import TrackState
from elysium_ros.msg import Box2D, TrackedObject, TrackedObjectArray
from elysium_ros.perception.depth import Position
from elysium_ros.perception.types import ObjectView

NANOSECONDS = 1_000_000_000

# Longer fields of numbers (image data) are written as their length: they are not meant to be read.
_MAX_ITEMS = 256

_STATES: dict[TrackState, int] = {
    TrackState.TRACKED: TrackedObject.STATE_TRACKED,
    TrackState.UNCERTAIN: TrackedObject.STATE_UNCERTAIN,
    TrackState.LOST: TrackedObject.STATE_LOST,
    TrackState.REMOVED: TrackedObject.STATE_REMOVED,
}

STATE_NAMES = {number: state.value for state, number in _STATES.items()} | {TrackedObject.STATE_STALE: "STALE"}
"""Names of the states in ``msg/TrackedObject``."""


class StampError(ElysiumError, ValueError):
    """A stamp is not a time."""

    code = "STAMP_INVALID"


def stamp_to_ns(stamp: Any) -> int:
    """Return a message's stamp [ns], 0 if it was never set.

    Raises:
        StampError: Negative seconds, or nanoseconds not in 0..999,999,999.
    """
    seconds, nanoseconds = int(stamp.sec), int(stamp.nanosec)
    if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
        raise StampError(
            f"the stamp {seconds} s {nanoseconds} ns is not a time; seconds are >= 0 and nanoseconds 0..999999999"
        )
    return seconds * NANOSECONDS + nanoseconds


def ns_to_stamp(nanoseconds: int) -> Time:
    """Return a time [ns], >= 0, as a message."""
    seconds, rest = divmod(int(nanoseconds), NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def ns_to_duration(nanoseconds: int) -> Duration:
    """Return a duration [ns], of either sign, as a message; its nanoseconds are never negative."""
    seconds, rest = divmod(int(nanoseconds), NANOSECONDS)
    return Duration(sec=max(-(2**31), min(seconds, 2**31 - 1)), nanosec=rest)


def is_no_box(box: Box2D) -> bool:
    """Say whether a message's box is "no box": all four values zero."""
    return not any((box.x_min, box.y_min, box.x_max, box.y_max))


def box_from_message(box: Box2D, width: int, height: int) -> Box:
    """Normalise a box in pixels; one that is partly outside is cut to the frame.

    Args:
        box: Box [px].
        width: Frame width [px].
        height: Frame height [px].

    Raises:
        BoxError: Not finite, reversed, empty, entirely outside, or in fractions instead of pixels.
    """
    x1, y1, x2, y2 = (float(v) for v in (box.x_min, box.y_min, box.x_max, box.y_max))
    shown = f"the box x {x1:g}..{x2:g}, y {y1:g}..{y2:g} px"
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise BoxError(f"{shown} has a coordinate that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise BoxError(f"{shown} is reversed or empty; it needs x_min < x_max and y_min < y_max")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise BoxError(f"{shown} lies outside the {width}x{height} px image")
    if min(x1, y1) >= 0 and max(x2, y2) <= 1 and min(width, height) > 1:
        raise BoxError(f"{shown} is smaller than a pixel; boxes are in pixels, not fractions")
    return Box.from_px(x1, y1, x2, y2, width, height, clip=True)


def box_to_message(box: Box | None, width: int, height: int) -> Box2D:
    """Return a box in pixels, clipped to the frame; all zero for None."""
    if box is None:
        return Box2D()
    x1, y1, x2, y2 = box.to_px(width, height)
    return Box2D(x_min=float(x1), y_min=float(y1), x_max=float(min(x2, width)), y_max=float(min(y2, height)))


def object_to_message(view: ObjectView, width: int, height: int) -> TrackedObject:
    """Return one target as a message.

    While it is LOST or REMOVED, ``box`` is the last certain one, and ``state`` says so.

    Args:
        view: The target.
        width: Frame width [px].
        height: Frame height [px].
    """
    update = view.update
    message = TrackedObject(
        id=int(view.id),
        expression=str(update.expression),
        label=view.label,
        state=_STATES[update.state],
        box=box_to_message(update.box or update.last_box, width, height),
        score=float(update.score),
        age=int(update.age),
    )
    if view.position is not None:
        message.has_position = True
        message.position, message.size = center_of(view.position), size_of(view.position)
    if view.description:
        message.description = view.description
        message.description_stamp = ns_to_stamp(view.description_stamp_ns)
    return message


def center_of(position: Position) -> Point:
    """Return the centre [m] as a message."""
    x, y, z = (float(value) for value in position.center)
    return Point(x=x, y=y, z=z)


def size_of(position: Position) -> Vector3:
    """Return the size [m] as a message."""
    x, y, z = (float(value) for value in position.size)
    return Vector3(x=x, y=y, z=z)


def stale_message(last: TrackedObjectArray) -> TrackedObjectArray:
    """Return the message that says that results have stopped: the objects of the last one, all STALE, without boxes."""
    message = TrackedObjectArray(header=last.header, camera=last.camera, stale=True)
    message.image_width, message.image_height = last.image_width, last.image_height
    message.objects = [
        TrackedObject(
            id=known.id, expression=known.expression, label=known.label, age=known.age, state=TrackedObject.STATE_STALE
        )
        for known in last.objects
        if known.state != TrackedObject.STATE_REMOVED
    ]
    return message


def header_at(stamp_ns: int, frame_id: str) -> Header:
    """Build a header.

    Args:
        stamp_ns: Time [ns], >= 0.
        frame_id: The camera's optical frame.
    """
    return Header(stamp=ns_to_stamp(stamp_ns), frame_id=frame_id)


def image_message(rgb: NDArray[np.uint8], header: Header) -> Image:
    """Build an ``rgb8`` image.

    Args:
        rgb: RGB, uint8, shape (height, width, 3).
        header: Header of the message; shared, not copied.
    """
    height, width = rgb.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.data = _as_array(rgb)
    return message


def jpeg_message(rgb: NDArray[np.uint8], header: Header, quality: int = 90) -> CompressedImage:
    """Build a JPEG image.

    Args:
        rgb: RGB, uint8, shape (height, width, 3).
        header: Header of the message; shared, not copied.
        quality: 1..100.

    Raises:
        ImageError: The picture is too large for JPEG (65,500 px a side).
    """
    if max(rgb.shape[:2]) > 65_500:
        raise ImageError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} px does not fit JPEG; publish it raw or smaller")
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    # The format that image_transport writes: original encoding, then what the JPEG holds.
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = _as_array(np.asarray(jpeg, dtype=np.uint8))
    return message


def made_up_camera_info(width: int, height: int, fov_deg: float, header: Header) -> CameraInfo:
    """Build the calibration of an ideal pinhole camera.

    Nothing is known about the camera that took a video: square pixels, no
    distortion and a centred optical axis are assumed, and the field of view is the
    caller's guess. Good for markers, not for measuring.

    Args:
        width: Image width [px].
        height: Image height [px].
        fov_deg: Horizontal field of view [deg], in (0, 180).
        header: Header of the message; shared, not copied.
    """
    focal_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    center_x, center_y = width / 2, height / 2
    info = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [focal_px, 0.0, center_x, 0.0, focal_px, center_y, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal_px, 0.0, center_x, 0.0, 0.0, focal_px, center_y, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def resize(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale a picture.

    Args:
        rgb: RGB, uint8, shape (H, W, 3).
        width: Wanted width [px]; 0 = in proportion to ``height``.
        height: Wanted height [px]; 0 = in proportion to ``width``.

    Returns:
        RGB, shape (height, width, 3); ``rgb`` itself when nothing changes.
    """
    own_height, own_width = rgb.shape[:2]
    width_px = width or (max(1, round(own_width * height / own_height)) if height else own_width)
    height_px = height or (max(1, round(own_height * width / own_width)) if width else own_height)
    if (width_px, height_px) == (own_width, own_height):
        return rgb
    smaller = width_px * height_px < own_width * own_height
    scaled = cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return scaled.astype(np.uint8, copy=False)


def _as_array(pixels: NDArray[np.uint8]) -> array.array[int]:
    # rclpy takes an array.array as it is; a numpy array or bytes would be converted number by number.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data


def as_plain(value: Any) -> Any:
    """Turn a message, or a field of one, into dicts, lists, numbers and text for JSON.

    Args:
        value: A message or a field's value. Numbers in bulk become ``"<N items>"`` when there are more than 256;
            numbers that JSON does not have become None.
    """
    if hasattr(value, "get_fields_and_field_types"):
        return {name: as_plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # float32 fields arrive as the nearest double; six digits are more than they hold.
        return round(value, 6) if math.isfinite(value) else None
    if len(value) > _MAX_ITEMS and not isinstance(value, list):
        return f"<{len(value)} items>"
    # Sequences of numbers are array.array, numpy arrays or bytes; those of messages are lists.
    return [as_plain(item) for item in (value.tolist() if hasattr(value, "tolist") else value)]
