"""``elysium caption``: describe a whole image or video."""

from __future__ import annotations

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    ClipFramesOption,
    JsonOption,
    TopicOption,
    VideoArgument,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import emit, say, warn
from elysium_core.io.sampling import QUESTION_FRAMES, sample_recording
from elysium_core.io.video import open_video
from elysium_core.settings import LoadOptions


@with_load_options
def command(
    video: VideoArgument,
    frames: ClipFramesOption = QUESTION_FRAMES,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Describe a whole image or video."""
    with open_video(video, topic=topic) as recording:
        clip = sample_recording(recording, frames)
        warn(recording.problems(), json)
    text = load_model(load).caption(clip)
    if json:
        emit({"text": text, "frames": [picture.index for picture in clip]})
    else:
        say(text)
