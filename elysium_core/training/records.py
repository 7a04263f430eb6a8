"""Records of a stage: JSON logs, TensorBoard curves, sample images, and the list of skipped data lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import pip_line
from elysium_core.io.files import atomic_path
from elysium_core.io.image import write_image

LOG_NAME = "log.jsonl"
EVALUATION_NAME = "evaluations.jsonl"
SKIPPED_NAME = "skipped.jsonl"
PICTURE_FOLDER = "pictures"
TENSORBOARD_FOLDER = "tensorboard"

_LOG = logging.getLogger(__name__)
_SKIPS_TOLD = 10


class StageRecords:
    """The records of one stage, written by one process.

    Args:
        folder: The stage's folder.
        step: Step to continue from; records of later steps are dropped, because these steps are repeated.
        active: True in the main process only; the others write nothing.
    """

    def __init__(self, folder: Path, step: int = 0, *, active: bool = True) -> None:
        self._folder, self._active = folder, active
        self._board: Any = None
        self._boardless = False
        self._start = step
        self._skipped: set[str] = set()
        if not active:
            return
        for name in (LOG_NAME, EVALUATION_NAME):
            _cut_lines(folder / name, step)
        if (folder / SKIPPED_NAME).exists():
            lines = (folder / SKIPPED_NAME).read_text(encoding="utf-8").splitlines(keepends=True)
            self._skipped = {json.loads(line)["reason"] for line in lines if line.endswith("\n")}

    def losses(self, step: int, seconds: float, values: Mapping[str, float]) -> dict[str, float]:
        """Append one line to ``log.jsonl`` and to TensorBoard; return it."""
        line: dict[str, float] = {"step": step, "seconds": round(seconds, 1), **_rounded(values)}
        if self._active:
            _append(self._folder / LOG_NAME, line)
            self._scalars("train", step, values)
        return line

    def evaluation(
        self, step: int, values: Mapping[str, float], pictures: Mapping[str, NDArray[np.uint8]] | None = None
    ) -> None:
        """Append one line to ``evaluations.jsonl``, write the images, and log both to TensorBoard.

        Args:
            step: Steps done.
            values: Losses and metrics on validation batches.
            pictures: RGB (H, W, 3) by name: answers and truth drawn on frames.
        """
        if not self._active:
            return
        _append(self._folder / EVALUATION_NAME, {"step": step, **_rounded(values)})
        self._scalars("evaluation", step, values)
        board = self._tensorboard()
        for name, picture in (pictures or {}).items():
            write_image(self._folder / PICTURE_FOLDER / f"{step:08d}-{name}.png", picture)
            if board is not None:
                board.add_image(name, picture, step, dataformats="HWC")
        if board is not None:
            board.flush()

    def skipped(self, reasons: Iterable[str]) -> None:
        """Record data lines that could not be used, each once; the first ones are also logged."""
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
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        board = self._tensorboard()
        if board is not None:
            for key, value in values.items():
                board.add_scalar(f"{group}/{key}", value, step)

    def _tensorboard(self) -> Any:
        """The TensorBoard writer, opened on first use; None if the package is missing."""
        if self._board is None and not self._boardless:
            self._boardless = find_spec("tensorboard") is None
            if self._boardless:
                _LOG.warning("no curves for TensorBoard are written; run: %s", pip_line("tensorboard"))
                return None
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder / TENSORBOARD_FOLDER), purge_step=self._start + 1)
        return self._board


def last_step(folder: Path) -> int:
    """Return the last step in the log of a stage; 0 without a log."""
    log = folder / LOG_NAME
    if not log.exists():
        return 0
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return max((json.loads(line)["step"] for line in lines[-2:] if line.endswith("\n")), default=0)


def _cut_lines(path: Path, step: int) -> None:
    """Drop the lines after a step, and an incomplete last line."""
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
