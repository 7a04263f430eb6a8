"""Failures of torch and of the device, told as the package's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from elysium_core.errors import BackendError

_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn what torch raises in the block into one sentence.

    torch reports lack of memory, lost devices and unsupported operations alike, as bare
    ``RuntimeError``. A robot must hear of them and go on.

    Args:
        what: Part of the model that runs in the block.

    Raises:
        BackendError: Memory does not suffice (``MEMORY``), or the device failed (``BACKEND``).
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
        raise BackendError(f"{what} failed: {reason}") from error
