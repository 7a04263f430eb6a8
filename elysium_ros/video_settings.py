"""Settings of the video node: names, defaults, ranges and descriptions in one table. Imports no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from elysium_core.errors import ConfigError
from elysium_ros.parameters import Change, Spec
from elysium_ros.video_player import STAMPS


def _setting(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    facts = {"description": description, "limits": limits, "choices": choices, "unit": unit}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How a video is played as a camera; each field is a ROS parameter of the same name, read-only after start."""

    source: str = _setting("", "Video file, folder of images, /dev/videoN or the number of a camera.")
    rate: float = _setting(
        0.0, "Frames a second; 0 = as recorded. Of a camera, at most this many.", limits=(0, 1000), unit="Hz"
    )
    loop: bool = _setting(False, "Start over at the end.")
    exit_at_end: bool = _setting(False, "End the process after the last frame instead of staying.")
    start_paused: bool = _setting(False, "Hold the first frame until ~/play is called with data: true.")
    pause_after: int = _setting(
        0, "Pause when this many frames were sent, until ~/play is called; 0 = never.", limits=(0, 1_000_000)
    )
    wait_for_subscribers: int = _setting(
        0, "Hold the first frame until the images have this many subscribers.", limits=(0, 100)
    )
    frame_id: str = _setting("camera_optical_frame", "Camera's optical frame, for every header.")
    width: int = _setting(0, "Scale to this width; 0 = keep, or in proportion to height.", limits=(0, 16384), unit="px")
    height: int = _setting(
        0, "Scale to this height; 0 = keep, or in proportion to width.", limits=(0, 16384), unit="px"
    )
    fov: float = _setting(60.0, "Horizontal field of view that camera_info pretends.", limits=(1, 179), unit="deg")
    stamps: str = _setting(
        "now", "now: when sent. video: the start plus the time in the video, exactly.", choices=STAMPS
    )
    image_transport: str = _setting(
        "raw", "Images as they are, as JPEG on image/compressed, or both.", choices=("raw", "compressed", "both")
    )
    jpeg_quality: int = _setting(90, "Quality of the compressed images.", limits=(1, 100))
    reliability: str = _setting(
        "reliable", "Of the image topics; reliable matches every subscriber.", choices=("reliable", "best_effort")
    )

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> VideoSettings:
        """Build settings from parameter values as a command line types them.

        ``rate:=15`` arrives as a whole number and ``source:=0`` too; both mean what a person meant.

        Raises:
            ConfigError: A value is of the wrong type or out of range; the message names all that are.
        """
        accepted: dict[str, Any] = {}
        problems = []
        for name, value in values.items():
            number = isinstance(value, int) and not isinstance(value, bool)
            try:
                accepted[name] = VIDEO_SPECS[name].coerce(str(value) if name == "source" and number else value)
            except ConfigError as error:
                problems.append(str(error))
        if not accepted.get("source", "?"):
            problems.append("no source is given; set the parameter `source` to a video, a folder of images or a camera")
        if problems:
            raise ConfigError("; ".join(problems))
        return cls(**accepted)


VIDEO_SPECS: dict[str, Spec] = {
    entry.name: Spec(
        name=entry.name, attribute=entry.name, default=entry.default, change=Change.READ_ONLY, **entry.metadata
    )
    for entry in fields(VideoSettings)
}
"""The table by parameter name."""
