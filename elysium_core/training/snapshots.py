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
        draft = self.draft(step)
        try:
            self.open_draft(draft)
            write(draft)
            self.publish(draft, step)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def draft(self, step: int) -> Path:
        """Where the state of a step is written before it is whole."""
        return self._folder / f".{_PREFIX}{step:08d}.partial"

    def open_draft(self, draft: Path) -> None:
        """Make an empty draft; what a killed process left there goes away."""
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)

    def publish(self, draft: Path, step: int) -> None:
        """Make a written draft the newest state, and remove the one before it."""
        target = self._folder / f"{_PREFIX}{step:08d}"
        if not target.is_dir():
            os.replace(draft, target)
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
