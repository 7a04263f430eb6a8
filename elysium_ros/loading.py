"""Loads the model that the parameters name."""

from __future__ import annotations

import sys
from pathlib import Path

from elysium_core.errors import ModelFileError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.tracking.types import PerceptionModel
from elysium_ros.parameters import Settings


def load_model(path: str, device: str = "auto", precision: str = "auto", backend: str = "auto") -> PerceptionModel:
    """Load a model.

    Args:
        path: ``identity``, ``nano``, or a checkpoint folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32``, ``float16`` or ``bfloat16``.
        backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``, for the vision encoder.

    Raises:
        ModelFileError: The folder or a file in it is missing, damaged or unsafe to read.
        BackendError: The device or backend cannot be used on this machine.
    """
    if path == "identity":
        return IdentityModel()
    if path.startswith(("/", "./", "../", "~")):
        # Cannot be a name; said at once instead of after the seconds that torch takes to import.
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ModelFileError(f"there is no model folder {str(folder)!r}; set model.path to a checkpoint or 'nano'")
        path = str(folder)
    from elysium_core.inference.threads import fit_threads
    from elysium_core.tasks import Elysium

    model: PerceptionModel = Elysium.from_pretrained(path, device=device, dtype=precision, vision_backend=backend)
    fit_threads(model.info.parameters)
    return model


def load_configured_model(settings: Settings) -> PerceptionModel:
    """Load the model that the settings name; raises as :func:`load_model`."""
    return load_model(settings.model_path, settings.model_device, settings.model_precision, settings.model_backend)


def gpu_memory_used() -> int:
    """Return the GPU memory that this process has allocated through torch [bytes], 0 without torch or GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.memory_allocated(index)) for index in range(torch.cuda.device_count()))
