"""Settings of tracking and of loading a model, with their defaults and ranges.

Python, the command line, the node and the launch files all take them from here. No model is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from elysium_core.errors import ConfigError

MODES = ("stream", "clip", "paper")
WINDOWS = ("auto", "anchor", "growing")

SURE_FROM = 0.3
"""Least score of a box that counts as found, if no other is set."""


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """Settings of a tracker.

    Attributes:
        mode: ``stream`` answers every frame as it arrives; ``clip`` is the paper's offline protocol (section 4.3);
            ``paper`` answers a live stream in the paper's clips, each with its last frame.
        window: Frames in a prompt in stream mode: ``anchor`` = the frame of the last certain
            box and the live frame; ``growing`` = up to ``clip_length`` frames, restarted with
            one frame of overlap; ``auto`` = the window that the checkpoint recommends.
        clip_length: Largest number of frames in a prompt, 2..32. None = the length the model was trained with; in
            clip mode at most the paper's 8.
        max_targets: Largest number of targets at the same time, 1..16.
        score_threshold: A target whose box has a lower score is UNCERTAIN, 0..1.
        lost_after_s: A target is LOST after this time without a certain box [s].
        remove_after_s: A target is REMOVED after being LOST for this time [s]; 0 = never.
        reground_period_s: Period of the search by words [s]; LOST targets are searched for in every frame.
            0 = only LOST targets.
        max_new_tokens: Longest answer about up to 8 frames [tokens]; longer in proportion for more
            frames.
        draft_tokens: Additional drafted tokens in a pass, for all targets together, to check other
            likely boxes [tokens]; 0 = none; -1 = 32 on a GPU, where they cost next to nothing, and none
            on a CPU, where they do not save time. Changes only the speed, never an answer.
        zoom: Also track each target in a part of the frame around its last box at full resolution,
            and search for LOST targets in parts of the frame; for small objects. Costs one more
            encoded image and pass for each target. Stream mode only.

    Raises:
        ConfigError: Values are out of range; the message names all of them.
    """

    mode: str = "stream"
    window: str = "auto"
    clip_length: int | None = None
    max_targets: int = 4
    score_threshold: float = SURE_FROM
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
            # NaN fails the comparison, as intended. Python counts bool as int; a user would not.
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
        """These settings with the clip length filled in: by default that of the model's training, within limits."""
        if self.clip_length is not None:
            return self
        shortest, longest = (int(value) for value in RANGES["clip_length"])
        frames = min(max(trained_clip_length, shortest), longest)
        return replace(self, clip_length=frames if self.mode == "stream" else min(frames, PAPER_CLIP_FRAMES))


PAPER_CLIP_FRAMES = 8
"""Frames of a clip in the evaluation of the paper (section 4.3)."""

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
    """Options of loading a model.

    Python, command line, node and launch files use the same names. The ``help`` in the metadata of each field is the
    help text of the command line option.

    Attributes:
        model: ``real`` or ``nano`` (in the package), a folder, or a hub id that was pulled by ``elysium pull``.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` (bfloat16 on CUDA, or float16 where that is faster; float32 on a CPU), ``float32``,
            ``float16`` or ``bfloat16``.
        vision_backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``.
        quantization: Quantisation of the language model: ``none``, ``int8``, ``nf4`` or ``fp8``. It changes answers a
            little.
        allow_pickle_weights: Also read ``pytorch_model*.bin`` if there are no safetensors. A separate, isolated
            process converts them and loads only weights.
        cuda_graphs: Replay recorded passes on a GPU.
        fast_resize: Resize images on the device instead of by PIL; pixels may differ by one step of 255.
        max_pixels: Largest image of models that take any size (Qwen-VL); larger ones are scaled down. 0 = 307200, which
            is 640x480. Fewer are faster and lose small objects.
    """

    model: str = _option("real", "real, nano (drawings), identity (no weights), a folder, or a pulled hub id.")
    device: str = _option("auto", "auto, cpu, cuda or cuda:N.")
    dtype: str = _option("auto", "auto, float32, float16 or bfloat16.")
    vision_backend: str = _option("auto", "auto, torch, onnx or tensorrt.")
    quantization: str = _option("none", "Of the language model: none, int8, nf4 or fp8.")
    allow_pickle_weights: bool = _option(False, "Also read pytorch_model*.bin; only for files of people you trust.")
    cuda_graphs: bool = _option(True, "Replay recorded passes on a GPU.")
    fast_resize: bool = _option(False, "Resize images on the device; pixels may differ by one step of 255.")
    max_pixels: int = _option(0, "Pixels of the largest image for Qwen-VL models; 0 = 307200 (640x480).")

    def with_options(self, **options: Any) -> LoadOptions:
        """These options with some of them changed, under any of their names (:data:`OTHER_NAMES`).

        Raises:
            ConfigError: An option is unknown, or is given under two names with different values.
        """
        changes: dict[str, Any] = {}
        for given, value in options.items():
            name = OTHER_NAMES.get(given, given)
            if name in changes and changes[name] != value:
                raise ConfigError(f"{name!r} is given twice, once as {given!r}, as {changes[name]!r} and {value!r}")
            changes[name] = value
        known = [entry.name for entry in fields(self)]
        if unknown := [name for name in changes if name not in known]:
            raise ConfigError(f"{unknown[0]!r} is not an option of loading a model; there are: {', '.join(known)}")
        return replace(self, **changes)


OTHER_NAMES = {"precision": "dtype", "backend": "vision_backend", "quantize": "quantization"}
"""Other names of load options, which Python, the command line, the node and the launch files take as well."""
