"""Public types: the protocols of models and trackers, and what they return: answers and track updates.

The settings that they take are defined in :mod:`elysium_core.settings`, and can be imported from here too. No model is
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import SURE_FROM, LoadOptions, TrackingConfig

__all__ = [
    "Answer",
    "Grounding",
    "LoadOptions",
    "ModelInfo",
    "PerceptionModel",
    "TrackState",
    "TrackUpdate",
    "Tracker",
    "TrackerStats",
    "TrackingConfig",
]


class TrackState(str, Enum):
    """State of a target in one frame.

    ``TRACKED``: the model gave a box for this frame, with a score of at least the threshold.
    ``UNCERTAIN``: the target was TRACKED a short time ago; the box of this frame has a score
    below the threshold, or the answer has no box.
    ``LOST``: there is no box for this frame; a target with an expression is searched for.
    ``REMOVED``: tracking has ended. This is sent once; no update with this id follows.
    """

    TRACKED = "TRACKED"
    UNCERTAIN = "UNCERTAIN"
    LOST = "LOST"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class TrackUpdate:
    """The result of one target for one frame.

    Attributes:
        target_id: The id that :meth:`Tracker.add` returned.
        frame_index: ``Frame.index`` of the frame.
        box: Box of the target in this frame; None when LOST or REMOVED.
        score: 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        state: See :class:`TrackState`.
        stamp_ns: ``Frame.stamp_ns`` of the frame.
        expression: The caller's words, empty for a target given by a box.
        age: Frames since the target was added, 0 in its first frame.
        last_box: The last certain box, for display and search; None before the first.
        reason: Reason why there is no certain box, one short sentence; empty when TRACKED.
        described: The model's own words by which it follows a target that was given by a box alone; else empty.
        name: The name of which this is one object, for targets that were found as one of all; else empty.
    """

    target_id: str
    frame_index: int
    box: Box | None
    score: float
    state: TrackState
    stamp_ns: int = 0
    expression: str = ""
    age: int = 0
    last_box: Box | None = None
    reason: str = ""
    described: str = ""
    name: str = ""

    def as_json(self, width: int, height: int) -> dict[str, Any]:
        """Return the fields of an output line of ``elysium track`` about a frame of this size [px]; null = no box."""
        box = self.box
        return {
            "frame": self.frame_index,
            "stamp_ns": self.stamp_ns,
            "target": self.target_id,
            "box": None if box is None else [round(v, 6) for v in box],
            "box_px": None if box is None else [round(v, 2) for v in box.to_px(width, height)],
            "score": round(self.score, 6),
            "state": self.state.value,
        } | {key: text for key in ("described", "name") if (text := getattr(self, key))}


@dataclass(slots=True)
class TrackerStats:
    """Counters of a tracker since it was made, and wall times of its last step.

    Attributes:
        frames: Frames given to ``step``.
        vision_encodes: Frames that went through the vision encoder.
        llm_passes: Forward passes of the language model.
        llm_tokens: Tokens fed to the language model.
        parse_failures: Answers without a usable box, by reason.
        failures: Frames for which the model or its device failed.
        failure: The error of the last step; None if it succeeded.
        encode_s: Wall time of image transform, vision encoder and selector in the last step [s].
        generate_s: Wall time of the language model in the last step [s].
    """

    frames: int = 0
    vision_encodes: int = 0
    llm_passes: int = 0
    llm_tokens: int = 0
    parse_failures: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    failure: BackendError | None = None
    encode_s: float = 0.0
    generate_s: float = 0.0

    def count_encoded(self, images: int, seconds: float) -> None:
        """Count images that went through the vision encoder in this step, and the time that it took [s]."""
        self.vision_encodes += images
        self.encode_s += seconds

    def count_failure(self, error: BackendError, frames: int = 1) -> None:
        """Count frames for which the model or its device failed in this step."""
        self.failure = error
        self.failures += frames

    def count_missing(self, reason: str, answers: int = 1) -> None:
        """Count answers without a usable box."""
        self.parse_failures[reason] = self.parse_failures.get(reason, 0) + answers


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Description of a loaded model, for status messages and reports.

    Attributes:
        name: Name or path it was loaded from.
        backend: Vision backend: ``torch``, ``onnx``, ``tensorrt``, or ``none``.
        device: For example ``cpu`` or ``cuda:0 NVIDIA H200``.
        precision: Data type, plus the quantisation if any: ``float32``, ``bfloat16+nf4``.
        coordinate_levels: Boxes are multiples of 1/levels of width and height; 0 = of pixels of the resized image.
        clip_length: Frames of a clip in the training of the checkpoint.
        parameters: Number of weights.
        weights: Fingerprint of the weights; empty if they have no files.
        describes: What it was trained to describe an object from: ``clip``, ``frame``, or ``none``.
    """

    name: str
    backend: str = "none"
    device: str = "cpu"
    precision: str = "float32"
    coordinate_levels: int = 100
    clip_length: int = 8
    parameters: int = 0
    weights: str = ""
    describes: str = "clip"


