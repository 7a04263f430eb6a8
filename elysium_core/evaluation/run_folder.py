"""The folder of a run: what was asked (``run.json``), the answers so far, and how processes share the work.

Answers are one JSON line each, on disk as soon as they are there. Each of the processes that
``torchrun`` starts writes its own files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from elysium_core import __version__
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_json

MANIFEST = "run.json"
_MAY_CHANGE = {"protocols", "limit", "entries", "version", "data", "device"}
# Of the device: what answers depend on.
_MUST_STAY = ("backend", "precision", "weights")
_ANSWER_FILES = "{kind}-rank-*.jsonl"
_RANK_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run was asked to do; a run folder belongs to one of them.

    Attributes:
        kind: ``tracking``, ``grounding``, ``describing``, ``questions`` or ``synthetic``.
        benchmark: Name of the data set.
        split: Its split, empty if it has none.
        model: Name of the model, as asked for.
        task: ``sot`` (the first box is given), ``rsot`` (words are given), or the task itself.
        words: For RSOT: ``description`` or ``class``.
        mode: Tracking mode, ``stream`` or ``clip``.
        score_threshold: Score below which a tracked box is not sure; None where nothing is tracked.
        clip_length: Frames the model sees at once at most when it tracks; None where nothing is tracked.
        zoom: Whether the model also saw parts of frames at full resolution.
        protocols: Tracking protocols to report.
        limit: Entries asked for at most, None for all.
        frames: Frames shown with each question; None where that is not asked.
        data: Folder of the data set.
        device: Where the model ran, what it was: name, precision, weights.
        entries: Name of every entry -> its number of frames (1 where there are none to count).
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


def open_run(folder: Path, manifest: Manifest) -> None:
    """Make a run folder, or go on with one that was asked the same.

    Raises:
        ConfigError: The folder holds another run, whose results would be mixed up with this one's.
    """
    if (folder / MANIFEST).is_file():
        before = read_manifest(folder)
        for name, old, new in _differences(before, manifest):
            raise ConfigError(f"{str(folder)!r} holds a run with {name} {old!r}, not {new!r}; choose another --out")
    write_json(folder / MANIFEST, asdict(manifest))


def _differences(before: Manifest, now: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """What would mix two runs up: names, and the values of both."""
    pairs = [(f.name, getattr(before, f.name), getattr(now, f.name)) for f in fields(Manifest)]
    # A run of an earlier version has not noted all of these.
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
        value["protocols"] = tuple(value["protocols"])
        return Manifest(**value)
    except FileNotFoundError as error:
        below = ", ".join(repr(str(found)) for found in run_folders_below(folder))
        remedy = f"it is a comparison of {below}; give these" if below else "give the folder that elysium eval wrote"
        raise DataError(f"{str(folder)!r} holds no {MANIFEST}; {remedy}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error!r}); run elysium eval again") from error


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
    for path in sorted(folder.glob(_ANSWER_FILES.format(kind=kind))):
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


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: Number of this process, 0..world_size-1.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which picks its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK.

        Raises:
            ConfigError: They are no numbers, or do not fit together.
        """
        words = {name: os.environ.get(name, default) for name, default in _RANK_VARIABLES.items()}
        try:
            rank, world_size, local_rank = (int(word) for word in words.values())
        except ValueError:
            rank, world_size, local_rank = -1, 0, 0
        if not 0 <= rank < world_size or local_rank < 0:
            shown = ", ".join(f"{name}={word}" for name, word in words.items())
            raise ConfigError(f"{shown} cannot be one of several processes; start them by torchrun or unset these")
        return cls(rank, world_size, local_rank)

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield every ``world_size``-th item, from number ``rank``; all ranks together see each once."""
        return (item for position, item in enumerate(items) if position % self.world_size == self.rank)

    def device(self, asked: str) -> str:
        """Return the device of this process: its own GPU where several processes leave it to us."""
        return f"cuda:{self.local_rank}" if asked in ("auto", "cuda") and self.world_size > 1 and _has_cuda() else asked


def answer_missing(
    folder: Path, ranks: Ranks, items: Iterable[T], name: Callable[[T], str], answer: Callable[[T], Mapping[str, Any]]
) -> Iterator[str]:
    """Answer the items of this process that have no answer in the run folder yet; each answer is written at once.

    Args:
        folder: The run folder.
        ranks: Which of how many processes this is.
        items: All items of the run, the same and in the same order in every process.
        name: Returns the name of an item.
        answer: Returns the line of the answer file.

    Yields:
        The name of each item of this process, answered now or before.
    """
    with AnswerLog(folder, "answers", ranks.rank) as log:
        for item in ranks.share(items):
            if name(item) not in log.done:
                log.append(name(item), answer(item))
            yield name(item)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
