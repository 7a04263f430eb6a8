"""The exceptions of elysium. This module imports nothing else of the package.

The message of every error is one sentence that names the wrong value and the remedy. ``code`` is
a stable identifier for programs; ROS replies, diagnostics and ``--json`` output contain it.
"""

from __future__ import annotations

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


def printable(text: str, limit: int) -> str:
    """Return ``text`` on one line with control characters escaped, cut to ``limit`` characters."""
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:limit])
    return escaped if len(escaped) <= limit and len(text) <= limit else escaped[: limit - 3] + "..."
