"""Whether a GPU can be used, and if not, why."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from elysium_core.errors import BackendError


def why_no_gpu() -> str:
    """Why torch sees no CUDA device, in half a sentence; how many there are if it sees some."""
    if torch.cuda.is_available():
        return f"this machine has {torch.cuda.device_count()}, counted from cuda:0"
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install a CUDA build of it, or use the cpu"
    return "torch finds no NVIDIA GPU with a working driver (see nvidia-smi); use the cpu"


def check_gpu(device: torch.device) -> None:
    """Refuse a GPU that the installed torch has no programs for, before weights are loaded for it.

    Args:
        device: Where the model will be; a CPU passes.

    Raises:
        BackendError: Its compute capability is not supported (``GPU_ARCH``).
    """
    if device.type != "cuda":
        return
    capability, built = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not runs_on(capability, built):
        raise BackendError(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, but torch "
            f"{torch.__version__} is built for {', '.join(built)}; install a torch build for this GPU, or use the cpu",
            code="GPU_ARCH",
        )


def runs_on(capability: tuple[int, int], built: Iterable[str]) -> bool:
    """Whether programs that were built for some architectures run on a GPU.

    Args:
        capability: Of the GPU.
        built: As ``torch.cuda.get_arch_list()`` names them: ``sm_86`` is machine code, for the same major
            version from this minor one on; ``compute_86`` is compiled on any newer GPU.
    """
    for name in built:
        kind, _, number = name.partition("_")
        digits = "".join(sign for sign in number if sign.isdigit())  # sm_90a
        if len(digits) < 2:
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and capability[0] == major and capability[1] >= minor:
            return True
        if kind == "compute" and capability >= (major, minor):
            return True
    return False


def half_precision(device: torch.device) -> torch.dtype:
    """The half-precision data type that a GPU calculates with fast: bfloat16 from compute capability 8.0 on."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def current_gpu(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one for a block, for what cannot be told which to use; without GPUs, nothing."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()
