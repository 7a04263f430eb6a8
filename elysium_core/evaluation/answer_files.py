"""Answers to many small items (sentences, questions): one JSON line each, as soon as it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from elysium_core.errors import DataError

_FILES = "{kind}-rank-*.jsonl"


class AnswerLog:
    """The lines of all processes of a run; this process appends to its own file.

    A killed run loses at most its last line: a damaged end is cut off when the file is
    opened again, and the item is simply asked again.

    Args:
        folder: The run folder.
        kind: First part of the file name, such as ``answers``.
        rank: Number of this process.
    """

    def __init__(self, folder: Path, kind: str, rank: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{kind}-rank-{rank}.jsonl"
        _cut_damaged_end(path)
        self.done = read_answers(folder, kind)
        self._file = path.open("a", encoding="utf-8")

    def append(self, item_id: str, answer: Mapping[str, Any]) -> None:
        """Write one answer and make sure that it is on disk."""
        record = {"id": item_id, **answer}
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[item_id] = record

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_answers(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return all answers of a run, by item; a line that another process is just writing is left out.

    Raises:
        DataError: A line in the middle of a file is damaged.
    """
    answers: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(_FILES.format(kind=kind))):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        # What follows the last line feed is not finished.
        for number, line in enumerate(lines[:-1], 1):
            try:
                record = json.loads(line)
                answers[str(record["id"])] = record
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"line {number} of {str(path)!r} is damaged; delete that line") from error
    return answers


def _cut_damaged_end(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
