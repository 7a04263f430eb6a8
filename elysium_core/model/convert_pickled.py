"""Turns one old ``.bin`` weight file into safetensors. Run as a program, in a process of its own.

``torch.load(weights_only=True)`` has let crafted files run code before, so it is never
called in the process that serves a robot, and only with a torch in which the known
holes are closed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OLDEST_SAFE_TORCH = (2, 10)
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


def convert_in_subprocess(source: Path, target: Path) -> str:
    """Convert one file.

    Args:
        source: A ``pytorch_model*.bin``.
        target: The safetensors file to write.

    Returns:
        Why it failed, in one line; empty if it did not.
    """
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    # Isolated mode: neither the working folder nor the user's site folder can replace a module.
    command = [sys.executable, "-I", str(Path(__file__).resolve()), str(source.resolve()), str(target.resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"the converter ended with code {done.returncode}"


def convert(source: str, target: str) -> None:
    """Read a state dict with the restricted unpickler and write it as safetensors.

    Raises:
        ValueError: The file is not a plain state dict.
    """
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it is not a state dict of tensors")
    # Tied weights share memory in a .bin, which safetensors does not allow.
    save_file({str(key): value.detach().clone().contiguous() for key, value in state.items()}, target)


def torch_is_safe(version: str) -> bool:
    """Whether a torch of this version may read such a file at all."""
    numbers = [int(part) for part in version.split(".")[:2]]
    return tuple(numbers) >= OLDEST_SAFE_TORCH


if __name__ == "__main__":
    convert(*sys.argv[1:3])
