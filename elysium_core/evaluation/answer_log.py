"""The answers of a run so far, and the entries that it has to leave out.

Each answer is one JSON line and is written to disk at once. Each process that ``torchrun``
starts writes separate files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from elysium_core.errors import DataError, ImageError, VideoError
from elysium_core.evaluation.ranks import Ranks

LEFT_OUT = "left-out"
"""Kind of the records about entries that are left out."""
_ANSWER_FILES = "{kind}-rank-*.jsonl"

T = TypeVar("T")


class AnswerLog:
    """Answers of all processes of a run; this process appends to its file.

    A killed run loses at most its last line. An incomplete line at the end is removed
    when the file is opened again, and its item is answered again.

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
        self._path = path
        self._file: TextIO | None = None

    def append(self, item_id: str, answer: Mapping[str, Any]) -> None:
        """Write one answer and make sure that it is on disk."""
        record = {"id": item_id, **answer}
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[item_id] = record

    def close(self) -> None:
        """Close the file, if an answer was written."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_answers(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return all answers of a run, by item, without an incomplete line that another process is writing.

    Raises:
        DataError: A line in the middle of a file is damaged.
    """
    answers: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(_ANSWER_FILES.format(kind=kind))):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        # The text after the last line feed is an incomplete line.
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


def left_out_log(folder: Path, rank: int) -> AnswerLog:
    """Open a new log of the entries that this process has to leave out; those of an earlier run are tried again."""
    (folder / f"{LEFT_OUT}-rank-{rank}.jsonl").unlink(missing_ok=True)
    return AnswerLog(folder, LEFT_OUT, rank)


def require_some(left_out: AnswerLog, is_answered: bool) -> None:
    """Check at the end of a run that not every entry was left out.

    Raises:
        DataError: There is no answer, because every entry is damaged.
    """
    if left_out.done and not is_answered:
        reason = next(iter(left_out.done.values()))["reason"]
        raise DataError(f"{reason}; none of the {len(left_out.done)} entries can be used")


def answer_missing(
    folder: Path, ranks: Ranks, items: Iterable[T], name: Callable[[T], str], answer: Callable[[T], Mapping[str, Any]]
) -> Iterator[str]:
    """Answer the items of this process that have no answer in the run folder yet; each answer is written at once.

    Args:
        folder: The run folder.
        ranks: This process among all processes of the run.
        items: All items of the run, the same and in the same order in every process.
        name: Returns the name of an item.
        answer: Returns the record for the answer file; raises DataError, ImageError or VideoError for an item whose
            images are missing or damaged: it is left out.

    Yields:
        The name of each item of this process, including those answered by an earlier run.
    """
    with AnswerLog(folder, "answers", ranks.rank) as log, left_out_log(folder, ranks.rank) as left_out:
        for item in ranks.share(items):
            if name(item) not in log.done:
                try:
                    log.append(name(item), answer(item))
                except (DataError, ImageError, VideoError) as error:
                    left_out.append(name(item), {"reason": str(error)})
            yield name(item)
        require_some(left_out, bool(log.done))
