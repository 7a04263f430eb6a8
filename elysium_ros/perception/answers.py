"""Answers in words and one-shot searches: describe a target, a box or the scene; find words in one picture. No ROS.

Everything here runs in the inference thread, as :mod:`elysium_ros.perception.perception` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elysium_core.errors import ImageError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression
from elysium_core.types import Grounding, TrackState
from elysium_ros.perception.camera_stream import CameraStream
from elysium_ros.perception.mailbox import Incoming
from elysium_ros.perception.perception import Perception, Place
from elysium_ros.perception.targets import Target

SCENE_QUESTION = "Describe what is happening."
"""Asked when a description of the whole scene is wanted and no question was given."""

# A question about a box is asked of the picture inside it and a little around it.
_CROP_MARGIN = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A text about a picture.

    Attributes:
        image: The picture; the last one, for a clip.
        width: Its width [px].
        height: Its height [px].
        text: What the model says.
        target_id: The node's id of the target described, 0 for the scene or a box.
        box: What was described, None for the scene.
        question: What was asked, empty for a plain description.
    """

    image: Incoming
    width: int
    height: int
    text: str
    target_id: int = 0
    box: Box | None = None
    question: str = ""


def describe_target(perception: Perception, target_id: int, question: str = "") -> Answer:
    """Describe a target where it was seen last, or answer a question about it.

    Raises:
        TargetError: There is no such target, or it has not been seen yet (``NOT_SEEN``).
        ExpressionError: The question cannot be asked.
    """
    target = perception.target(target_id)
    sight = target.sight
    if sight is None:
        raise TargetError(f"target {target_id} has not been found yet; there is nothing to describe", code="NOT_SEEN")
    question = clean_expression(question) if question else ""
    text = _about_box(perception, sight.frame, sight.box, question)
    if not question:
        target.description, target.description_stamp_ns = text, sight.image.stamp_ns
    return Answer(sight.image, sight.frame.width, sight.frame.height, text, target_id, sight.box, question)


def describe_place(perception: Perception, camera: str, place: Place, question: str = "") -> Answer:
    """Describe a box in the newest image of a camera, or answer a question about it.

    Raises:
        TargetError: No such camera, or no image yet.
        BoxError, ExpressionError, ImageError: The request cannot be answered.
    """
    stream = perception.stream(camera)
    question = clean_expression(question) if question else ""
    image = stream.remembered(0)
    frame = stream.frame_of(image)
    box = place(frame.width, frame.height)
    return Answer(
        image, frame.width, frame.height, _about_box(perception, frame, box, question), box=box, question=question
    )


def describe_scene(perception: Perception, camera: str, question: str = "") -> Answer:
    """Answer a question about the last images of a camera, by default what is happening.

    Raises:
        TargetError: No such camera, or no image yet.
        ExpressionError, ImageError: The request cannot be answered.
    """
    stream = perception.stream(camera)
    question = clean_expression(question) if question else ""
    image = stream.remembered(0)
    frames = _clip(stream, image, perception.model.info.clip_length)
    text = perception.model.ask(frames, question or SCENE_QUESTION)
    return Answer(image, frames[-1].width, frames[-1].height, text, question=question)


def ground(perception: Perception, frame: Frame, expression: str) -> Grounding:
    """Find words in one picture; leaves no trace in what is followed.

    Raises:
        ExpressionError: The words cannot be asked for.
    """
    return perception.model.ground(frame, clean_expression(expression), zoom=perception.config.zoom)


def next_due(perception: Perception, period_s: float, now_s: float) -> Target | None:
    """Return the target that has waited longest for its periodic description, if one is due.

    Args:
        perception: What is followed.
        period_s: Time between two descriptions of one target [s]; 0 = never.
        now_s: Steady clock [s].
    """
    if period_s <= 0:
        return None
    certain = [t for t in perception.targets() if t.last is not None and t.last.state is TrackState.TRACKED]
    due = [t for t in certain if now_s - t.described_at_s >= period_s]
    return min(due, key=lambda t: t.described_at_s, default=None)


def _about_box(perception: Perception, frame: Frame, box: Box, question: str) -> str:
    if not question:
        return perception.model.describe(frame, box, zoom=perception.config.zoom)
    return perception.model.ask(_crop(frame, box), question)


def _crop(frame: Frame, box: Box) -> Frame:
    """Cut out the box and a margin, at least one pixel."""
    x_margin, y_margin = _CROP_MARGIN * box.width, _CROP_MARGIN * box.height
    left, right = int((box.x1 - x_margin) * frame.width), round((box.x2 + x_margin) * frame.width)
    top, bottom = int((box.y1 - y_margin) * frame.height), round((box.y2 + y_margin) * frame.height)
    left, top = min(max(0, left), frame.width - 1), min(max(0, top), frame.height - 1)
    cut = frame.image[top : max(top + 1, bottom), left : max(left + 1, right)]
    return Frame(np.ascontiguousarray(cut), frame.stamp_ns, frame.index)


def _clip(stream: CameraStream, newest: Incoming, length: int) -> list[Frame]:
    """Decode up to ``length`` remembered images, evenly spread, that have the newest one's size; oldest first."""
    last = stream.frame_of(newest)
    earlier = [image for image in stream.mailbox.recent() if image.number < newest.number]
    stride = max(1, len(earlier) // max(1, length - 1))
    frames = []
    for image in earlier[::-stride][: length - 1][::-1]:
        try:
            frames.append(stream.frame_of(image))
        except ImageError:
            continue  # it was reported when it arrived
    return [frame for frame in frames if frame.image.shape == last.image.shape] + [last]
