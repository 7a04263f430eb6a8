"""Devices, data types, memory and threads: every decision about them is made here."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import psutil
import torch

from elysium_core.errors import GPU_LOST, BackendError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Data types of weights by the names that users write."""

SMALL_MODEL = 50_000_000
"""Number of parameters below which one thread is faster than several: the matrices are so small that the threads
mostly wait for each other."""

# What torch says when memory is short, and when no further call of this process to the GPU can succeed.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_GPU_LOST = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc error",
    "gpu is lost",
)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that a name stands for.

    Args:
        device: ``auto`` (the first GPU, or the CPU if there is none), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BackendError: There is no such device (``DEVICE``).
    """
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"{device!r} is not a device; use auto, cpu or cuda:0", code="DEVICE") from error
    if found.type not in ("cpu", "cuda"):
        raise BackendError(f"device {str(device)!r} is not supported; use auto, cpu or cuda:0", code="DEVICE")
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise BackendError(f"there is no device {str(device)!r}: {why_no_gpu()}", code="DEVICE")
    return found


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the data type that a name stands for.

    Args:
        dtype: A key of :data:`DTYPES`, or ``auto``: float32 on a CPU, half precision on a GPU.
        device: The device of the model.

    Raises:
        BackendError: There is no such data type (``DTYPE``).
    """
    if dtype == "auto":
        return half_precision(device) if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise BackendError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}", code="DTYPE")
    return DTYPES[dtype]


def half_precision(device: torch.device) -> torch.dtype:
    """Return the fast half-precision type of a GPU: bfloat16 from compute capability 8.0 on, float16 before."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def device_name(device: torch.device) -> str:
    """Return the name of a device for status messages and reports."""
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a data type, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def why_no_gpu() -> str:
    """Return why torch finds no CUDA device, as half a sentence; the number of devices if it finds some."""
    if torch.cuda.is_available():
        return f"this machine has {torch.cuda.device_count()}, counted from cuda:0"
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install a CUDA build of it, or use the cpu"
    return "torch finds no NVIDIA GPU with a working driver (see nvidia-smi); use the cpu"


def check_gpu(device: torch.device) -> None:
    """Refuse a GPU for which the installed torch has no machine code. Called before weights are loaded.

    Args:
        device: The device of the model; a CPU is accepted.

    Raises:
        BackendError: The compute capability is not supported (``GPU_ARCH``).
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
    """Return whether a torch build runs on a GPU.

    Args:
        capability: Compute capability of the GPU.
        built: Architectures of the build, as ``torch.cuda.get_arch_list()`` returns them. ``sm_86`` is machine code
            for the same major version from this minor version on; ``compute_86`` is compiled on any newer GPU.
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


def current_gpu(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one inside a block, for libraries that always use the current one; no effect on a CPU."""
    return torch.cuda.device(device) if device.type == "cuda" and torch.cuda.is_available() else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done all queued work; no effect on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that a new model could use on a device [bytes]; None for a device without memory (``meta``).

    On a GPU this first releases what torch caches.
    """
    if device.type == "cuda":
        release_memory(device)
        return int(torch.cuda.mem_get_info(device)[0])
    return psutil.virtual_memory().available if device.type == "cpu" else None


def total_bytes(device: torch.device) -> int:
    """Return the size of a device's memory [bytes]: of a GPU, else of the computer."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else psutil.virtual_memory().total


def release_memory(device: torch.device) -> None:
    """Collect garbage, and return the GPU memory that torch caches to the driver."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def fit_threads(parameters: int) -> int:
    """Set torch's number of threads to the one that suits a model.

    The setting holds for the whole process, so only programs (the command, the node) call this, not the library.
    The environment variable ``OMP_NUM_THREADS`` has priority.

    Args:
        parameters: Number of parameters of the model.

    Returns:
        The number of threads now in use.
    """
    torch.set_num_threads(suitable_threads(parameters))
    return torch.get_num_threads()


def suitable_threads(parameters: int) -> int:
    """Return the number of threads that suits a model: 1 below :data:`SMALL_MODEL` parameters, else torch's own."""
    is_small = parameters < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ
    return 1 if is_small else torch.get_num_threads()


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn errors of torch inside the block into one sentence with a code.

    torch raises a bare ``RuntimeError`` for lack of memory, for a lost GPU and for an unsupported operation alike.

    Args:
        what: The part of the model that runs in the block.

    Raises:
        BackendError: There is too little memory (``MEMORY``), this process cannot use its GPU any more
            (``GPU_LOST``), or the device failed otherwise (``BACKEND``).
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or any(sign in reason.lower() for sign in _OUT_OF_MEMORY):
            raise BackendError(
                f"{what} ran out of memory; use fewer targets, a shorter clip, a smaller dtype or a smaller model",
                code="MEMORY",
            ) from error
        if any(sign in reason.lower() for sign in _GPU_LOST):
            raise BackendError(
                f"{what} failed: {reason}; this process cannot use its GPU any more, start it again", code=GPU_LOST
            ) from error
        raise BackendError(f"{what} failed: {reason}") from error
