"""``elysium ask``: answer questions about an image or video."""

from __future__ import annotations

from typing import Annotated

import typer

from elysium_core.cli.models import DEFAULT_MODEL, load_model
from elysium_core.cli.options import (
    ClipFramesOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    VideoArgument,
    VisionBackendOption,
)
from elysium_core.cli.output import emit, say
from elysium_core.io.sampling import sample_recording
from elysium_core.io.video import open_video
from elysium_core.text.expression import clean_expression

# The paper's VideoQA evaluation shows 16 frames.
_QUESTION_FRAMES = 16


def command(
    video: VideoArgument,
    question: Annotated[str, typer.Option("--question", "-q", metavar="Q", help="What to ask.")],
    frames: ClipFramesOption = _QUESTION_FRAMES,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vision_backend: VisionBackendOption = "auto",
    json: JsonOption = False,
) -> None:
    """Answer a question about an image or video."""
    question = clean_expression(question)
    with open_video(video) as recording:
        clip = sample_recording(recording, frames)
    answer = load_model(model, device, dtype, vision_backend).ask(clip, question)
    if json:
        emit({"question": question, "answer": answer, "frames": [picture.index for picture in clip]})
    else:
        say(answer)
