"""Loads the model that a node was told to use. Imports no ROS."""

from __future__ import annotations

from pathlib import Path

from elysium_core.errors import ModelFileError, packages_needed
from elysium_core.settings import LoadOptions
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import PerceptionModel


def load_model(options: LoadOptions) -> PerceptionModel:
    """Load a model; ``identity`` has nothing to load and ignores all options.

    Raises:
        ModelFileError: The folder or a file in it is missing, damaged or unsafe to read.
        BackendError: The device, backend or quantisation cannot be used on this machine, or a Python package is not
            installed (``PACKAGE_MISSING``).
    """
    name = options.model
    if name == "identity":
        return IdentityModel()
    if name.startswith(("/", "./", "../", "~")):
        # Cannot be a name; said at once instead of after the seconds that torch takes to import.
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ModelFileError(
                f"there is no model folder {str(folder)!r}; set model.path to a checkpoint, 'real' or 'nano'"
            )
        options = options.with_options(model=str(folder))
    with packages_needed():
        from elysium_core.api import Elysium
        from elysium_core.device import fit_threads

    model: PerceptionModel = Elysium.from_pretrained(options)
    fit_threads(model.info.parameters)
    return model


def warm_up(model: PerceptionModel, passes: int) -> None:
    """Run the whole model ``passes`` times, so that the first real image is not slow."""
    for _ in range(passes):
        model.warm_up()
