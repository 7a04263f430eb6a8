"""Loading the model that a verb was asked to use."""

from __future__ import annotations

from elysium_core.tracking.identity import IdentityModel
from elysium_core.tracking.types import PerceptionModel

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
    from elysium_core.inference.threads import fit_threads
    from elysium_core.tasks import Elysium

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
