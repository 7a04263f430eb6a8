"""``elysium caption``: describe a whole image or video."""

from __future__ import annotations

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
    load_model,
)
from elysium_core.cli.output import emit, say
from elysium_core.io.sampling import QUESTION_FRAMES, sample_recording
from elysium_core.io.video import open_video


def command(
    video: VideoArgument,
    frames: ClipFramesOption = QUESTION_FRAMES,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vision_backend: VisionBackendOption = "auto",
    quantize: QuantizeOption = "none",
    allow_pickle_weights: PickleOption = False,
    json: JsonOption = False,
) -> None:
    """Describe a whole image or video."""
    with open_video(video) as recording:
        clip = sample_recording(recording, frames)
    text = load_model(
        model, device, dtype, vision_backend, quantize, allow_pickle_weights=allow_pickle_weights
    ).caption(clip)
    if json:
        emit({"text": text, "frames": [picture.index for picture in clip]})
    else:
        say(text)
