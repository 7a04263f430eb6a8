"""``elysium describe``: say what is in a box of an image or video."""

from __future__ import annotations

from typing import Annotated

import typer

from elysium_core.cli.options import (
    DEFAULT_MODEL,
    ClipFramesOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PickleOption,
    QuantizeOption,
    VideoArgument,
    VisionBackendOption,
    ZoomOption,
    load_model,
)
from elysium_core.cli.output import box_fields, emit, say
from elysium_core.errors import VideoError
from elysium_core.geometry import parse_box
from elysium_core.io.sampling import sample_recording
from elysium_core.io.video import open_video
from elysium_core.types import TrackingConfig

_CLIP_FRAMES = TrackingConfig().clip_length


def command(
    video: VideoArgument,
    box: Annotated[
        str, typer.Option("--box", "-b", metavar="X1,Y1,X2,Y2", help="The box, as fractions 0..1 or in px.")
    ],
    frame: Annotated[int, typer.Option("--frame", "-n", min=0, help="Frame of the video that the box is in.")] = 0,
    frames: ClipFramesOption = _CLIP_FRAMES,
    zoom: ZoomOption = False,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vision_backend: VisionBackendOption = "auto",
    quantize: QuantizeOption = "none",
    allow_pickle_weights: PickleOption = False,
    json: JsonOption = False,
) -> None:
    """Say what is in a box of an image or video.

    A video is shown from --frame on, or up to it if it is the last.
    """
    with open_video(video) as recording:
        parsed = parse_box(box, recording.width, recording.height)
        clip = sample_recording(recording, frames, first=frame)
        if len(clip) == 1 and frames > 1 and frame > 0:
            # Nothing follows the last frame; what came before shows the object, too.
            before = sample_recording(recording, frames)
            clip = before if any(picture.index == frame for picture in before) else clip
        size = (recording.width, recording.height)
    position = next((number for number, picture in enumerate(clip) if picture.index == frame), None)
    if position is None:
        raise VideoError(
            f"frame {frame} of {str(video)!r} cannot be read; choose another with --frame", code="VIDEO_FRAME"
        )
    text = load_model(
        model, device, dtype, vision_backend, quantize, allow_pickle_weights=allow_pickle_weights
    ).describe(clip, parsed, frame_index=position, zoom=zoom)
    if json:
        seen = [picture.index for picture in clip]
        emit({"text": text, **box_fields(parsed, *size), "frame": frame, "frames": seen})
    else:
        say(text)
