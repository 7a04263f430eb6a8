"""The data that the parts of the node pass to each other: settings, images, results, answers. Imports no ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import TrackingConfig
from elysium_core.types import TrackUpdate
from elysium_ros.perception.depth import Position

Place = Callable[[int, int], Box]
"""Says where a box is in a frame of a width and height [px]; raises ``BoxError``."""


@dataclass(frozen=True, slots=True)
class DepthSettings:
    """How depth images are read.

    Attributes:
        scale: Metres a unit of their pixels; 0 = by their encoding.
        sync_slop_s: Longest time between an image and its depth image [s].
    """

    scale: float = 0.0
    sync_slop_s: float = 0.05


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """Settings of the inference thread.

    Attributes:
        cameras: Names of the cameras, at least one; ``""`` for a node with one camera.
        buffer_capacity: Recent images remembered for each camera, >= 1.
        warm_up_passes: How often the model is run before the first image, >= 0.
        tracking: Settings of the trackers.
        describe_period_s: Time between two descriptions of one target [s]; 0 = only when asked, negative = a time that
            suits, if the model can describe.
        max_answer_age_s: Questions about an image that arrived longer ago are refused [s]; 0 = never.
        model_timeout_s: How long the model may work on one image before it counts as hung [s].
        depth: How depth images are read; None if there are none.
    """

    cameras: tuple[str, ...] = ("",)
    buffer_capacity: int = 16
    warm_up_passes: int = 1
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    describe_period_s: float = -1.0
    max_answer_age_s: float = 5.0
    model_timeout_s: float = 5.0
    depth: DepthSettings | None = None


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to follow.

    Attributes:
        camera: In which camera.
        expression: Words, may be empty if there is a place.
        place: Where it is, None to search by words.
        stamp_ns: Stamp of the image that ``place`` is about [ns]; 0 = the newest.
        add: Follow it beside that camera's targets instead of replacing them.
    """

    camera: str
    expression: str = ""
    place: Place | None = None
    stamp_ns: int = 0
    add: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """One image as it arrived.

    Attributes:
        camera: Name of the camera.
        stamp_ns: Its stamp [ns], 0 if the camera sets none.
        payload: The message, not decoded.
        size: Bytes that the payload holds.
        number: Number of the image in the mailbox's life, from 1; later images have larger numbers.
        epoch: How often time was set back before it; images of two epochs have nothing to do with each other.
        arrived_s: When it arrived, on the steady clock [s].
    """

    camera: str
    stamp_ns: int
    payload: Any
    size: int
    number: int
    epoch: int = 0
    arrived_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ObjectView:
    """One target in one frame, as it is published.

    Attributes:
        id: The node's id of the target, >= 1.
        update: The tracker's update; its ``target_id`` is the node's id, not the tracker's.
        label: Short name for display.
        description: Latest text about the target, may be empty.
        description_stamp_ns: Stamp of the picture that text is about [ns].
        news: What has changed since the frame before, as half a sentence for the log; empty in most frames.
        position: Where it is in the optical frame; None without depth.
    """

    id: int
    update: TrackUpdate
    label: str = ""
    description: str = ""
    description_stamp_ns: int = 0
    news: str = ""
    position: Position | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FrameJob:
    """One image in the inference thread: decoded at first, and with the results of the trackers when it is published.

    Attributes:
        image: The image as it arrived.
        frame: The decoded picture.
        skipped: Images that arrived since the job before and were not processed.
        taken_s: When the inference thread took the image, on the steady clock [s].
        decode_s: Time of decoding [s].
        views: All targets of the camera in this frame, those that have just ended first.
        targets_changed: A target was started or has ended since the job before.
        encode_s: Time of the vision encoder [s]; 0 if it had nothing to do.
        generate_s: Time of the language model [s]; 0 if it had nothing to do.
    """

    image: Incoming
    frame: Frame
    skipped: int = 0
    taken_s: float = 0.0
    decode_s: float = 0.0
    views: tuple[ObjectView, ...] = ()
    targets_changed: bool = False
    encode_s: float = 0.0
    generate_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A text about a picture.

    Attributes:
        image: The picture; the last one, for a clip.
        width: Its width [px].
        height: Its height [px].
        text: The model's answer, one line without control characters.
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


class Outputs(Protocol):
    """Publishes results. Its methods run in the inference thread, so they must be quick."""

    def publish(self, job: FrameJob) -> None:
        """Publish a finished frame."""
        ...

    def publish_description(self, answer: Answer) -> object:
        """Publish a description that was made without being asked for."""
        ...

    def report(self, error: Exception) -> str:
        """Count and log a failure of the model or of an image; return one sentence that starts with its code."""
        ...
