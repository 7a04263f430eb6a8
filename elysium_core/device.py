"""Whether a GPU can be used, and if not, why.

Names of devices and data types, as users write them, and what they stand for here.

How many CPU threads a program should let torch use for a model.

Failures of torch and of the device, told as the package's own errors.

How much memory a device has left.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from elysium_core.errors import GPU_LOST, BackendError


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


SMALL_MODEL = 50_000_000
"""Parameters below which one thread is faster than several: the matrices are so small that
threads spend their time waiting for each other, and on a busy machine wait for ever."""


def fit_threads(parameters: int) -> int:
    """Set torch's threads for this process to what suits a model.

    For programs (the command, the node), not for libraries: the setting is the whole
    process's. ``OMP_NUM_THREADS`` in the environment goes before.

    Args:
        parameters: Size of the model.

    Returns:
        The number of threads now in use.
    """
    torch.set_num_threads(suitable_threads(parameters))
    return torch.get_num_threads()


def suitable_threads(parameters: int) -> int:
    """Threads that suit a model: one for a small one, else as many as torch uses.

    Args:
        parameters: Size of the model.
    """
    few = parameters < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ
    return 1 if few else torch.get_num_threads()


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


_MEMINFO = Path("/proc/meminfo")


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device [bytes]; None where it is not known.

    Of a GPU, what torch keeps of freed tensors is given back first: it would count as used.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith(" kB")}
    return values.get("MemAvailable")
