"""The one table of ROS parameters: what exists, its default, its range, and when it may change. Imports no ROS.

:class:`Settings` is that table; the parameters of loading a model come from :mod:`elysium_ros.node.load_parameters`.
Declaration and description on the node (:mod:`elysium_ros.node.parameter_server`) and the reference page
(:mod:`elysium_ros.node.parameter_docs`) are derived from it, and it is validated here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from elysium_core.errors import ConfigError, ElysiumError
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import DEFAULTS, RANGES, WINDOWS, LoadOptions, TrackingConfig
from elysium_ros.node.load_parameters import LOAD_SPECS
from elysium_ros.node.parameter_spec import Change, Spec, parameter
from elysium_ros.perception.types import DepthSettings, InferenceSettings


def _tracking(name: str, attribute: str, change: Change, description: str, unit: str = "") -> Any:
    """Declare a numeric parameter whose default and range belong to the core."""
    return parameter(name, DEFAULTS[attribute], change, description, limits=RANGES[attribute], unit=unit)


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of all parameters at one moment; build it with :meth:`from_values`."""

    cameras: tuple[str, ...] = parameter(
        "cameras", ("",), Change.READ_ONLY,
        "Cameras to listen to. A name NAME reads NAME/image and publishes under ~/NAME/; the empty name has no prefix.",
    )  # fmt: skip
    image_transport: str = parameter(
        "image_transport", "raw", Change.READ_ONLY,
        "Which image topic to subscribe to; auto takes the one that has a publisher.",
        choices=("raw", "compressed", "auto"),
    )  # fmt: skip
    autostart: bool = parameter(
        "autostart", True, Change.READ_ONLY, "Configure and activate by itself, without a lifecycle manager."
    )
    allow_model_change: bool = parameter(
        "allow_model_change", False, Change.READ_ONLY,
        "Accept other values of model.path and model.allow_pickle_weights at run time, from whoever reaches the node.",
    )  # fmt: skip
    frame_timeout_s: float = parameter(
        "frame_timeout", 1.0, Change.ANY_TIME,
        "Without an image, or a result of those that arrive, for this long, targets are STALE and diagnostics report "
        "an error; a result of an older image is marked stale.",
        limits=(0.1, 60.0), unit="s",
    )  # fmt: skip
    max_frame_age_s: float = parameter(
        "max_frame_age", 0.0, Change.ANY_TIME, "Images older than this on arrival are dropped; 0 = never.",
        limits=(0.0, 60.0), unit="s",
    )  # fmt: skip
    max_answer_age_s: float = parameter(
        "max_answer_age", 5.0, Change.ANY_TIME,
        "Questions about the newest image fail if it arrived longer ago than this; 0 = never.",
        limits=(0.0, 3600.0), unit="s",
    )  # fmt: skip
    buffer_capacity: int = parameter(
        "buffer.capacity", 16, Change.INACTIVE,
        "Recent images kept for each camera, for boxes drawn on an earlier image and for questions about a clip.",
        limits=(1, 1024), unit="images",
    )  # fmt: skip
    clip_mode: str = parameter(
        "clip.mode", "stream", Change.INACTIVE,
        "stream answers every image as it arrives; paper answers clips of 8 images, each once, as the paper does, so "
        "results come with the last image of a clip, and frame_timeout has to be longer than 8 images take; for models "
        "that follow in whole frames (nano).",
        choices=("stream", "paper"),
    )  # fmt: skip
    clip_length: int = parameter(
        "clip.length", 0, Change.INACTIVE,
        "Frames the model sees at most at once, 2..32; 0 = as many as the model was trained with.",
        limits=(0, RANGES["clip_length"][1]), unit="frames",
    )  # fmt: skip
    # One parameter for each option, by the table below.
    load: LoadOptions = LoadOptions()  # noqa: RUF009 - frozen
    model_warmup: int = parameter(
        "model.warmup", 1, Change.INACTIVE,
        "Passes of the whole model on activation, so that the first real image is not slow.",
        limits=(0, 10), unit="passes",
    )  # fmt: skip
    model_timeout_s: float = parameter(
        "model.timeout", 5.0, Change.ANY_TIME,
        "The model may work this long on one image; then it counts as hung and is loaded again, or the node ends with "
        "exit code 75. Set it well above what a slow model takes.",
        limits=(0.5, 3600.0), unit="s",
    )  # fmt: skip
    tracking_window: str = parameter(
        "tracking.window", DEFAULTS["window"], Change.INACTIVE,
        "What the model sees: an anchor frame and the live one, a growing clip, or what the checkpoint recommends.",
        choices=WINDOWS,
    )  # fmt: skip
    initial_expression: str = parameter(
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
        "Search again by words this often; 0 = only while LOST, in every image.", "s",
    )  # fmt: skip
    zoom: bool = parameter(
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
    describe_period_s: float = parameter(
        "describe.period", -1.0, Change.ANY_TIME,
        "Describe each tracked target by itself this often; 0 = only when asked, -1 = every 10 s if the model was "
        "trained to describe.",
        limits=(-1.0, 600.0), unit="s",
    )  # fmt: skip
    depth_enabled: bool = parameter(
        "depth.enabled", False, Change.READ_ONLY,
        "Read depth/image and depth/camera_info too, registered to the images, for positions and sizes of targets.",
    )  # fmt: skip
    depth_scale: float = parameter(
        "depth.scale", 0.0, Change.ANY_TIME,
        "Metres a unit of the depth images; 0 = by their encoding: 16UC1 millimetres, 32FC1 metres.",
        limits=(0.0, 10.0), unit="m",
    )  # fmt: skip
    depth_sync_slop_s: float = parameter(
        "depth.sync_slop", 0.05, Change.ANY_TIME,
        "Longest time between the stamps of an image and of its depth image.", limits=(0.0, 1.0), unit="s",
    )  # fmt: skip
    annotated_scale: float = parameter(
        "publish.annotated_scale", 1.0, Change.ANY_TIME,
        "Size of the annotated image relative to the input.", limits=(0.1, 1.0),
    )  # fmt: skip
    jpeg_quality: int = parameter(
        "publish.jpeg_quality", 80, Change.ANY_TIME,
        "Quality of the compressed annotated image.", limits=(1, 100),
    )  # fmt: skip
    marker_distance_m: float = parameter(
        "publish.marker_distance", 2.0, Change.ANY_TIME,
        "Distance from the camera of the plane on which ~/markers outlines boxes without a position.",
        limits=(0.1, 100.0), unit="m",
    )  # fmt: skip
    diagnostics_period_s: float = parameter(
        "diagnostics.period", 1.0, Change.READ_ONLY, "Time between two messages on /diagnostics and on ~/status.",
        limits=(0.1, 60.0), unit="s",
    )  # fmt: skip
    release_on_deactivate: str = parameter(
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
        load: dict[str, Any] = {}
        problems = [f"there is no parameter {name!r}" for name in values if name not in SPECS]
        for spec in SPECS.values():
            group, _, option = spec.attribute.rpartition(".")
            try:
                (load if group else accepted)[option] = spec.coerce(values.get(spec.name, spec.default))
            except ConfigError as error:
                problems.append(str(error))
        if not problems:
            settings = cls(load=LoadOptions(**load), **accepted)
            problems = list(settings._cross_checks())
        if problems:
            raise ConfigError("; ".join(problems))
        return settings

    def values(self) -> dict[str, Any]:
        """Return the values by ROS name."""
        return {spec.name: attrgetter(spec.attribute)(self) for spec in SPECS.values()}

    def tracking_config(self) -> TrackingConfig:
        """Return the part of the settings that belongs to a tracker."""
        return TrackingConfig(
            mode=self.clip_mode,
            window=self.tracking_window,
            clip_length=self.clip_length or None,
            max_targets=self.max_objects,
            score_threshold=self.score_threshold,
            lost_after_s=self.lost_after_s,
            remove_after_s=self.remove_after_s,
            reground_period_s=self.reground_period_s,
            max_new_tokens=self.max_new_tokens,
            draft_tokens=self.draft_tokens,
            zoom=self.zoom,
        )

    def inference_settings(self) -> InferenceSettings:
        """Return the part of the settings that belongs to the inference thread."""
        return InferenceSettings(
            cameras=self.cameras,
            buffer_capacity=self.buffer_capacity,
            warm_up_passes=self.model_warmup,
            tracking=self.tracking_config(),
            describe_period_s=self.describe_period_s,
            max_answer_age_s=self.max_answer_age_s,
            model_timeout_s=self.model_timeout_s,
            depth=DepthSettings(self.depth_scale, self.depth_sync_slop_s) if self.depth_enabled else None,
        )

    def _cross_checks(self) -> Iterable[str]:
        yield from _camera_problems(self.cameras)
        if not self.load.model.strip():
            yield "model.path is empty; give a checkpoint folder, 'real', 'nano' or 'identity'"
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.load.device):
            yield f"model.device = {self.load.device!r} is not auto, cpu, cuda or cuda:N"
        if self.load.fast_resize and self.load.vision_backend == "onnx":
            yield "model.fast_resize cannot be had with model.backend onnx; use torch or tensorrt, or set it to false"
        if self.zoom and self.clip_mode != "stream":
            yield "tracking.zoom = True does not go with clip.mode = 'paper'; use zoom with clip.mode stream"
        shortest, longest = RANGES["clip_length"]
        if 0 < self.clip_length < shortest:
            yield f"clip.length = {self.clip_length} is not 0 or in {shortest}..{longest} frames"
        # Answers about more than 8 frames may be longer in proportion; so many may be asked about with clip.length 0.
        needed = 20 * min(self.clip_length or 8, 8)
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


def _specs() -> Iterator[Spec]:
    for entry in fields(Settings):
        if entry.name == "load":
            yield from LOAD_SPECS
        else:
            yield Spec(attribute=entry.name, default=entry.default, **entry.metadata)


SPECS: dict[str, Spec] = {spec.name: spec for spec in _specs()}
"""The table by ROS name, in the order of :class:`Settings`."""

GUARDED = ("model.path", "model.allow_pickle_weights")
"""Parameters that choose which files are read and how; they are as at the start unless ``allow_model_change``."""


def _camera_problems(cameras: tuple[str, ...]) -> Iterable[str]:
    if not cameras:
        yield "cameras is empty; name at least one camera, or '' for the topic 'image' itself"
    if len(set(cameras)) != len(cameras):
        yield f"cameras = {list(cameras)} names a camera twice"
    for camera in cameras:
        if camera and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", camera):
            yield f"camera {camera!r} is not a valid topic name part; use letters, digits and '_', a letter first"
