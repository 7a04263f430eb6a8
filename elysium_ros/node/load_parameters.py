"""The parameters and launch arguments that choose how a model is loaded. Imports no ROS.

There is one for each field of :class:`elysium_core.settings.LoadOptions`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from elysium_core.settings import OTHER_NAMES, LoadOptions
from elysium_ros.node.parameter_spec import Change, Spec

# What ROS calls some load options, their descriptions where they differ, and their choices. Any other option is named
# model.OPTION and described by the docstring of LoadOptions, so that a new one needs no line here.
_WORDS: dict[str, dict[str, Any]] = {
    "model": {
        "name": "path",
        "description": "Model to load: real or nano (come with the package), a checkpoint folder, "
        "or identity (no model: every box stays where it started).",
    },
    "dtype": {
        "name": "precision",
        "description": "Data type of weights and computation.",
        "choices": ("auto", "float32", "float16", "bfloat16"),
    },
    "vision_backend": {
        "name": "backend",
        "description": "What runs the vision encoder.",
        "choices": ("auto", "torch", "onnx", "tensorrt"),
    },
    "quantization": {
        "description": "Fewer bits for the language model's matrices; answers are then no longer quite the same.",
        "choices": ("none", "int8", "nf4", "fp8"),
    },
    "allow_pickle_weights": {
        "description": "Accept pytorch_model*.bin files where there are no safetensors; only for authors you trust."
    },
}


def _specs() -> Iterator[Spec]:
    docstring = inspect.getdoc(LoadOptions) or ""
    texts = dict(re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", docstring, re.MULTILINE))
    for option in fields(LoadOptions):
        words = _WORDS.get(option.name, {})
        description = words.get("description") or " ".join(texts.get(option.name, "").replace("``", "").split())
        yield Spec(
            name=f"model.{words.get('name', option.name)}",
            attribute=f"load.{option.name}",
            default=option.default,
            change=Change.INACTIVE,
            description=description,
            limits=None,
            choices=words.get("choices", ()),
            unit="",
        )


def _aliases() -> Iterator[tuple[str, str]]:
    for other, option in OTHER_NAMES.items():
        name = _WORDS[option].get("name", option)
        for alias in (option, other):
            if alias != name:
                yield f"model.{alias}", f"model.{name}"


LOAD_SPECS: tuple[Spec, ...] = tuple(_specs())
"""One parameter for each load option, in the order of :class:`elysium_core.settings.LoadOptions`."""

LOAD_ARGUMENTS: dict[str, Spec] = {
    "model" if spec.attribute == "load.model" else spec.name.removeprefix("model."): spec for spec in LOAD_SPECS
}
"""The parameters of loading a model by the names of their launch arguments."""

ALIASES: dict[str, str] = dict(_aliases())
"""Names of parameters in Python and on the command line, where they differ: each may be given, set and read by both."""

LOAD_ALIASES: dict[str, str] = {
    alias.removeprefix("model."): name.removeprefix("model.") for alias, name in ALIASES.items()
}
"""The same for launch arguments."""
