"""Conversion of old ``.bin`` weight files to safetensors, in a separate process.

Crafted files could make older versions of ``torch.load(weights_only=True)`` run code. It is
therefore never called in the process that serves a robot, and only with a version of torch in
which the known holes are closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

OLDEST_SAFE_TORCH = (2, 10)
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


def convert_in_subprocess(sources: Sequence[Path], folder: Path) -> list[Path]:
    """Convert pickled weight files.

    Args:
        sources: ``pytorch_model*.bin``.
        folder: Folder for the safetensors files.

    Returns:
        The new files, in the order of ``sources``.

    Raises:
        ModelFileError: A file is not a plain state dict, or would run code (``MODEL_UNSAFE``).
    """
    # Not at the top: run as a program, this file can import site packages only.
    from elysium_core.errors import ModelFileError

    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    # Isolated mode: neither the working folder nor the user site folder can replace a module.
    command = [sys.executable, "-I", str(Path(__file__).resolve()), str(folder), *(str(f.resolve()) for f in sources)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"the converter ended with code {done.returncode}"])[-1]
        raise ModelFileError(f"cannot convert {sources[0].parent}: {reason[:300]}", code="MODEL_UNSAFE")
    return [folder / f"{source.stem}.safetensors" for source in sources]


def convert(folder: str, *sources: str) -> None:
    """Read state dicts with the restricted unpickler and write them as safetensors.

    Raises:
        ValueError: A file is not a plain state dict.
    """
    import torch
    from safetensors.torch import save_file

    for source in sources:
        try:
            state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a crafted file can raise anything
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{source}: {type(error).__name__} {reason}") from error
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise ValueError(f"{source} is not a state dict of tensors")
        # Tied weights share memory in a .bin, which safetensors does not allow.
        tensors = {str(key): value.detach().clone().contiguous() for key, value in state.items()}
        save_file(tensors, Path(folder) / f"{Path(source).stem}.safetensors")


def torch_is_safe(version: str) -> bool:
    """Return whether a version of torch may read a pickled file."""
    numbers = [int(part) for part in version.split(".")[:2]]
    return tuple(numbers) >= OLDEST_SAFE_TORCH


if __name__ == "__main__":
    convert(*sys.argv[1:])
