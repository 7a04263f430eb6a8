"""Tracks as a table, for pandas and spreadsheets: columns in memory, CSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from elysium_core.errors import DataError, packages_needed
from elysium_core.io.complete_file import CompleteFile
from elysium_core.io.files import atomic_path
from elysium_core.types import TrackUpdate

TABLE_SUFFIXES = (".csv", ".parquet")
"""Endings of the files that :class:`TrackTable` writes."""

COLUMNS: dict[str, str] = {
    "frame": "int64",
    "stamp_ns": "int64",
    "target": "string",
    "expression": "string",
    "state": "string",
    "score": "float64",
    "x1": "float64",
    "y1": "float64",
    "x2": "float64",
    "y2": "float64",
    "width_px": "int64",
    "height_px": "int64",
    "described": "string",
}
"""Name and type of each column: of boxes in fractions of the frame, null where there is none, and the frame's size."""


def track_row(update: TrackUpdate, width: int, height: int) -> tuple[Any, ...]:
    """Return one update as a row, in the order of :data:`COLUMNS`.

    Args:
        update: The update.
        width: Frame width [px].
        height: Frame height [px].
    """
    box = update.box
    sides: Sequence[float | None] = (None,) * 4 if box is None else [round(value, 6) for value in box]
    what = update.target_id, update.expression, update.state.value, round(update.score, 6)
    return update.frame_index, update.stamp_ns, *what, *sides, width, height, update.described


def track_columns(updates: Iterable[TrackUpdate], width: int, height: int) -> dict[str, list[Any]]:
    """Return updates as columns, as ``pandas.DataFrame`` and ``pyarrow.table`` take them.

    Args:
        updates: Updates of a tracker, or of :func:`elysium_core.io.tracks.read_tracks`.
        width: Frame width [px].
        height: Frame height [px].

    Example:
        >>> frame = pandas.DataFrame(track_columns(updates, 640, 480))    # doctest: +SKIP
        >>> frame.groupby("target").score.mean()                          # doctest: +SKIP
    """
    rows = [track_row(update, width, height) for update in updates]
    return {name: [row[position] for row in rows] for position, name in enumerate(COLUMNS)}


class TrackTable(CompleteFile):
    """Writes a table of tracks, one row for each target and frame; the file appears when it is complete.

    Use it as a context manager: leaving the block normally writes the file, leaving it by an exception does not.

    Args:
        path: A ``.csv`` or ``.parquet`` file; missing parent folders are made, and an existing file is replaced.

    Raises:
        BackendError: The package ``pyarrow``, which writes Parquet, is not installed (``PACKAGE_MISSING``).
        DataError: The ending is another one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[Any, ...]] = []
        check_table(path)

    def write(self, update: TrackUpdate, width: int, height: int) -> None:
        """Add one row; see :func:`track_row`."""
        self._rows.append(track_row(update, width, height))

    def close(self) -> None:
        """Write the file.

        Raises:
            DataError: It cannot be written (``TRACKS_WRITE``).
        """
        write = _write_csv if self.path.suffix.lower() == ".csv" else _write_parquet
        try:
            with atomic_path(self.path) as temporary:
                write(temporary, self._rows)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot write tracks to {str(self.path)!r}: {reason}", code="TRACKS_WRITE") from error

    def abort(self) -> None:
        """Do nothing: the rows have only been kept in memory."""


def check_table(path: Path) -> None:
    """Check before a long run that a table can be written here.

    Raises:
        BackendError: See :class:`TrackTable`.
        DataError: See :class:`TrackTable`.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"a table of tracks is written as {' or '.join(TABLE_SUFFIXES)}, not {str(path)!r}")
    if path.suffix.lower() == ".parquet":
        with packages_needed():
            import pyarrow.parquet  # noqa: F401 - only whether it is there


def _write_csv(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(name, getattr(pyarrow, kind.replace("float64", "float64"))()) for name, kind in COLUMNS.items()]
    )
    columns = {name: [row[position] for row in rows] for position, name in enumerate(COLUMNS)}
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)
