"""Options that several verbs share, and the loading of the model they name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any

import typer

from elysium_core.errors import packages_needed
from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.settings import OTHER_NAMES, LoadOptions
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import PerceptionModel

LOAD_DEFAULTS = LoadOptions()
DEFAULT_MODEL = LOAD_DEFAULTS.model
"""The model that is shipped with the package."""


def _help(name: str) -> str:
    return next(str(entry.metadata["help"]) for entry in fields(LoadOptions) if entry.name == name)


DeviceOption = Annotated[str, typer.Option("--device", help=_help("device"), rich_help_panel="Model")]
DtypeOption = Annotated[str, typer.Option("--dtype", "--precision", help=_help("dtype"), rich_help_panel="Model")]
PickleOption = Annotated[
    bool, typer.Option("--allow-pickle-weights", help=_help("allow_pickle_weights"), rich_help_panel="Model")
]
ZoomOption = Annotated[
    bool,
    typer.Option("--zoom", help="Zoom: show parts of the image at full resolution, for small objects; slower."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON lines to stdout, for programs.")]
ExpressionsOption = Annotated[
    list[str] | None,
    typer.Option("--expression", "-e", metavar="S", help="Words that name one object; repeatable."),
]
ClipFramesOption = Annotated[
    int,
    typer.Option("--frames", min=1, max=MOST_FRAMES, help="Frames shown to the model, spread evenly over the video."),
]
TopicOption = Annotated[
    str, typer.Option("--topic", metavar="NAME", help="Image topic of a bag; not needed if there is only one.")
]
VideoArgument = Annotated[
    str,
    typer.Argument(
        metavar="VIDEO", help="A video file, a folder of images, an image, a bag, or a camera: 0, /dev/video0."
    ),
]

LiveVideoArgument = Annotated[
    str,
    typer.Argument(
        metavar="VIDEO",
        help="A video file, a folder of images, an image, a bag of ROS 2, a camera (0, /dev/video0), or the address of "
        "a live stream (rtsp://, http://).",
    ),
]


# The first name is that of the field; the others are short, or are used in other places.
_FLAGS = {
    "model": ("--model", "-m"),
    **{name: (f"--{name.replace('_', '-')}", f"--{other}") for other, name in OTHER_NAMES.items()},
}


def with_load_options(command: Callable[..., Any], without: Collection[str] = ()) -> Callable[..., Any]:
    """Give a verb one option for each field of :class:`elysium_core.settings.LoadOptions`.

    Args:
        command: A verb with a parameter ``load: LoadOptions``; it receives the values of the options.
        without: Fields that get no option here.
    """
    names = [entry.name for entry in fields(LoadOptions) if entry.name not in without]

    @wraps(command)
    def run(**values: Any) -> Any:
        load = LoadOptions(**{name: values.pop(name) for name in names})
        return command(load=load, **values)

    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += _load_parameters(names) if parameter.name == "load" else [parameter]
    by_name = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    vars(run)["__signature__"] = signature.replace(parameters=by_name)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _load_parameters(names: Collection[str]) -> Iterator[inspect.Parameter]:
    for entry in (entry for entry in fields(LoadOptions) if entry.name in names):
        flags: tuple[str, ...] = _FLAGS.get(entry.name, ())
        if entry.default is False:  # else Typer adds --no-...
            flags = (f"--{entry.name.replace('_', '-')}",)
        option = typer.Option(*flags, help=entry.metadata["help"], rich_help_panel="Model")
        kind: Any = Annotated[type(entry.default), option]
        yield inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=kind)


def load_model(load: LoadOptions) -> PerceptionModel:
    """Load a model. ``identity`` has no weights and repeats the first box.

    Raises:
        ModelFileError: The model is missing or damaged.
        BackendError: The device or backend cannot be used here.
    """
    if load.model == "identity":
        return IdentityModel()
    # Imported here because torch and transformers take seconds, and the identity model does not need them.
    with packages_needed():
        from elysium_core.api import Elysium
        from elysium_core.device import fit_threads

    model = Elysium.from_pretrained(load)
    fit_threads(model.info.parameters)
    return model