@dataclass(frozen=True, slots=True)
class Grounding:
    """The box of an object in one image.

    Attributes:
        box: The box; None if the answer has none.
        score: 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        text: The text of the model's answer.
        reason: Reason why there is no box, one short sentence; empty with a box.
    """

    box: Box | None
    score: float
    text: str = ""
    reason: str = ""

    def is_sure(self, threshold: float = SURE_FROM) -> bool:
        """Whether there is a box whose score is not below a threshold: one below it is hardly better than a guess."""
        return self.box is not None and self.score >= threshold


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer about the frames of a clip, with the boxes read from it.

    Attributes:
        text: The text of the answer.
        boxes: One for each frame; None where the answer has no valid box.
        scores: One for each frame, 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        problems: Number of problems by reason.
    """

    text: str
    boxes: tuple[Box | None, ...]
    scores: tuple[float, ...]
    problems: Mapping[str, int] = field(default_factory=dict)

    def at(self, frame: int) -> Grounding:
        """The answer for one frame of the clip, counted from 0."""
        box = self.boxes[frame]
        if box is not None:
            return Grounding(box, self.scores[frame], self.text)
        found = "".join(f" ({problem})" for problem in self.problems if problem != "missing")
        return Grounding(None, 0.0, self.text, f"the answer has no box for this frame{found}")


class Tracker(Protocol):
    """Tracks any number of targets in one stream of frames.

    The tracker holds the state of a run and the model holds none, so that many streams can share
    one model.
    """

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target by words, by a box, or by both.

        A box refers to the newest frame given to :meth:`step`, or to the first frame if there has
        been none. A target given only by words is searched for in the next frame.

        Returns:
            The target's id, a decimal number as text, never reused by this tracker.

        Raises:
            ExpressionError: The words are empty, too long, or contain a part of the prompt format.
            TargetError: Neither words nor box were given, or there are too many targets.
        """
        ...

    def remove(self, target_id: str) -> None:
        """Stop a target; the next :meth:`step` reports it as REMOVED once.

        Raises:
            TargetError: There is no such target.
        """
        ...

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Process one frame and return one update for each target, in the order they were added."""
        ...

    def flush(self) -> list[TrackUpdate]:
        """Return the remaining updates at the end of a recording (clip mode); otherwise an empty list."""
        ...

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        ...

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are tracked or searched for."""
        ...

    @property
    def stats(self) -> TrackerStats:
        """Counters since the tracker was made."""
        ...

    @property
    def config(self) -> TrackingConfig:
        """Current settings."""
        ...

    def configure(self, config: TrackingConfig) -> None:
        """Use new settings from the next frame on; ``mode`` cannot change."""
        ...


class PerceptionModel(Protocol):
    """The protocol by which the ROS node and the command line use a model.

    It is implemented by :class:`elysium_core.api.Elysium` and, without weights, by
    :class:`elysium_core.tracking.identity.IdentityModel`. Only one thread may use a model at a
    time.
    """

    @property
    def info(self) -> ModelInfo:
        """Description of the model."""
        ...

    def clean_words(self, expression: str) -> str:
        """Return a user's expression in the form that is put into a prompt.

        Raises:
            ExpressionError: It is empty, too long, contains a part of the prompt format, or contains no name of a
                model with a closed vocabulary.
        """
        ...

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Find one expression in one image; with ``zoom`` also in parts of it at full resolution."""
        ...

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = False) -> str:
        """Describe the object in ``box`` of ``frames[frame_index]``; with ``zoom`` from the part around it."""
        ...

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """Answer a question about frames in order of time; ``history`` are earlier ones and answers, oldest first."""
        ...

    def caption(self, frames: Frame | Sequence[Frame]) -> str:
        """Describe a whole image or clip."""
        ...

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker for one stream."""
        ...

    def interrupted_by(self, other: Callable[[], object]) -> AbstractContextManager[None]:
        """Inside a ``with`` block, call ``other`` between the parts of a long answer, as often as the model can."""
        ...

    def warm_up(self) -> None:
        """Run every stage on blank frames, so that the first real frame is not slow."""
        ...

    def close(self) -> None:
        """Free weights and device memory; the model cannot be used afterwards."""
        ...
