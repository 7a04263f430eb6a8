"""``elysium doctor``: check the installation, and print the remedy for each missing part."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import typer

import elysium_core
from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.errors import PACKAGES, BackendError, ModelFileError, pip_line

_MISSING = 1


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was checked.
        ok: Whether it is installed and works.
        found: Version or other short fact; empty if it is not installed.
        remedy: What to do if it is missing; empty if there is nothing to do.
        required: Whether the core needs it.
    """

    name: str
    ok: bool
    found: str = ""
    remedy: str = ""
    required: bool = False


def command(json: JsonOption = False) -> None:
    """Check this installation and say what is missing."""
    checks = [check for group in GROUPS for check in group()]
    usable = all(check.ok for check in checks if check.required)
    if json:
        emit({"usable": usable, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            say(_line(check))
        say("elysium can be used" if usable else "elysium cannot be used yet: see the lines marked MISSING")
    raise typer.Exit(0 if usable else _MISSING)


def _line(check: Check) -> str:
    sign = "ok     " if check.ok else "MISSING" if check.required else "-      "
    detail = check.found if check.ok else "; ".join(part for part in (check.found, check.remedy) if part)
    return f"{sign}  {check.name:<24}{detail}"


def _python_and_core() -> Iterator[Check]:
    yield Check("elysium", True, f"{elysium_core.__version__} in {Path(elysium_core.__file__).parent}", required=True)
    recent = sys.version_info >= (3, 10)
    yield Check("python", recent, platform.python_version(), "install Python 3.10 or newer", required=True)
    for package in (*(each for each in PACKAGES.values() if each != "torch"), "safetensors"):
        yield _package(package, pip_line(package), required=True)


def _extras() -> Iterator[Check]:
    yield _package(
        "sentencepiece", pip_line("sentencepiece", "protobuf") + ", for tokenizers that are a tokenizer.model"
    )
    yield _package("accelerate", pip_line("accelerate", "tensorboard") + ", to train")
    yield _package("rosbags", pip_line("rosbags") + ", to read and write bags of ROS 2")
    yield _package("pyarrow", pip_line("pyarrow") + ", to write tracks as .parquet")
    yield _package("supervision", pip_line("supervision") + ", for results as supervision.Detections")
    yield _package("matplotlib", pip_line("matplotlib") + ", for the plots of evaluations")
    yield _package("pycocoevalcap", pip_line("pycocoevalcap") + ", for METEOR and CIDEr")
    yield _package("trackeval", pip_line("--no-deps", "trackeval==1.3.0") + " scipy, for HOTA, IDF1 and MOTA")
    java = shutil.which("java")
    yield Check("java", java is not None, java or "not found", "METEOR and CIDEr need a Java runtime")


def _torch() -> Iterator[Check]:
    check = _package("torch", pip_line("torch"), required=True)
    yield check
    if not check.ok:
        return
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {free >> 20} of {total >> 20} MiB free"
        yield Check("cuda", *_programs(name))
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        remedy = "real and nano run on the CPU; the 7B model needs a GPU"
        yield Check("cuda", False, f"no CUDA device ({built})", remedy)


def _programs(name: str) -> tuple[bool, str, str]:
    """Return whether this torch can use the GPU, what was found, and the remedy."""
    import torch

    from elysium_core.device import check_gpu

    try:
        check_gpu(torch.device("cuda:0"))
    except BackendError as error:
        return False, name, str(error)
    return True, name, ""


def _backends() -> Iterator[Check]:
    yield _package("onnxruntime", pip_line("onnxruntime") + ", for the ONNX vision backend")
    yield _tensorrt()
    yield _package("bitsandbytes", pip_line("bitsandbytes") + ", for int8 and nf4 language models")


def _tensorrt() -> Check:
    """Check for either of the two packages that contain TensorRT."""
    remedy = pip_line("tensorrt") + ", on a machine with an NVIDIA GPU"
    check = _package("tensorrt", remedy)
    rtx = _package("tensorrt-rtx-cu13-bindings", remedy)
    return Check("tensorrt", True, f"RTX {rtx.found}") if rtx.ok and not check.ok else check


def _ros() -> Iterator[Check]:
    for name, module, remedy in (
        ("ROS 2 (rclpy)", "rclpy", "run `make setup` in the repository, or source /opt/ros/<distro>/setup.bash"),
        ("ROS messages", "elysium_ros.msg", "run `make setup`, then source install/setup.bash"),
        ("cv_bridge", "cv_bridge", "optional: images are converted without it"),
    ):
        found = _is_importable(module)
        yield Check(name, found, "found" if found else "not found", remedy)


def _weights() -> Iterator[Check]:
    from elysium_core.checkpoint.locations import PACKAGED, checkpoint_folder

    for name in PACKAGED:
        try:
            folder = checkpoint_folder(name)
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            weights = f"{size / 1e6:.1f} MB in {folder}"
            yield Check(f"model {name}", size > 0, weights, "its weights are missing; reinstall the package")
        except ModelFileError as error:
            yield Check(f"model {name}", False, "", str(error))
    pulled = list(_pulled_models())
    yield Check("pulled models", bool(pulled), ", ".join(pulled) or "none", "elysium pull HUB_ID fetches one")


def _pulled_models() -> Iterator[str]:
    if not _is_importable("huggingface_hub"):
        return
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        if repository.repo_type == "model":
            yield f"{repository.repo_id} ({repository.size_on_disk / 1e9:.1f} GB)"


def _cameras_and_encoders() -> Iterator[Check]:
    cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
    yield Check("cameras", bool(cameras), ", ".join(cameras) or "none", "connect one to use it as VIDEO")
    if _is_importable("av"):
        import av

        h264 = "libx264" in av.codecs_available
        yield Check("H.264 encoder", h264, "libx264" if h264 else "none", "MP4 files are written as MPEG-4 part 2")


def _package(name: str, remedy: str, *, required: bool = False) -> Check:
    try:
        return Check(name, True, metadata.version(name), required=required)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", remedy, required)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


GROUPS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python_and_core,
    _extras,
    _torch,
    _backends,
    _ros,
    _weights,
    _cameras_and_encoders,
)
"""All groups of checks, in the order of the report."""
