"""Where a stage stands on disk: whole at any moment, so that it may be killed at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

WEIGHTS_NAME = "state.safetensors"

_PREFIX = "step-"


class Snapshots:
    """Folders ``step-00000120`` of one stage; the newest one is always whole.

    Weights, optimiser and counters belong together: a folder appears with all of them
    in one rename, and only then the one before it is removed.

    Args:
        folder: The stage's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> Path | None:
        """The folder to go on from, None before the first save."""
        return max(self._folder.glob(f"{_PREFIX}*"), default=None)

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save one state; if that fails, the one before it stays.

        Args:
            step: Steps done.
            write: Writes all files of the state into the folder it is given.

        Raises:
            OSError: A file cannot be written.
        """
        target = self._folder / f"{_PREFIX}{step:08d}"
        draft = self._folder / f".{target.name}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        if target.is_dir():
            return
        try:
            draft.mkdir(parents=True)
            write(draft)
            os.replace(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._remove(keep=target)

    def clear(self) -> None:
        """Remove all states."""
        self._remove(keep=None)

    def _remove(self, keep: Path | None) -> None:
        for folder in self._folder.glob(f"{_PREFIX}*"):
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)


def find_weights(stage_folder: Path) -> Path | None:
    """The weights of a finished stage, or the newest ones of a running stage; None if there are none."""
    finished = stage_folder / WEIGHTS_NAME
    if finished.is_file():
        return finished
    newest = Snapshots(stage_folder).newest()
    return None if newest is None else newest / WEIGHTS_NAME
