"""Settings of tracking; the single source of their defaults (command line and ROS read them here)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from elysium_core.errors import ConfigError

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
        clip_length: Frames the model sees at most at once, 2..32.
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
    clip_length: int = 8
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
            kinds = (int,) if isinstance(DEFAULTS[name], int) else (int, float)
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


def usable_clip_length(trained: int) -> int:
    """The ``clip_length`` for a model that was trained with clips of ``trained`` frames: that, within its range."""
    shortest, longest = RANGES["clip_length"]
    return int(min(max(trained, shortest), longest))


DEFAULTS: dict[str, object] = {field.name: field.default for field in fields(TrackingConfig)}
