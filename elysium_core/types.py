"""What users give and get: settings, answers, track updates, and the protocols of models and trackers.

The only place where defaults of settings stand; command line and ROS read them here. Imports no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError, ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box

MODES = ("stream", "clip")
WINDOWS = ("auto", "anchor", "growing")


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """How targets are followed.

    Attributes:
        mode: ``stream`` answers every frame as it arrives; ``clip`` is the paper's
            offline protocol (section 4.3).
        window: What the model sees in stream mode: ``anchor`` = the frame in which the
            target was last surely seen and the live frame; ``growing`` = up to
            ``clip_length`` frames, restarted with one frame of overlap; ``auto`` = what
            the checkpoint recommends.
        clip_length: Frames the model sees at most at once, 2..32; None = what suits the model: in stream mode
            the length it was trained with, in clip mode the paper's 8, or the trained length where that is shorter.
        max_targets: Targets followed at the same time, 1..16.
        score_threshold: A box scoring below is UNCERTAIN, 0..1.
        lost_after_s: Without a certain box for this long, a target is LOST [s].
        remove_after_s: LOST for this long, a target is REMOVED [s]; 0 = never.
        reground_period_s: Ask again by words this often, and while LOST [s]; 0 = off.
        max_new_tokens: Longest answer the model may write about up to 8 frames [tokens]; about more,
            longer in proportion.
        draft_tokens: Other guesses than the likeliest that a pass may check, for all targets
            together [tokens]; 0 = none; -1 = 32 on a GPU, where they are nearly free, and none on a
            processor, where they do not pay. Changes how fast answers come, never an answer.
        zoom: Look a second time at each target, through a part of the frame around its last place at
            full resolution, and through parts of the frame for what words have not found; for small
            things. Costs one more picture and pass for each target. Stream mode only.

    Raises:
        ConfigError: A value is out of range; the message names all that are.
    """

    mode: str = "stream"
    window: str = "auto"
    clip_length: int | None = None
    max_targets: int = 4
    score_threshold: float = 0.3
    lost_after_s: float = 2.0
    remove_after_s: float = 10.0
    reground_period_s: float = 5.0
    max_new_tokens: int = 256
    draft_tokens: int = -1
    zoom: bool = False

    def __post_init__(self) -> None:
        problems = []
        if self.mode not in MODES:
            problems.append(f"mode {self.mode!r} is not one of {', '.join(MODES)}")
        if self.window not in WINDOWS:
            problems.append(f"window {self.window!r} is not one of {', '.join(WINDOWS)}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is None and DEFAULTS[name] is None:
                continue
            kinds = (int, float) if isinstance(DEFAULTS[name], float) else (int,)
            # NaN fails the comparison, as it should; bool is an int to Python, but not to a user.
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                whole = "a whole number " if kinds == (int,) else ""
                problems.append(f"{name} = {value!r} is not {whole}in {low}..{high}")
        if not isinstance(self.zoom, bool):
            problems.append(f"zoom = {self.zoom!r} is not True or False")
        elif self.zoom and self.mode != "stream":
            problems.append(f"zoom needs mode 'stream', not {self.mode!r}")
        if problems:
            raise ConfigError("; ".join(problems))

    def resolved(self, trained_clip_length: int) -> TrackingConfig:
        """These settings with a clip length for a model that was trained on clips of so many frames."""
        if self.clip_length is not None:
            return self
        shortest, longest = (int(value) for value in RANGES["clip_length"])
        own = min(max(trained_clip_length, shortest), longest)
        return replace(self, clip_length=own if self.mode == "stream" else min(own, PAPER_CLIP_FRAMES))


PAPER_CLIP_FRAMES = 8
"""Frames of a clip in the paper's evaluation (section 4.3)."""

RANGES: dict[str, tuple[float, float]] = {
    "clip_length": (2, 32),
    "max_targets": (1, 16),
    "score_threshold": (0.0, 1.0),
    "lost_after_s": (0.1, 60.0),
    "remove_after_s": (0.0, 3600.0),
    "reground_period_s": (0.0, 600.0),
    "max_new_tokens": (16, 2048),
    "draft_tokens": (-1, 256),
}
"""Allowed range of each numeric field, shared with the ROS parameter table."""


