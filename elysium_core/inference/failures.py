"""Failures of torch and of the device, told as the package's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from elysium_core.errors import GPU_LOST, BackendError

_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
# After these no call of this process to the GPU succeeds any more.
_LOST_SIGNS = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc error",
    "gpu is lost",
)


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn what torch raises in the block into one sentence.

    torch reports lack of memory, lost devices and unsupported operations alike, as bare
    ``RuntimeError``. A robot must hear of them and go on.

    Args:
        what: Part of the model that runs in the block.

    Raises:
        BackendError: Memory does not suffice (``MEMORY``), the GPU cannot be used any more by this process
            (``GPU_LOST``), or the device failed otherwise (``BACKEND``).
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or any(sign in reason.lower() for sign in _MEMORY_SIGNS):
            raise BackendError(
                f"{what} ran out of memory; use fewer targets, a shorter clip, a smaller dtype or a smaller model",
                code="MEMORY",
            ) from error
        if any(sign in reason.lower() for sign in _LOST_SIGNS):
            raise BackendError(
                f"{what} failed: {reason}; this process cannot use its GPU any more, start it again", code=GPU_LOST
            ) from error
        raise BackendError(f"{what} failed: {reason}") from error
