"""Loads the model that the parameters name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from elysium_core.errors import ModelFileError
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import PerceptionModel
from elysium_ros.node.parameters import Settings


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model to load, and how; two that are equal load the same.

    Attributes:
        path: ``identity``, ``nano``, or a checkpoint folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32``, ``float16`` or ``bfloat16``.
        backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``, for the vision encoder.
        quantization: ``none``, ``int8``, ``nf4`` or ``fp8``, of the language model.
        cuda_graphs: Replay recorded passes on a GPU.
        fast_resize: Resize images on the device instead of by PIL.
        allow_pickle_weights: Accept ``pytorch_model*.bin`` files where there are no safetensors.
    """

    path: str
    device: str = "auto"
    precision: str = "auto"
    backend: str = "auto"
    quantization: str = "none"
    cuda_graphs: bool = True
    fast_resize: bool = False
    allow_pickle_weights: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelChoice:
        """Return what the settings name."""
        return cls(
            path=settings.model_path,
            device=settings.model_device,
            precision=settings.model_precision,
            backend=settings.model_backend,
            quantization=settings.model_quantization,
            cuda_graphs=settings.model_cuda_graphs,
            fast_resize=settings.model_fast_resize,
            allow_pickle_weights=settings.model_allow_pickle_weights,
        )


def load_model(choice: ModelChoice) -> PerceptionModel:
    """Load a model; ``identity`` has nothing to load and ignores all options.

    Raises:
        ModelFileError: The folder or a file in it is missing, damaged or unsafe to read.
        BackendError: The device, backend or quantisation cannot be used on this machine.
    """
    path = choice.path
    if path == "identity":
        return IdentityModel()
    if path.startswith(("/", "./", "../", "~")):
        # Cannot be a name; said at once instead of after the seconds that torch takes to import.
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ModelFileError(f"there is no model folder {str(folder)!r}; set model.path to a checkpoint or 'nano'")
        path = str(folder)
    from elysium_core.api import Elysium
    from elysium_core.device import fit_threads

    model: PerceptionModel = Elysium.from_pretrained(
        path,
        device=choice.device,
        dtype=choice.precision,
        vision_backend=choice.backend,
        quantization=choice.quantization,
        cuda_graphs=choice.cuda_graphs,
        fast_resize=choice.fast_resize,
        allow_pickle_weights=choice.allow_pickle_weights,
    )
    fit_threads(model.info.parameters)
    return model


def gpu_memory_used() -> int:
    """Return the GPU memory that this process has allocated through torch [bytes], 0 without torch or GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.memory_allocated(index)) for index in range(torch.cuda.device_count()))
