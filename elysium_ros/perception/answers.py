"""Descriptions of a target, a box or the scene, answers to questions about them, and grounding in one picture.

Everything here runs in the inference thread, as :mod:`elysium_ros.perception.perception` does. Imports no ROS.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from elysium_core.errors import ImageError, TargetError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import MOST_FRAMES, sample_evenly
from elysium_core.prompt.expression import clean_expression
from elysium_core.types import Grounding, PerceptionModel, TrackState
from elysium_ros.perception.camera import CameraStream
from elysium_ros.perception.targets import Target
from elysium_ros.perception.types import Answer, Incoming, Place

SCENE_QUESTION = "Describe what is happening."
"""Asked when a description of the whole scene is wanted and no question was given."""

# A question about a box is asked of the picture inside it and a little around it.
_CROP_MARGIN = 0.15


def describe_target(
    model: PerceptionModel,
    stream: CameraStream,
    target: Target,
    question: str = "",
    *,
    zoom: bool = False,
    max_age_s: float = 0.0,
) -> Answer:
    """Describe a target by the last images, in one of which it was seen; or answer a question about it.

    Args:
        model: The model.
        stream: That of the target's camera.
        target: The target; it keeps a description, but not an answer.
        question: In words, about the frame in which it was seen last; empty for a description.
        zoom: Describe the part of the frames around the box, at full resolution.
        max_age_s: Refuse to speak of a target that was seen last longer ago than this [s]; 0 = never.

    Raises:
        TargetError: It has not been seen yet (``NOT_SEEN``), or not for too long (``IMAGE_OLD``); or the images were
            forgotten meanwhile (``IMAGES_FORGOTTEN``).
        ExpressionError: The question cannot be asked.
    """
    sight = target.sight
    if sight is None:
        raise TargetError(f"target {target.id} has not been found yet; there is nothing to describe", code="NOT_SEEN")
    check_age(sight.image, max_age_s)
    question = clean_expression(question) if question else ""
    with stream.unbroken():
        if question:
            text = _about_box(model, sight.frame, sight.box, question, zoom)
        else:
            images = [image for image in stream.mailbox.recent() if image.epoch == sight.image.epoch]
            before = [image for image in images if image.number < sight.image.number]
            after = [image for image in images if image.number > sight.image.number]
            length = 1 if model.info.describes == "frame" else model.info.clip_length
            frames, shown = _clip(stream, [*before, sight.image, *after], len(before), sight.frame, length)
            text = _one_line(model.describe(frames, sight.box, shown, zoom=zoom))
    if not question:
        target.describe(text, sight.image.stamp_ns)
    return Answer(sight.image, sight.frame.width, sight.frame.height, text, target.id, sight.box, question)


def describe_place(
    model: PerceptionModel,
    stream: CameraStream,
    place: Place,
    question: str = "",
    *,
    zoom: bool = False,
    max_age_s: float = 0.0,
) -> Answer:
    """Describe a box in the newest image of a camera, or answer a question about it; see :func:`describe_target`.

    Raises:
        TargetError: There is no image yet (``NO_IMAGE``), none that is new enough (``IMAGE_OLD``), or they were
            forgotten meanwhile (``IMAGES_FORGOTTEN``).
        BoxError, ExpressionError, ImageError: The request cannot be answered.
    """
    question = clean_expression(question) if question else ""
    image = check_age(stream.remembered(0), max_age_s)
    frame = stream.frame_of(image)
    box = place(frame.width, frame.height)
    with stream.unbroken():
        text = _about_box(model, frame, box, question, zoom)
    return Answer(image, frame.width, frame.height, text, box=box, question=question)


def describe_scene(
    model: PerceptionModel, stream: CameraStream, question: str = "", *, max_age_s: float = 0.0
) -> Answer:
    """Answer a question about the last images of a camera, by default what is happening; see :func:`describe_target`.

    Raises:
        TargetError: As for :func:`describe_place`.
        ExpressionError, ImageError: The request cannot be answered.
    """
    question = clean_expression(question) if question else ""
    image = check_age(stream.remembered(0), max_age_s)
    with stream.unbroken():
        earlier = [other for other in stream.mailbox.recent() if other.number < image.number]
        frame, length = stream.frame_of(image), model.info.clip_length
        frames, _ = _clip(stream, [*earlier, image], len(earlier), frame, length)
        text = _one_line(model.ask(frames, question or SCENE_QUESTION))
    return Answer(image, frame.width, frame.height, text, question=question)


def ground(model: PerceptionModel, frame: Frame, expression: str, *, zoom: bool = False) -> Grounding:
    """Find words in one picture; leaves no trace in what is followed.

    Raises:
        ExpressionError: The words cannot be asked for.
    """
    return model.ground(frame, clean_expression(expression), zoom=zoom)


def check_age(image: Incoming, max_age_s: float) -> Incoming:
    """Return the image.

    Args:
        image: An image.
        max_age_s: Longest time since it arrived [s]; 0 = any.

    Raises:
        TargetError: It is older (``IMAGE_OLD``).
    """
    age_s = time.monotonic() - image.arrived_s
    if max_age_s and age_s > max_age_s:
        raise TargetError(
            f"the image to answer from arrived {age_s:.1f} s ago, which is more than max_answer_age = {max_age_s:g} s; "
            "see whether the camera still sends",
            code="IMAGE_OLD",
        )
    return image


class DescriptionSchedule:
    """Chooses the target that is described next, when each target is described periodically."""

    def __init__(self) -> None:
        self._begun_at_s: dict[int, float] = {}

    def next(self, targets: Iterable[Target], period_s: float, now_s: float) -> Target | None:
        """Return the target that has waited longest, if one is due; its period starts anew.

        Args:
            targets: All that are followed; those that are not TRACKED have to wait.
            period_s: Time between two descriptions of one target [s], > 0.
            now_s: Steady clock [s].
        """
        followed = list(targets)
        # A new target is due at once; one that has ended is forgotten.
        self._begun_at_s = {t.id: self._begun_at_s.get(t.id, float("-inf")) for t in followed}
        certain = [t for t in followed if t.last is not None and t.last.state is TrackState.TRACKED]
        due = [t for t in certain if now_s - self._begun_at_s[t.id] >= period_s]
        target = min(due, key=lambda t: self._begun_at_s[t.id], default=None)
        if target is not None:
            self._begun_at_s[target.id] = now_s
        return target


def _about_box(model: PerceptionModel, frame: Frame, box: Box, question: str, zoom: bool) -> str:
    return _one_line(model.ask(_crop(frame, box), question) if question else model.describe(frame, box, zoom=zoom))


def _one_line(text: str) -> str:
    """Return a model's text as messages can carry it: one line, no control characters, valid Unicode."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _crop(frame: Frame, box: Box) -> Frame:
    """Cut out the box and a margin, at least one pixel."""
    x_margin, y_margin = _CROP_MARGIN * box.width, _CROP_MARGIN * box.height
    left, right = int((box.x1 - x_margin) * frame.width), round((box.x2 + x_margin) * frame.width)
    top, bottom = int((box.y1 - y_margin) * frame.height), round((box.y2 + y_margin) * frame.height)
    left, top = min(max(0, left), frame.width - 1), min(max(0, top), frame.height - 1)
    cut = frame.image[top : max(top + 1, bottom), left : max(left + 1, right)]
    return Frame(np.ascontiguousarray(cut), frame.stamp_ns, frame.index)


def _clip(
    stream: CameraStream, images: Sequence[Incoming], shown: int, frame: Frame, length: int
) -> tuple[list[Frame], int]:
    """Decode up to ``length`` remembered images, evenly spread, that have the size of one of them.

    Args:
        stream: Where they come from.
        images: The images, oldest first.
        shown: Position of one that is among them in any case.
        frame: That one, decoded.
        length: Most frames.

    Returns:
        The frames, and the position of ``frame``.
    """
    frames: list[Frame] = []
    position = 0
    for image in sample_evenly(images, min(length, MOST_FRAMES), keep=shown):
        if image is images[shown]:
            position = len(frames)
            frames.append(frame)
            continue
        try:
            other = stream.frame_of(image)
        except ImageError:
            continue  # it was reported when it arrived
        if other.image.shape == frame.image.shape:
            frames.append(other)
    return frames, position
