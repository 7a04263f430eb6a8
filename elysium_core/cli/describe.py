"""``elysium describe``: describe the object in a box of an image or video."""

from __future__ import annotations

from typing import Annotated

import typer

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    JsonOption,
    TopicOption,
    VideoArgument,
    ZoomOption,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import box_fields, emit, say, warn
from elysium_core.geometry import parse_box
from elysium_core.io.sampling import MOST_FRAMES, description_frames, sample_recording
from elysium_core.io.video import open_video
from elysium_core.settings import LoadOptions


@with_load_options
def command(
    video: VideoArgument,
    box: Annotated[
        str, typer.Option("--box", "-b", metavar="X1,Y1,X2,Y2", help="The box, as fractions 0..1 or in px.")
    ],
    frame: Annotated[int, typer.Option("--frame", "-n", min=0, help="Frame of the video that the box is in.")] = 0,
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames",
            min=1,
            max=MOST_FRAMES,
            help="Frames shown to the model; by default 8, or the length of its training clips if that is less.",
        ),
    ] = None,
    zoom: ZoomOption = False,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Describe the object in a box of an image or video.

    The model sees frames spread evenly over the video. The frame of the box is one of them.
    """
    with open_video(video, topic=topic) as recording:
        parsed = parse_box(box, recording.width, recording.height)
        size = recording.width, recording.height
        loaded = load_model(load)
        clip = sample_recording(recording, frames or description_frames(loaded.info.clip_length), keep=frame)
        warn(recording.problems(), json)
    shown = [picture.index for picture in clip]
    text = loaded.describe(clip, parsed, frame_index=shown.index(frame), zoom=zoom)
    if json:
        emit({"text": text, **box_fields(parsed, *size), "frame": frame, "frames": shown})
    else:
        say(text)
