"""The one table of ROS parameters: what exists, its default, its range, and when it may change.

:class:`Settings` is that table. Everything else is derived from it: declaration and
description on the node (:mod:`elysium_ros.node.parameter_server`), the reference page
(:mod:`elysium_ros.node.parameter_docs`), and validation, which happens here without ROS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from elysium_core.errors import ConfigError, ElysiumError
from elysium_core.prompt.expression import clean_expression
from elysium_core.types import DEFAULTS, RANGES, WINDOWS, TrackingConfig


class Change(Enum):
    """When a parameter may be set."""

    ANY_TIME = "D"
    INACTIVE = "I"
    READ_ONLY = "R"


@dataclass(frozen=True, slots=True)
class Spec:
    """What the table says about one parameter.

    Attributes:
        name: ROS name, such as ``tracking.lost_after``.
        attribute: Name of the attribute of :class:`Settings`.
        default: Default value; its type is the parameter's type (a tuple is a string array).
        change: When it may be set.
        description: One sentence for ``ros2 param describe`` and the reference page.
        limits: Smallest and largest value of a number, both allowed.
        choices: Allowed values of a text.
        unit: Unit of a number, empty for a count or a ratio.
    """

    name: str
    attribute: str
    default: Any
    change: Change
    description: str
    limits: tuple[float, float] | None
    choices: tuple[str, ...]
    unit: str

    def coerce(self, value: object) -> Any:
        """Return ``value`` as this parameter stores it.

        A whole number is taken for a real one, a list for a string array.

        Raises:
            ConfigError: Wrong type, not finite, out of range, or not one of the choices.
        """
        typed = self._as_type(value)
        if self.limits is not None:
            low, high = self.limits
            if not math.isfinite(typed) or not low <= typed <= high:
                raise ConfigError(f"{self.name} = {typed} is not in {low:g}..{high:g}{self._unit_suffix()}")
        if self.choices and typed not in self.choices:
            raise ConfigError(f"{self.name} = {typed!r} is not one of {', '.join(self.choices)}")
        return typed

    def _as_type(self, value: object) -> Any:
        wanted = type(self.default)
        if wanted is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            return tuple(value)
        if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if type(value) is wanted:
            return value
        raise ConfigError(f"{self.name} must be {self.type_name}, not {value!r}")

    @property
    def type_name(self) -> str:
        """ROS name of the type: ``bool``, ``int``, ``double``, ``string`` or ``string[]``."""
        return {bool: "bool", int: "int", float: "double", str: "string", tuple: "string[]"}[type(self.default)]

    def _unit_suffix(self) -> str:
        return f" {self.unit}" if self.unit else ""


def _parameter(
    name: str,
    default: Any,
    change: Change,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    unit: str = "",
) -> Any:
    facts = {"name": name, "change": change, "description": description, "limits": limits}
    return field(default=default, metadata={**facts, "choices": tuple(choices), "unit": unit})


def _tracking(name: str, attribute: str, change: Change, description: str, unit: str = "") -> Any:
    """Declare a numeric parameter whose default and range belong to the core."""
    return _parameter(name, DEFAULTS[attribute], change, description, limits=RANGES[attribute], unit=unit)


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of all parameters at one moment; build it with :meth:`from_values`."""

    cameras: tuple[str, ...] = _parameter(
        "cameras", ("",), Change.READ_ONLY,
        "Cameras to listen to. A name NAME reads NAME/image and publishes under ~/NAME/; the empty name has no prefix.",
    )  # fmt: skip
    image_transport: str = _parameter(
        "image_transport", "raw", Change.READ_ONLY,
        "Which image topic to subscribe to; auto takes the one that has a publisher.",
        choices=("raw", "compressed", "auto"),
    )  # fmt: skip
    autostart: bool = _parameter(
        "autostart", True, Change.READ_ONLY, "Configure and activate by itself, without a lifecycle manager."
    )
    frame_timeout_s: float = _parameter(
        "frame_timeout", 2.0, Change.ANY_TIME, "Without an image for this long, diagnostics report an error.",
        limits=(0.1, 60.0), unit="s",
    )  # fmt: skip
    max_frame_age_s: float = _parameter(
        "max_frame_age", 0.0, Change.ANY_TIME, "Images older than this on arrival are dropped; 0 = never.",
        limits=(0.0, 60.0), unit="s",
    )  # fmt: skip
    buffer_capacity: int = _parameter(
        "buffer.capacity", 16, Change.INACTIVE,
        "Recent images kept for each camera, for boxes drawn on an earlier image and for questions about a clip.",
        limits=(1, 1024), unit="images",
    )  # fmt: skip
    clip_length: int = _tracking(
        "clip.length", "clip_length", Change.INACTIVE, "Frames the model sees at most at once.", "frames"
    )
    model_path: str = _parameter(
        "model.path", "nano", Change.INACTIVE,
        "Model to load: nano (comes with the package), a checkpoint folder, "
        "or identity (no model: every box stays where it started).",
    )  # fmt: skip
    model_backend: str = _parameter(
        "model.backend", "auto", Change.INACTIVE, "What runs the vision encoder.",
        choices=("auto", "torch", "onnx", "tensorrt"),
    )  # fmt: skip
    model_device: str = _parameter(
        "model.device", "auto", Change.INACTIVE, "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."
    )
    model_precision: str = _parameter(
        "model.precision", "auto", Change.INACTIVE, "Data type of weights and computation.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )  # fmt: skip
    model_quantization: str = _parameter(
        "model.quantization", "none", Change.INACTIVE,
        "Fewer bits for the language model's matrices; answers are then no longer quite the same.",
        choices=("none", "int8", "nf4", "fp8"),
    )  # fmt: skip
    model_cuda_graphs: bool = _parameter(
        "model.cuda_graphs", True, Change.INACTIVE, "Record passes on a GPU once and replay them; nothing on a CPU."
    )
    model_fast_resize: bool = _parameter(
        "model.fast_resize", False, Change.INACTIVE,
        "Resize images on the model's device instead of by PIL; pixels may differ by one step of 255.",
    )  # fmt: skip
    model_allow_pickle_weights: bool = _parameter(
        "model.allow_pickle_weights", False, Change.INACTIVE,
        "Accept pytorch_model*.bin files where there are no safetensors; only for authors you trust.",
    )  # fmt: skip
    model_warmup: int = _parameter(
        "model.warmup", 1, Change.INACTIVE,
        "Passes of the whole model on activation, so that the first real image is not slow.",
        limits=(0, 10), unit="passes",
    )  # fmt: skip
    tracking_window: str = _parameter(
        "tracking.window", DEFAULTS["window"], Change.INACTIVE,
        "What the model sees: an anchor frame and the live one, a growing clip, or what the checkpoint recommends.",
        choices=WINDOWS,
    )  # fmt: skip
    initial_expression: str = _parameter(
        "tracking.initial_expression", "", Change.ANY_TIME,
        "Words to track on the first camera from activation on, without a call; setting it later starts anew.",
    )  # fmt: skip
    max_objects: int = _tracking(
        "tracking.max_objects", "max_targets", Change.ANY_TIME,
        "Targets followed at the same time, over all cameras.", "targets",
    )  # fmt: skip
    score_threshold: float = _tracking(
        "tracking.score_threshold", "score_threshold", Change.ANY_TIME, "A box that scores below is UNCERTAIN."
    )
    lost_after_s: float = _tracking(
        "tracking.lost_after", "lost_after_s", Change.ANY_TIME,
        "Without a certain box for this long, a target is LOST.", "s",
    )  # fmt: skip
    remove_after_s: float = _tracking(
        "tracking.remove_after", "remove_after_s", Change.ANY_TIME,
        "LOST for this long, a target is REMOVED; 0 = never.", "s",
    )  # fmt: skip
    reground_period_s: float = _tracking(
        "tracking.reground_period", "reground_period_s", Change.ANY_TIME,
        "Ask again by words this often, and while LOST; 0 = off.", "s",
    )  # fmt: skip
    zoom: bool = _parameter(
        "tracking.zoom", DEFAULTS["zoom"], Change.ANY_TIME,
        "Look closer, at each target and for what is not found: parts of the image at full resolution, for small "
        "things. Costs another picture and pass for each target.",
    )  # fmt: skip
    max_new_tokens: int = _tracking(
        "generation.max_new_tokens", "max_new_tokens", Change.ANY_TIME,
        "Longest answer about up to 8 frames, longer in proportion about more; at least 20 a frame.", "tokens",
    )  # fmt: skip
    draft_tokens: int = _tracking(
        "generation.draft_tokens", "draft_tokens", Change.ANY_TIME,
        "Other guesses than the likeliest that a pass may check; 0 = none, -1 = 32 on a GPU and none on a CPU. "
        "Never changes an answer.", "tokens",
    )  # fmt: skip
    describe_period_s: float = _parameter(
        "describe.period", 0.0, Change.ANY_TIME,
        "Describe each tracked target by itself this often; 0 = only when asked.", limits=(0.0, 600.0), unit="s",
    )  # fmt: skip
    annotated_scale: float = _parameter(
        "publish.annotated_scale", 1.0, Change.ANY_TIME,
        "Size of the annotated image relative to the input.", limits=(0.1, 1.0),
    )  # fmt: skip
    jpeg_quality: int = _parameter(
        "publish.jpeg_quality", 80, Change.ANY_TIME,
        "Quality of the compressed annotated image.", limits=(1, 100),
    )  # fmt: skip
    marker_distance_m: float = _parameter(
        "publish.marker_distance", 2.0, Change.ANY_TIME,
        "Distance from the camera of the plane on which ~/markers outlines the boxes.", limits=(0.1, 100.0), unit="m",
    )  # fmt: skip
    diagnostics_period_s: float = _parameter(
        "diagnostics.period", 1.0, Change.READ_ONLY, "Time between two messages on /diagnostics and on ~/status.",
        limits=(0.1, 60.0), unit="s",
    )  # fmt: skip
    release_on_deactivate: str = _parameter(
        "release_on_deactivate", "keep", Change.ANY_TIME,
        "keep holds the model in memory while inactive; free gives the memory back and loads anew on activation.",
        choices=("keep", "free"),
    )  # fmt: skip

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Settings:
        """Build settings from ROS names and values; what is not named has its default.

        Raises:
            ConfigError: An unknown name or an unusable value; the message names all of them.
        """
        accepted: dict[str, Any] = {}
        problems = [f"there is no parameter {name!r}" for name in values if name not in SPECS]
        for spec in SPECS.values():
            try:
                accepted[spec.attribute] = spec.coerce(values.get(spec.name, spec.default))
            except ConfigError as error:
                problems.append(str(error))
        if not problems:
            settings = cls(**accepted)
            problems = list(settings._cross_checks())
        if problems:
            raise ConfigError("; ".join(problems))
        return settings

    def values(self) -> dict[str, Any]:
        """Return the values by ROS name."""
        return {spec.name: getattr(self, spec.attribute) for spec in SPECS.values()}

    def tracking_config(self) -> TrackingConfig:
        """Return the part of the settings that belongs to a tracker; a live node always streams."""
        return TrackingConfig(
            window=self.tracking_window,
            clip_length=self.clip_length,
            max_targets=self.max_objects,
            score_threshold=self.score_threshold,
            lost_after_s=self.lost_after_s,
            remove_after_s=self.remove_after_s,
            reground_period_s=self.reground_period_s,
            max_new_tokens=self.max_new_tokens,
            draft_tokens=self.draft_tokens,
            zoom=self.zoom,
        )

    def _cross_checks(self) -> Iterable[str]:
        yield from _camera_problems(self.cameras)
        if not self.model_path.strip():
            yield "model.path is empty; give a checkpoint folder, 'nano' or 'identity'"
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.model_device):
            yield f"model.device = {self.model_device!r} is not auto, cpu, cuda or cuda:N"
        if self.model_fast_resize and self.model_backend == "onnx":
            yield "model.fast_resize cannot be had with model.backend onnx; use torch or tensorrt, or set it to false"
        needed = 20 * min(self.clip_length, 8)
        if self.max_new_tokens < needed:
            yield (
                f"generation.max_new_tokens = {self.max_new_tokens} is too short for clip.length = {self.clip_length}; "
                f"it needs at least {needed}"
            )
        if self.initial_expression:
            try:
                clean_expression(self.initial_expression)
            except ElysiumError as error:
                yield f"tracking.initial_expression: {error}"


SPECS: dict[str, Spec] = {
    entry.metadata["name"]: Spec(attribute=entry.name, default=entry.default, **entry.metadata)
    for entry in fields(Settings)
}
"""The table by ROS name, in the order of :class:`Settings`."""


def _camera_problems(cameras: tuple[str, ...]) -> Iterable[str]:
    if not cameras:
        yield "cameras is empty; name at least one camera, or '' for the topic 'image' itself"
    if len(set(cameras)) != len(cameras):
        yield f"cameras = {list(cameras)} names a camera twice"
    for camera in cameras:
        if camera and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", camera):
            yield f"camera {camera!r} is not a valid topic name part; use letters, digits and '_', a letter first"
