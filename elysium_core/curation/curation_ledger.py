"""The record of a curation run: one row a finished video, in an SQLite file, so that a killed run loses nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from elysium_core.curation.video_result import VideoResult
from elysium_core.errors import ConfigError, DataError

LEDGER_NAME = "curation.sqlite"
SAMPLES_PER_REASON = 24

_SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS videos (
    number INTEGER PRIMARY KEY, vid TEXT NOT NULL UNIQUE, outcome TEXT NOT NULL, detail TEXT NOT NULL,
    frames INTEGER NOT NULL, lines TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (kind TEXT, name TEXT, value REAL NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS samples (
    reason TEXT, rank TEXT, vid TEXT, expression TEXT, jpeg BLOB NOT NULL, PRIMARY KEY (reason, rank));
COMMIT;
"""


class CurationLedger(AbstractContextManager["CurationLedger"]):
    """The ledger of one output folder. Each video is committed whole: its lines, its counts and its samples.

    Any number of processes may read while one writes.

    Args:
        folder: The output folder.
        write: Make the file if there is none, and keep other writers out.

    Raises:
        DataError: The file is missing or damaged.
        ConfigError: Another process is writing.
    """

    def __init__(self, folder: Path, *, write: bool = False) -> None:
        self._path = folder / LEDGER_NAME
        self._lock = _locked(folder) if write else None
        if not write and not self._path.is_file():
            raise DataError(f"{str(folder)!r} holds no {LEDGER_NAME}; give the --out of an elysium curate run")
        # The methods begin and end each transaction.
        self._base = sqlite3.connect(self._path, isolation_level=None)
        try:
            if write:
                # Readers do not block the writer, nor the writer them.
                self._base.execute("PRAGMA journal_mode=WAL")
                self._base.executescript(_SCHEMA)
            self._base.execute("SELECT 1 FROM samples LIMIT 1")
        except sqlite3.DatabaseError as error:
            self.close()
            raise DataError(f"{str(self._path)!r} is no ledger of a curation ({error}); use a new folder") from error

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note the settings of a new run, or check that the folder was made with the same.

        Raises:
            ConfigError: It was made with others.
        """
        wanted = {name: json.dumps(value) for name, value in settings.items()}
        before = dict(self._base.execute("SELECT name, value FROM settings"))
        changed = sorted(name for name in wanted if before and before.get(name) != wanted[name])
        if changed:
            told = ", ".join(f"{name} {before.get(name)}, not {wanted[name]}" for name in changed)
            raise ConfigError(f"{str(self._path.parent)!r} was curated with {told}; choose another --out")
        self._base.execute("BEGIN")
        self._base.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", wanted.items())
        self._base.execute("COMMIT")

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run."""
        return {name: json.loads(value) for name, value in self._base.execute("SELECT name, value FROM settings")}

    def has(self, vid: str) -> bool:
        """Whether a video is finished."""
        return self._base.execute("SELECT 1 FROM videos WHERE vid = ?", (vid,)).fetchone() is not None

    def add(self, result: VideoResult) -> None:
        """Commit a finished video; one that is there already is left as it is."""
        self._base.execute("BEGIN")
        try:
            lines = json.dumps(result.lines)
            row = (result.vid, result.outcome, result.detail, result.frames, lines)
            columns = "(vid, outcome, detail, frames, lines)"
            made = self._base.execute(f"INSERT OR IGNORE INTO videos {columns} VALUES (?, ?, ?, ?, ?)", row)  # noqa: S608 - a constant
            if made.rowcount == 1:
                self._count("outcome", {result.outcome: 1})
                self._count("chunk", result.counts)
                self._count("lowest score", result.lowest_scores)
                self._count("second", result.seconds)
                for number, sample in enumerate(result.samples):
                    self._sample(result.vid, number, sample.reason, sample.expression, sample.jpeg)
            self._base.execute("COMMIT")
        except BaseException:
            self._base.execute("ROLLBACK")
            raise

    def counts(self, kind: str) -> Counter[str]:
        """Return sums over all videos.

        Args:
            kind: ``outcome`` [videos], ``chunk`` [chunks] or ``lowest score`` [trajectories].
        """
        return Counter({name: int(value) for name, value in self._sums(kind)})

    def times(self) -> dict[str, float]:
        """Return the working time of each stage over all videos [s]."""
        return dict(self._sums("second"))

    def lines(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield the id and the lines of each video with kept tracks, in the order in which they were finished."""
        query = "SELECT vid, lines FROM videos WHERE lines != '[]' ORDER BY number"
        for vid, lines in self._base.execute(query):
            yield vid, json.loads(lines)

    def troubles(self, most: int = 20) -> list[tuple[str, str, str]]:
        """Return id, outcome and error of the first videos with an error."""
        query = "SELECT vid, outcome, detail FROM videos WHERE detail != '' ORDER BY number LIMIT ?"
        return [(str(vid), str(outcome), str(detail)) for vid, outcome, detail in self._base.execute(query, (most,))]

    def samples(self, reason: str) -> list[tuple[str, str, bytes]]:
        """Return id, expression and picture of the samples of a reason."""
        query = "SELECT vid, expression, jpeg FROM samples WHERE reason = ? ORDER BY rank"
        return [(str(vid), str(words), bytes(jpeg)) for vid, words, jpeg in self._base.execute(query, (reason,))]

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        self._base.close()
        if self._lock is not None:
            self._lock.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sums(self, kind: str) -> list[tuple[str, float]]:
        return self._base.execute("SELECT name, value FROM counts WHERE kind = ?", (kind,)).fetchall()

    def _count(self, kind: str, values: Mapping[str, float]) -> None:
        query = (
            "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET value = value + excluded.value"
        )
        self._base.executemany(query, [(kind, name, value) for name, value in values.items()])

    def _sample(self, vid: str, number: int, reason: str, expression: str, jpeg: bytes) -> None:
        """Keep the samples of the lowest hashes: a fair choice, whatever the order in which videos are finished."""
        rank = hashlib.sha256(f"{vid} {number}".encode()).hexdigest()[:16]
        self._base.execute("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", (reason, rank, vid, expression, jpeg))
        self._base.execute(
            "DELETE FROM samples WHERE reason = ?1 AND rank NOT IN "
            "(SELECT rank FROM samples WHERE reason = ?1 ORDER BY rank LIMIT ?2)",
            (reason, SAMPLES_PER_REASON),
        )


def _locked(folder: Path) -> TextIO:
    """Make a folder and take its lock, which the system frees when this process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / f".{LEDGER_NAME}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(f"another run is writing into {str(folder)!r}; wait for it, or stop it") from error
    return lock
