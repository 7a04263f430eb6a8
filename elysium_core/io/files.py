"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


def temporary_beside(path: str | PathLike[str]) -> Path:
    """Return a name in the folder of ``path``, with its ending, that only this process uses."""
    path = Path(path)
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes ``path`` when the block succeeds.

    Missing parent folders are made. If the block raises, the temporary file is
    removed and an older ``path`` stays as it was.

    Raises:
        OSError: The folder or file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
