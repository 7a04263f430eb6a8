"""The run folder: settings of a run (``run.json``), its answers so far, and its division among processes.

Each answer is one JSON line and is written to disk at once. Each process that ``torchrun``
starts writes separate files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from elysium_core import __version__
from elysium_core.errors import ConfigError, DataError, ImageError, VideoError
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_json

MANIFEST = "run.json"
_MAY_CHANGE = {"protocols", "limit", "entries", "version", "data", "device", "left_out"}
# The fields of ``device`` that change the answers.
_MUST_STAY = ("backend", "precision", "weights")
_LEFT_OUT = "left-out"
_ANSWER_FILES = "{kind}-rank-*.jsonl"
_RANK_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The settings of a run; a run folder holds one run.

    Attributes:
        kind: ``tracking``, ``grounding``, ``describing``, ``questions`` or ``synthetic``.
        benchmark: Name of the data set.
        split: Its split, empty if it has none.
        model: Name of the model, as on the command line.
        task: ``sot`` (the first box is given), ``rsot`` (words are given), or the task itself.
        words: For RSOT: ``description`` or ``class``.
        mode: Tracking mode, ``stream`` or ``clip``.
        score_threshold: A tracked box with a lower score is UNCERTAIN; None for tasks without tracking.
        clip_length: Most frames the model sees at once when it tracks; None for tasks without tracking.
        zoom: Whether the model also saw parts of frames at full resolution.
        protocols: Tracking protocols to report.
        limit: Maximum number of entries, None for all.
        frames: Frames shown with each question; None for other tasks.
        data: Folder of the data set.
        device: Fields of the model's ``ModelInfo``, such as name, device, precision and weights.
        entries: Name of every entry -> its number of frames (1 for single images).
        left_out: Why each damaged entry of the data set is left out.
        version: Version of elysium that wrote it.
    """

    kind: str
    benchmark: str
    split: str
    model: str
    task: str
    words: str = ""
    mode: str = ""
    score_threshold: float | None = None
    clip_length: int | None = None
    zoom: bool = False
    protocols: tuple[str, ...] = ()
    limit: int | None = None
    frames: int | None = None
    data: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, int] = field(default_factory=dict)
    version: str = __version__
    left_out: tuple[str, ...] = ()


def open_run(folder: Path, manifest: Manifest) -> None:
    """Make a run folder, or continue the run in it if it has the same settings.

    Raises:
        ConfigError: The folder holds a run with other settings, so results would be mixed.
    """
    if (folder / MANIFEST).is_file():
        before = read_manifest(folder)
        for name, old, new in _differences(before, manifest):
            raise ConfigError(f"{str(folder)!r} holds a run with {name} {old!r}, not {new!r}; choose another --out")
    write_json(folder / MANIFEST, asdict(manifest))


def _differences(before: Manifest, now: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Yield the settings in which two runs must not differ, but do: name and both values."""
    pairs = [(f.name, getattr(before, f.name), getattr(now, f.name)) for f in fields(Manifest)]
    # Runs of earlier versions do not have all of these fields.
    pairs += [(name, before.device[name], now.device.get(name)) for name in _MUST_STAY if name in before.device]
    yield from ((name, old, new) for name, old, new in pairs if name not in _MAY_CHANGE and old != new)


def read_manifest(folder: Path) -> Manifest:
    """Read ``run.json``.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        value["protocols"], value["left_out"] = tuple(value["protocols"]), tuple(value.get("left_out", ()))
        return _without_left_out(folder, Manifest(**value))
    except FileNotFoundError as error:
        below = ", ".join(repr(str(found)) for found in run_folders_below(folder))
        remedy = f"it is a comparison of {below}; give these" if below else "give the folder that elysium eval wrote"
        raise DataError(f"{str(folder)!r} holds no {MANIFEST}; {remedy}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error!r}); run elysium eval again") from error


def _without_left_out(folder: Path, manifest: Manifest) -> Manifest:
    """Return the manifest without the entries that turned out to be damaged in the run."""
    found = read_answers(folder, _LEFT_OUT)
    answered = read_answers(folder, "answers") if found else {}
    damaged = {
        name: str(record["reason"])
        for name, record in found.items()
        if name in manifest.entries and name not in answered and not result_path(folder, name).is_file()
    }
    entries = {name: frames for name, frames in manifest.entries.items() if name not in damaged}
    reasons = [f"{name}: {reason}" for name, reason in damaged.items()]
    return replace(manifest, entries=entries, left_out=(*manifest.left_out, *reasons)) if damaged else manifest


def left_out_log(folder: Path, rank: int) -> AnswerLog:
    """Open a new log of the entries that this process has to leave out; those of an earlier run are tried again."""
    (folder / f"{_LEFT_OUT}-rank-{rank}.jsonl").unlink(missing_ok=True)
    return AnswerLog(folder, _LEFT_OUT, rank)


def require_some(left_out: AnswerLog, is_answered: bool) -> None:
    """Check at the end of a run that not every entry was left out.

    Raises:
        DataError: There is no answer, because every entry is damaged.
    """
    if left_out.done and not is_answered:
        reason = next(iter(left_out.done.values()))["reason"]
        raise DataError(f"{reason}; none of the {len(left_out.done)} entries can be used")


def run_folders_below(folder: Path) -> list[Path]:
    """Return the run folders directly below a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))


def read_results(folder: Path, manifest: Manifest) -> tuple[list[TrackResult], dict[str, int]]:
    """Read all results of a tracking run.

    Returns:
        The results in the order of the manifest, and the entries without one, with their frames.

    Raises:
        DataError: A result file is damaged.
    """
    results, missing = [], {}
    for name, frames in manifest.entries.items():
        path = result_path(folder, name)
        if path.is_file():
            results.append(read_result(path))
        else:
            missing[name] = frames
    return results, missing


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


@dataclass(frozen=True, slots=True)
class Ranks:
    """Number of this process among all processes of a run.

    Attributes:
        rank: Number of this process, 0..world_size-1.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which selects its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read the variables that ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK.

        Raises:
            ConfigError: They are not numbers, or do not fit together.
        """
        words = {name: os.environ.get(name, default) for name, default in _RANK_VARIABLES.items()}
        try:
            rank, world_size, local_rank = (int(word) for word in words.values())
        except ValueError:
            rank, world_size, local_rank = -1, 0, 0
        if not 0 <= rank < world_size or local_rank < 0:
            shown = ", ".join(f"{name}={word}" for name, word in words.items())
            raise ConfigError(
                f"{shown} are not valid for one of several processes; start with torchrun, or unset these variables"
            )
        return cls(rank, world_size, local_rank)

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield every ``world_size``-th item, starting at ``rank``; the shares of all ranks cover each item once."""
        return (item for position, item in enumerate(items) if position % self.world_size == self.rank)

    def device(self, asked: str) -> str:
        """Return the device of this process: with several processes and no numbered device, the GPU ``local_rank``."""
        return f"cuda:{self.local_rank}" if asked in ("auto", "cuda") and self.world_size > 1 and _has_cuda() else asked


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


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
