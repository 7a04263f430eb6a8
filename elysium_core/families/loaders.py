"""The model families that can be loaded from a folder, by the ``model_type`` of its ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysium_core.checkpoint.locations import checkpoint_folder
from elysium_core.errors import ModelFileError
from elysium_core.families.base import Family
from elysium_core.io.files import read_settings_text
from elysium_core.network.model_config import CONFIG_NAME
from elysium_core.settings import LoadOptions
from elysium_core.types import ModelInfo

if TYPE_CHECKING:
    from elysium_core.checkpoint.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model of any family.

    Attributes:
        family: The model.
        info: Its description.
        checkpoint: The checkpoint, if it is of the published layout; only such a model can be saved.
    """

    family: Family
    info: ModelInfo
    checkpoint: Checkpoint | None = None


Loader = Callable[[LoadOptions], LoadedModel]
"""Loads a model from the disk; raises errors as :meth:`elysium_core.api.Elysium.from_pretrained`."""

_ELYSIUM = "elysium"

LOADERS: dict[str, str] = {
    _ELYSIUM: "elysium_core.families.elysium_loader:load_elysium",
    "qwen3_vl": "elysium_core.families.qwen_loader:load_qwen",
    "qwen2_5_vl": "elysium_core.families.qwen_loader:load_qwen",
}
"""Module and function of each family's loader, by model type. A module is imported when a model needs it."""


def load_model(options: LoadOptions) -> LoadedModel:
    """Load a model of the family that its ``config.json`` names.

    An unknown or unreadable ``config.json`` is left to the Elysium family, whose loader says what is wrong with it.
    """
    module, _, function = LOADERS.get(_model_type(options.model), LOADERS[_ELYSIUM]).partition(":")
    loader: Loader = getattr(import_module(module), function)
    return loader(options)


def family_facts(model: str) -> dict[str, Any] | None:
    """What the family of a model that is not Elysium's says about it, from its configuration files.

    Returns:
        Facts by name, as values that JSON can hold; None for models of the Elysium family and unknown ones.

    Raises:
        ModelFileError: A file is missing, damaged or unsafe.
    """
    kind = _model_type(model)
    if kind == _ELYSIUM or kind not in LOADERS:
        return None
    module = import_module(LOADERS[kind].partition(":")[0])
    tell: Callable[[Path], dict[str, Any]] | None = getattr(module, "facts", None)
    folder = checkpoint_folder(model)
    return {"model": model, "folder": str(folder), "family": kind, **({} if tell is None else tell(folder))}


def _model_type(model: str) -> str:
    """The ``model_type`` of a model's ``config.json``; empty if there is none."""
    try:
        config = json.loads(read_settings_text(checkpoint_folder(model) / CONFIG_NAME))
    except (ModelFileError, OSError, ValueError, RecursionError):
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""
