"""The exception family of elysium; imports nothing.

Every error says in one sentence what was wrong, names the offending value and
says what to do about it. ``code`` is a stable identifier: ROS replies,
diagnostics and ``--json`` output carry it, so that a program can react without
reading prose.
"""

from __future__ import annotations

GPU_LOST = "GPU_LOST"
"""Code of the error after which a process cannot use its GPU any more; only a new process can."""


class ElysiumError(Exception):
    """Base of everything elysium raises on purpose.

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
    """A referring expression or question is empty, too long or spells the protocol."""

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
