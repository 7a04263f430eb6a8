"""Options that several verbs share.

Loading the model that a verb was asked to use.
"""

from __future__ import annotations

from typing import Annotated

import typer

from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import PerceptionModel

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="nano, identity, a folder, or a hub id that was pulled.", rich_help_panel="Model"
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel="Model")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.", rich_help_panel="Model")
]
VisionBackendOption = Annotated[
    str, typer.Option("--vision-backend", help="auto, torch, onnx or tensorrt.", rich_help_panel="Model")
]
QuantizeOption = Annotated[
    str,
    typer.Option("--quantize", help="Of the language model: none, int8, nf4 or fp8.", rich_help_panel="Model"),
]
PickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle-weights",
        help="Also read pytorch_model*.bin; only for files of people you trust.",
        rich_help_panel="Model",
    ),
]
ZoomOption = Annotated[
    bool,
    typer.Option("--zoom", help="Look closer: parts of the picture at full resolution, for small things; slower."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON lines to stdout, for programs.")]
ExpressionsOption = Annotated[
    list[str] | None,
    typer.Option("--expression", "-e", metavar="S", help="Words that name one object; repeat for several."),
]
ClipFramesOption = Annotated[
    int,
    typer.Option("--frames", min=1, max=MOST_FRAMES, help="Frames shown to the model, spread evenly over the video."),
]
VideoArgument = Annotated[
    str,
    typer.Argument(metavar="VIDEO", help="A video file, a folder of pictures, a picture, or a camera: 0, /dev/video0."),
]


DEFAULT_MODEL = "nano"
"""The model that is shipped with the package."""


def load_model(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    vision_backend: str = "auto",
    quantization: str = "none",
    *,
    allow_pickle_weights: bool = False,
) -> PerceptionModel:
    """Load a model by name.

    Args:
        name: ``identity`` (no weights, every box stands still), ``nano`` (in the
            package), a folder, or a hub id that ``elysium pull`` has fetched.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto``, ``float32``, ``float16`` or ``bfloat16``.
        vision_backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``.
        quantization: Of the language model: ``none``, ``int8``, ``nf4`` or ``fp8``.
        allow_pickle_weights: Also read ``pytorch_model*.bin``, if there are no safetensors.

    Raises:
        ModelFileError: The model is missing or damaged.
        BackendError: The device or backend cannot be used here.
    """
    if name == "identity":
        return IdentityModel()
    # torch and transformers take seconds to import; the null model should not wait for them.
    from elysium_core.api import Elysium
    from elysium_core.device import fit_threads

    model = Elysium.from_pretrained(
        name,
        device=device,
        dtype=dtype,
        vision_backend=vision_backend,
        quantization=quantization,
        allow_pickle_weights=allow_pickle_weights,
    )
    fit_threads(model.info.parameters)
    return model
