"""Files of JSON lines with access to any line; only the offset of each line is kept in memory."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import read_json
from elysium_core.errors import DataError

_BLOCK_BYTES = 1 << 12
_BOMS_16_32 = (b"\xff\xfe", b"\xfe\xff")


class LineFile:
    """A file of JSON lines (or one JSON list, which is held in memory) with access to any line.

    Args:
        path: The file.

    Raises:
        DataError: It cannot be read or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._items: list[Any] | None = None
                if _begins_list(file, path):
                    self._items = list(read_json(path))
                file.seek(0)
                lengths = [(number, len(line), bool(line.strip())) for number, line in enumerate(file, 1)]
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        starts = np.cumsum([0, *(length for _, length, _ in lengths)])
        filled = [place for place, (_, _, used) in enumerate(lengths) if used]
        self._starts: NDArray[np.int64] = starts[filled] if filled else np.zeros(0, np.int64)
        self._numbers: NDArray[np.int64] = np.asarray(filled, np.int64) + 1
        if len(self) == 0:
            raise DataError(f"{str(path)!r} is empty; it needs one JSON object a line")

    def __len__(self) -> int:
        """Number of items."""
        return len(self._starts) if self._items is None else len(self._items)

    def place(self, index: int) -> str:
        """Return file and line of an item, for messages."""
        if self._items is not None:
            return f"item {index + 1} of {str(self.path)!r}"
        return f"line {self._numbers[index]} of {str(self.path)!r}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one item.

        Raises:
            DataError: It is not a JSON object.
        """
        value = self._parse(index) if self._items is None else self._items[index]
        if not isinstance(value, dict):
            raise DataError(f"{self.place(index)} is a JSON {type(value).__name__} where an object {{...}} is needed")
        return value

    def _parse(self, index: int) -> Any:
        with self.path.open("rb") as file:
            file.seek(int(self._starts[index]))
            try:
                return json.loads(file.readline().decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self.place(index)} is not valid JSON ({error}); repair or delete it") from error


def _begins_list(file: BinaryIO, path: Path) -> bool:
    """Return whether the content of a file begins with a bracket, behind blanks and a byte order mark."""
    head = file.read(_BLOCK_BYTES)
    if head.startswith(_BOMS_16_32):
        raise DataError(f"{str(path)!r} is UTF-16 or UTF-32 text; convert it to UTF-8 first")
    while head and not head.removeprefix(codecs.BOM_UTF8).strip():
        head = file.read(_BLOCK_BYTES)
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