DEFAULTS: dict[str, object] = {field.name: field.default for field in fields(TrackingConfig)}


def _option(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded. Python, command line, node and launch files share these names; the ``help`` of each field's
    metadata is the text of its command line option.

    Attributes:
        model: ``nano`` (in the package), a folder, or a hub id that ``elysium pull`` has fetched.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` (bfloat16 on CUDA, or float16 where that is faster; float32 on a CPU), ``float32``,
            ``float16`` or ``bfloat16``.
        vision_backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``.
        quantization: Of the language model: ``none``, ``int8``, ``nf4`` or ``fp8``; answers differ a little.
        allow_pickle_weights: Also read ``pytorch_model*.bin`` where there are no safetensors. An isolated process
            converts them and loads weights only.
        cuda_graphs: Replay recorded passes on a GPU.
        fast_resize: Resize images on the device instead of by PIL; pixels may differ by one step of 255.
    """

    model: str = _option("nano", "nano, identity (no weights), a folder, or a hub id that was pulled.")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.")
    dtype: str = _option("auto", "auto, float32, float16 or bfloat16.")
    vision_backend: str = _option("auto", "auto, torch, onnx or tensorrt.")
    quantization: str = _option("none", "Of the language model: none, int8, nf4 or fp8.")
    allow_pickle_weights: bool = _option(False, "Also read pytorch_model*.bin; only for files of people you trust.")
    cuda_graphs: bool = _option(True, "Replay recorded passes on a GPU.")
    fast_resize: bool = _option(False, "Resize images on the device; pixels may differ by one step of 255.")

    def with_options(self, **options: Any) -> LoadOptions:
        """These options with some of them changed.

        Raises:
            ConfigError: There is no option of that name.
        """
        known = [entry.name for entry in fields(self)]
        if unknown := [name for name in options if name not in known]:
            raise ConfigError(f"{unknown[0]!r} is not an option of loading a model; there are: {', '.join(known)}")
        return replace(self, **options)


class TrackState(str, Enum):
    """State of a target in one frame.

    ``TRACKED``: the box was read from the model for this very frame.
    ``UNCERTAIN``: certain a moment ago; the box of this frame scores below the threshold,
    or the answer had none.
    ``LOST``: there is no box for this frame; the target is being searched for.
    ``REMOVED``: sent once; no update with this id follows.
    """

    TRACKED = "TRACKED"
    UNCERTAIN = "UNCERTAIN"
    LOST = "LOST"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class TrackUpdate:
    """What is known about one target after one frame.

    Attributes:
        target_id: The id that :meth:`Tracker.add` returned.
        frame_index: ``Frame.index`` of the frame this speaks about.
        box: Where the target is in *this* frame; None when LOST or REMOVED.
        score: 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        state: See :class:`TrackState`.
        stamp_ns: ``Frame.stamp_ns`` of that frame.
        expression: The caller's words, empty for a target given by a box.
        age: Frames since the target was added, 0 in its first frame.
        last_box: The last box that was certain, for display and search; None before the first.
        reason: Why there is no certain box (one short sentence), empty when TRACKED.
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

    def as_json(self, width: int, height: int) -> dict[str, Any]:
        """Return the track line of the command line (box null when there is none).

        Args:
            width: Frame width [px], for ``box_px``.
            height: Frame height [px].
        """
        box = self.box
        return {
            "frame": self.frame_index,
            "stamp_ns": self.stamp_ns,
            "target": self.target_id,
            "box": None if box is None else [round(v, 6) for v in box],
            "box_px": None if box is None else [round(v, 2) for v in box.to_px(width, height)],
            "score": round(self.score, 6),
            "state": self.state.value,
        }


@dataclass(slots=True)
class TrackerStats:
    """Counters of one tracker since it was made; exact on every machine.

    Attributes:
        frames: Frames given to ``step``.
        vision_encodes: Frames that went through the vision encoder.
        llm_passes: Forward passes of the language model.
        llm_tokens: Tokens fed to the language model.
        parse_failures: Answers without a usable box, by reason.
        failures: Frames that the model or its device failed on.
        failure: Why the last step failed on its newest frame; None if it did not.
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


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is, for status messages and reports.

    Attributes:
        name: Name or path it was loaded from.
        backend: Vision backend: ``torch``, ``onnx``, ``tensorrt``, or ``none``.
        device: For example ``cpu`` or ``cuda:0 NVIDIA H200``.
        precision: Data type, plus the quantisation if any: ``float32``, ``bfloat16+nf4``.
        coordinate_levels: Boxes are multiples of 1/levels of width and height.
        clip_length: Frames the checkpoint was trained to see at once.
        parameters: Number of weights.
        weights: What tells these weights from others of the same name; empty if they have no files.
    """

    name: str
    backend: str = "none"
    device: str = "cpu"
    precision: str = "float32"
    coordinate_levels: int = 100
    clip_length: int = 8
    parameters: int = 0
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Grounding:
    """Where something is in one image.

    Attributes:
        box: The box, or None when the answer held none.
        score: 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        text: The model's answer, as written.
        reason: Why there is no box, one short sentence; empty with a box.
    """

    box: Box | None
    score: float
    text: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer about the frames of a clip, as read.

    Attributes:
        text: As written.
        boxes: One a frame; None where the answer has no valid box.
        scores: One a frame, 0..1; exp(mean log-probability of the box's digits), 0 without a box.
        problems: Why boxes are missing, counted: reason to number of times.
    """

    text: str
    boxes: tuple[Box | None, ...]
    scores: tuple[float, ...]
    problems: Mapping[str, int] = field(default_factory=dict)

    def at(self, frame: int) -> Grounding:
        """The answer for one frame of the clip, from 0."""
        box = self.boxes[frame]
        if box is not None:
            return Grounding(box, self.scores[frame], self.text)
        found = "".join(f" ({problem})" for problem in self.problems if problem != "missing")
        return Grounding(None, 0.0, self.text, f"the answer has no box for this frame{found}")


class Tracker(Protocol):
    """Follows any number of targets through one stream of frames.

    The state of a run lives here and never in the model, so that one model serves
    many streams.
    """

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target by words, by a box, or by both.

        A box refers to the newest frame given to :meth:`step`, or to the next one
        if there has been none. Words alone are searched for in the next frame.

        Returns:
            The target's id, a decimal number as text, never reused by this tracker.

        Raises:
            ExpressionError: The words are empty, too long, or spell the protocol.
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
        """Look at one frame; return one update per target, in the order they were added."""
        ...

    def flush(self) -> list[TrackUpdate]:
        """Return what is still held back at the end of a recording (clip mode; else nothing)."""
        ...

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        ...

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are followed or searched for."""
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
        """Take new settings from the next frame on (``mode`` cannot change)."""
        ...


class PerceptionModel(Protocol):
    """What the ROS node and the command line need of a model.

    :class:`elysium_core.api.Elysium` is the real one,
    :class:`elysium_core.tracking.identity.IdentityModel` the null object.
    A model is used by one thread at a time.
    """

    @property
    def info(self) -> ModelInfo:
        """What this model is."""
        ...

    def clean_words(self, expression: str) -> str:
        """Return a user's expression as it would be asked.

        Raises:
            ExpressionError: It is empty, too long, spells the protocol, or this model knows nothing in it.
        """
        ...

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Find one expression in one image; with ``zoom`` also by closer looks at parts of it."""
        ...

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = False) -> str:
        """Describe what is in ``box`` of ``frames[frame_index]``; with ``zoom`` from a closer look."""
        ...

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """Answer a question about an image or a clip.

        Args:
            frames: One frame, or several in order.
            question: In words.
            history: Questions and answers before this one about the same frames, oldest first.
        """
        ...

    def caption(self, frames: Frame | Sequence[Frame]) -> str:
        """Describe a whole image or clip."""
        ...

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker for one stream."""
        ...

    def warm_up(self) -> None:
        """Run every stage once, so that the first real frame is not slow."""
        ...

    def close(self) -> None:
        """Free weights and device memory; the model cannot be used afterwards."""
        ...
