"""Names of devices and data types, as users write them, and what they stand for here."""

from __future__ import annotations

import torch

from elysium_core.errors import BackendError
from elysium_core.inference.gpu import half_precision, why_no_gpu

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str) -> torch.device:
    """The device that a name stands for: ``auto`` (CUDA if there is one), ``cpu``, ``cuda:0``, ...

    Raises:
        BackendError: There is no such device (``DEVICE``).
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"{device!r} is not a device; use auto, cpu or cuda:0", code="DEVICE") from error
    if place.type not in ("cpu", "cuda"):
        raise BackendError(f"device {device!r} is not supported; use auto, cpu or cuda:0", code="DEVICE")
    if place.type == "cuda" and (not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count()):
        raise BackendError(f"there is no device {device!r}: {why_no_gpu()}", code="DEVICE")
    return place


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The data type that a name stands for: ``auto`` (half precision on CUDA, else float32) or one of :data:`DTYPES`.

    Raises:
        BackendError: There is no such data type (``DTYPE``).
    """
    if dtype == "auto":
        return half_precision(device) if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise BackendError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}", code="DTYPE")
    return DTYPES[dtype]


def device_name(device: torch.device) -> str:
    """What a device is called in status messages and reports."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return str(device)
