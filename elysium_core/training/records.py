"""What a stage leaves to look at: JSON lines, TensorBoard, sample pictures, the data lines it skipped.

Where a stage stands on disk: whole at any moment, so that it may be killed at any moment.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.io.files import atomic_path
from elysium_core.io.image import write_image

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


LOG_NAME = "log.jsonl"
EVALUATION_NAME = "evaluations.jsonl"
SKIPPED_NAME = "skipped.jsonl"
PICTURE_FOLDER = "pictures"
TENSORBOARD_FOLDER = "tensorboard"

_LOG = logging.getLogger(__name__)
_SKIPS_TOLD = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a look at the model between two steps has found.

    Attributes:
        values: Losses and measures on batches that are never trained on.
        pictures: RGB uint8 (H, W, 3) by name: answers drawn over frames, beside the truth.
    """

    values: Mapping[str, float]
    pictures: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


class StageRecords:
    """The records of one stage, written by one process.

    Args:
        folder: The stage's folder.
        step: Step to go on from: what was recorded behind it is dropped, because it comes again.
        active: False in all processes but the main one; nothing is written then.
    """

    def __init__(self, folder: Path, step: int = 0, *, active: bool = True) -> None:
        self._folder, self._active = folder, active
        self._board: Any = None
        self._start = step
        self._skipped: set[str] = set()
        if not active:
            return
        for name in (LOG_NAME, EVALUATION_NAME):
            _cut_lines(folder / name, step)
        if (folder / SKIPPED_NAME).exists():
            lines = (folder / SKIPPED_NAME).read_text(encoding="utf-8").splitlines(keepends=True)
            self._skipped = {json.loads(line)["reason"] for line in lines if line.endswith("\n")}

    @property
    def skipped_count(self) -> int:
        """Different data lines that could not be used so far."""
        return len(self._skipped)

    def losses(self, step: int, seconds: float, values: Mapping[str, float]) -> dict[str, float]:
        """Append one line to ``log.jsonl`` and to TensorBoard; return it."""
        line: dict[str, float] = {"step": step, "seconds": round(seconds, 1), **_rounded(values)}
        if self._active:
            _append(self._folder / LOG_NAME, line)
            self._scalars("train", step, values)
        return line

    def evaluation(self, step: int, found: Evaluation) -> None:
        """Append one line to ``evaluations.jsonl``, write the pictures, tell TensorBoard."""
        if not self._active:
            return
        _append(self._folder / EVALUATION_NAME, {"step": step, **_rounded(found.values)})
        self._scalars("evaluation", step, found.values)
        board = self._tensorboard()
        for name, picture in found.pictures.items():
            write_image(self._folder / PICTURE_FOLDER / f"{step:08d}-{name}.png", picture)
            if board is not None:
                board.add_image(name, picture, step, dataformats="HWC")
        if board is not None:
            board.flush()

    def skipped(self, reasons: Iterable[str]) -> None:
        """Write down data lines that could not be used, each once; the first ones are told on the log, too."""
        for reason in reasons:
            if reason in self._skipped or not self._active:
                continue
            self._skipped.add(reason)
            _append(self._folder / SKIPPED_NAME, {"reason": reason})
            if len(self._skipped) <= _SKIPS_TOLD:
                _LOG.warning("skipped: %s", reason)
            if len(self._skipped) == _SKIPS_TOLD:
                _LOG.warning("more skipped lines are only written to %s", self._folder / SKIPPED_NAME)

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        if self._board is not None:
            self._board.close()

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        board = self._tensorboard()
        if board is not None:
            for key, value in values.items():
                board.add_scalar(f"{group}/{key}", value, step)

    def _tensorboard(self) -> Any:
        """The writer, made when first needed; None where the package is missing."""
        if self._board is None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder / TENSORBOARD_FOLDER), purge_step=self._start + 1)
        return self._board


def last_step(folder: Path) -> int:
    """Last step that a stage's log tells of; 0 without a log."""
    log = folder / LOG_NAME
    if not log.exists():
        return 0
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return max((json.loads(line)["step"] for line in lines[-2:] if line.endswith("\n")), default=0)


def _cut_lines(path: Path, step: int) -> None:
    """Drop the lines behind a step, and one that was cut off."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _append(path: Path, line: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}
