"""The exceptions of elysium. This module imports nothing else of the package.

The message of every error is one sentence that names the wrong value and the remedy. ``code`` is
a stable identifier for programs; ROS replies, diagnostics and ``--json`` output contain it.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

GPU_LOST = "GPU_LOST"
"""Code of the error after which this process cannot use its GPU any more. A new process can."""


class ElysiumError(Exception):
    """Base class of all errors that elysium raises.

    Args:
        message: One sentence naming the value and the remedy.
        code: Stable identifier such as ``"BOX_INVALID"``; the class default if omitted.
    """

    code = "INTERNAL"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BoxError(ElysiumError, ValueError):
    """A box is not finite, is reversed, has no area or lies outside the frame."""

    code = "BOX_INVALID"


class ExpressionError(ElysiumError, ValueError):
    """A referring expression or question is empty, too long, or contains a part of the prompt format."""

    code = "EXPR_INVALID"


class ImageError(ElysiumError, ValueError):
    """An image has a shape, size or encoding that cannot be used."""

    code = "IMG_SHAPE"


class VideoError(ElysiumError):
    """A video or image folder is missing, unreadable or empty."""

    code = "VIDEO"


class ConfigError(ElysiumError, ValueError):
    """A setting has an unknown name or a value out of range."""

    code = "CONFIG"


class ModelFileError(ElysiumError):
    """A model folder or weight file is missing, damaged or unsafe to read."""

    code = "MODEL_FILE"


class TargetError(ElysiumError):
    """A target is unknown, cannot be started, or there are too many of them."""

    code = "TARGET"


class BackendError(ElysiumError):
    """An inference backend cannot be used on this machine."""

    code = "BACKEND"


class DataError(ElysiumError):
    """A data set line, folder or recipe cannot be read."""

    code = "DATA"


PACKAGES = {
    "av": "av",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "PIL": "pillow",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "torch": "torch",
    "transformers": "transformers",
    "typer": "typer",
    "yaml": "PyYAML",
}
"""The Python packages that elysium cannot do without: name of the module -> name for pip."""


def pip_line(*packages: str) -> str:
    """Return the command that installs packages for the Python that runs now."""
    python, here = Path(sys.executable), Path.cwd()
    python = python.relative_to(here) if python.is_relative_to(here) else python
    options = ""
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        # Debian and Ubuntu refuse a plain install for their own Python, and ROS uses that.
        options = "--user --break-system-packages "
    return f"{python} -m pip install {options}{' '.join(packages)}"


def missing_package(error: ModuleNotFoundError) -> str:
    """Return one sentence about a Python package that is not installed, with the command that installs all of them.

    Raises:
        ModuleNotFoundError: The missing module is a part of elysium itself.
    """
    module = str(error.name).partition(".")[0]
    if module in ("elysium_core", "elysium_ros"):
        raise error
    wanted = [package for name, package in PACKAGES.items() if find_spec(name) is None]
    name = PACKAGES.get(module, module)
    line = pip_line(*(wanted if name in wanted else [name, *wanted]))
    return f"the Python package {name!r} is not installed for {sys.executable}; run: {line}"


@contextmanager
def packages_needed() -> Iterator[None]:
    """Turn the failed import of a Python package in the block into one sentence with the command that installs it.

    Raises:
        BackendError: A package is not installed (``PACKAGE_MISSING``).
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise BackendError(missing_package(error), code="PACKAGE_MISSING") from error


def printable(text: str, limit: int) -> str:
    """Return ``text`` on one line with control characters escaped, cut to ``limit`` characters."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:limit])
    return escaped if len(escaped) <= limit and len(text) <= limit else escaped[: limit - 3] + "..."
