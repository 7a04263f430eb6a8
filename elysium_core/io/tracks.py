"""Track files: one JSON line for each target and frame, readable while they are still being written."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from elysium_core.errors import BoxError, DataError
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path, is_stream
from elysium_core.types import TrackState, TrackUpdate

_LOG = logging.getLogger(__name__)

_MAX_LINE_CHARACTERS = 100_000
_RUN = "run"
_LARGEST_INTEGER = 2**63 - 1
_MAX_SHOWN = 120


class TrackWriter:
    """Writes track lines. Each line is flushed, so that a killed run loses at most its last one.

    Args:
        path: The file; missing parent folders are made, and an existing file is replaced.
        keep: First lines of the file: those that :func:`resume_point` returns for an earlier run.
        run: What the tracks are of, as values that JSON can hold; written into the first line, so that only the
            same run is continued (:func:`require_same_run`).

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(
        self, path: str | PathLike[str], keep: Sequence[str] = (), run: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self._first = {} if keep or run is None else {_RUN: run}
        try:
            to_stream = is_stream(self.path)
            if not to_stream:
                with atomic_path(self.path) as temporary:
                    temporary.write_text("".join(line + "\n" for line in keep), encoding="utf-8")
            self._file: TextIO = self.path.open("w" if to_stream else "a", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def write(self, update: TrackUpdate, width: int, height: int) -> None:
        """Append one line.

        Args:
            update: The update to write.
            width: Frame width [px].
            height: Frame height [px].

        Raises:
            DataError: The disk is full or the file is gone.
        """
        try:
            self._file.write(json.dumps(update.as_json(width, height) | self._first) + "\n")
            self._file.flush()
            self._first = {}
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        self._file.close()

    def __enter__(self) -> TrackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self, error: Exception) -> DataError:
        reason = getattr(error, "strerror", None) or error
        return DataError(f"cannot write tracks to {str(self.path)!r}: {reason}", code="TRACKS_WRITE")


def read_tracks(path: str | PathLike[str]) -> list[TrackUpdate]:
    """Read a track file.

    A damaged last line, as left by a killed run, is dropped with a warning.

    Returns:
        The updates in the order of the file, without expressions, which are not stored.

    Raises:
        DataError: The file is missing, or a line other than the last cannot be read.
    """
    return [update for _, update in _read_lines(Path(path))]


def resume_point(path: str | PathLike[str], target_ids: Iterable[str]) -> tuple[list[str], list[TrackUpdate]]:
    """Return the finished frames of an interrupted run: those with a line for every target.

    Args:
        path: A track file; it may be missing, empty, or have a damaged last line.
        target_ids: The targets of the run. A target that was REMOVED needs no further lines.

    Returns:
        The lines of the finished frames, and the same lines as updates.

    Raises:
        DataError: A line other than the last cannot be read, or the file has other targets.
    """
    path = Path(path)
    if not path.exists():
        return [], []
    target_ids = set(target_ids)
    lines_of_frame: dict[int, list[tuple[str, TrackUpdate]]] = defaultdict(list)
    for line, update in _read_lines(path):
        if update.target_id not in target_ids:
            raise DataError(
                f"{str(path)!r} has target {update.target_id!r}, which is not a target of this run; "
                "resume with the same targets in the same order, or write to another file"
            )
        lines_of_frame[update.frame_index].append((line, update))
    finished: list[tuple[str, TrackUpdate]] = []
    awaited = set(target_ids)
    for frame_index in sorted(lines_of_frame):
        pairs = lines_of_frame[frame_index]
        if awaited - {update.target_id for _, update in pairs}:
            break
        finished += pairs
        awaited -= {update.target_id for _, update in pairs if update.state is TrackState.REMOVED}
    return [line for line, _ in finished], [update for _, update in finished]


def require_same_run(path: str | PathLike[str], lines: Sequence[str], run: Mapping[str, Any]) -> None:
    """Check that the lines of an earlier run may be continued by this one.

    Args:
        path: The file, for messages.
        lines: Its lines, as :func:`resume_point` returns them.
        run: What this run tracks, or a part of it.

    Raises:
        DataError: The lines are of another run, or do not say of which (``RESUME``).
    """
    if not lines:
        return
    before = json.loads(lines[0]).get(_RUN)
    if not isinstance(before, dict):
        raise DataError(
            f"{str(path)!r} does not say which words, boxes, model and video it is of; delete it, or write to "
            "another file",
            code="RESUME",
        )
    for name, value in run.items():
        if before.get(name) != json.loads(json.dumps(value)):
            raise DataError(
                f"{str(path)!r} was written with {name} {_shown(before.get(name))}, not {_shown(value)}; resume with "
                "the same, or write to another file",
                code="RESUME",
            )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def parse_track_line(line: str) -> TrackUpdate:
    """Read one line of a track file.

    Raises:
        DataError: The line is not a track line; the message names the wrong field.
    """
    if len(line) > _MAX_LINE_CHARACTERS:
        raise DataError(f"a track line has at most {_MAX_LINE_CHARACTERS} characters, not {len(line)}")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{line[:80]!r} is not JSON") from error
    if not isinstance(fields, dict):
        raise DataError(f"{line[:80]!r} is not a JSON object")
    target_id = fields.get("target")
    if not isinstance(target_id, str) or not target_id:
        raise DataError(f"target {target_id!r} is not the id of a target")
    box, state = _box(fields.get("box")), _state(fields.get("state"))
    boxless = state in (TrackState.LOST, TrackState.REMOVED)
    # A target that was sure a moment ago is UNCERTAIN, with a box or without.
    if (box is None) != boxless and not (box is None and state is TrackState.UNCERTAIN):
        raise DataError(f"state {state.value} does not go with box {fields.get('box')!r:.80}")
    return TrackUpdate(
        target_id=target_id,
        frame_index=_integer(fields, "frame"),
        box=box,
        score=_score(fields.get("score")),
        state=state,
        stamp_ns=_integer(fields, "stamp_ns"),
    )


def _read_lines(path: Path) -> Iterator[tuple[str, TrackUpdate]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read tracks from {str(path)!r}: {getattr(error, 'strerror', error)}") from error
    numbers = [number for number, line in enumerate(lines) if line.strip()]
    for number in numbers:
        try:
            line = lines[number].decode("utf-8")
            yield line, parse_track_line(line)
        except (DataError, UnicodeDecodeError) as error:
            if number != numbers[-1]:
                raise DataError(f"{path}:{number + 1}: {error}") from error
            _LOG.warning("the last line of %s is damaged and was dropped", path)


def _integer(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _LARGEST_INTEGER:
        raise DataError(f"{name} {value!r:.80} is not a whole number from 0")
    return value


def _score(value: object) -> float:
    # Comparisons with NaN are false, so NaN is refused, too.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise DataError(f"score {value!r:.80} is not in 0..1")


def _state(value: object) -> TrackState:
    try:
        return TrackState(value)
    except ValueError:
        raise DataError(f"state {value!r:.80} is not one of {', '.join(s.value for s in TrackState)}") from None


def _box(value: object) -> Box | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or any(type(v) not in (int, float) for v in value):
        raise DataError(f"box {value!r:.80} is not four numbers")
    try:
        return Box(*value)
    except (BoxError, OverflowError) as error:
        raise DataError(str(error)) from error
