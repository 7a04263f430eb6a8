"""Between messages and the core's types: stamps, boxes, objects. Pure functions, no node.

rclpy does not check fields, and a number of the wrong kind fails only when the message is sent. So every number that
goes into a message passes ``int()`` or ``float()`` here.
"""

from __future__ import annotations

import math
from typing import Any

from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from elysium_core.errors import BoxError, ElysiumError, ImageError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import TrackState
from elysium_ros.convert.images import compressed_to_rgb, image_to_rgb
from elysium_ros.msg import Box2D, TrackedObject
from elysium_ros.perception.targets import ObjectView

NANOSECONDS = 1_000_000_000

_MAX_LABEL = 40

_STATES: dict[TrackState, int] = {
    TrackState.TRACKED: TrackedObject.STATE_TRACKED,
    TrackState.UNCERTAIN: TrackedObject.STATE_UNCERTAIN,
    TrackState.LOST: TrackedObject.STATE_LOST,
    TrackState.REMOVED: TrackedObject.STATE_REMOVED,
}


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


def message_to_frame(message: Any, stamp_ns: int, index: int) -> Frame:
    """Decode an ``Image`` or a ``CompressedImage``.

    Raises:
        ImageError: The picture cannot be used; see the two functions this chooses from.
    """
    decode = image_to_rgb if isinstance(message, Image) else compressed_to_rgb
    try:
        return Frame(decode(message), stamp_ns, index)
    except (MemoryError, OverflowError) as error:
        raise ImageError(f"there is not enough memory for the picture ({error})", code="IMG_TOO_LARGE") from error


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
    x1, y1, x2, y2 = (float(v) for v in box.to_px(width, height))
    return Box2D(x_min=x1, y_min=y1, x_max=min(x2, float(width)), y_max=min(y2, float(height)))


def object_to_message(view: ObjectView, width: int, height: int) -> TrackedObject:
    """Return one target as a message.

    While it is LOST or REMOVED, ``box`` is the last certain one, and ``state`` says so.

    Args:
        view: The target.
        width: Frame width [px].
        height: Frame height [px].
    """
    update = view.update
    return TrackedObject(
        id=view.id,
        expression=str(update.expression),
        label=label_of(view),
        state=int(_STATES[update.state]),
        box=box_to_message(update.box or update.last_box, width, height),
        score=float(update.score),
        age=int(update.age),
        description=to_text(view.description),
        description_stamp=ns_to_stamp(view.description_stamp_ns),
    )


def label_of(view: ObjectView) -> str:
    """Return a short name for display: the words, cut at a blank, or the id."""
    words = view.update.expression
    if not words:
        return f"target {view.id}"
    if len(words) <= _MAX_LABEL:
        return words
    return words[:_MAX_LABEL].rsplit(" ", 1)[0] + "..."


def to_text(text: str) -> str:
    """Return a model's text as a message can carry it: one line, no control characters, valid Unicode."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def copy_header(header: Header) -> Header:
    """Return an equal header that shares nothing with the one given."""
    return Header(
        stamp=Time(sec=int(header.stamp.sec), nanosec=int(header.stamp.nanosec)), frame_id=str(header.frame_id)
    )
