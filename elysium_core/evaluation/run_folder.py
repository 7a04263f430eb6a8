"""The folder of a run: what was asked (``run.json``) and which recordings there are to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from elysium_core import __version__
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_json

MANIFEST = "run.json"
_MAY_CHANGE = {"protocols", "limit", "entries", "version", "data", "device"}
# Of the device: what answers depend on.
_MUST_STAY = ("backend", "precision", "weights")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run was asked to do; a run folder belongs to one of them.

    Attributes:
        kind: ``tracking``, ``grounding``, ``describing`` or ``questions``.
        benchmark: Name of the data set.
        split: Its split, empty if it has none.
        model: Name of the model, as asked for.
        task: ``sot`` (the first box is given), ``rsot`` (words are given), or the task itself.
        words: For RSOT: ``description`` or ``class``.
        mode: Tracking mode, ``stream`` or ``clip``.
        score_threshold: Score below which a tracked box is not sure; None where nothing is tracked.
        zoom: Whether the model looked closer.
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
