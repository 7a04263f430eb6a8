"""The run folder: the settings of a run (``run.json``), and which of its entries have results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from elysium_core import __version__
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.answer_log import LEFT_OUT, read_answers
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_json

MANIFEST = "run.json"
_MAY_CHANGE = {"protocols", "limit", "entries", "version", "data", "device", "left_out"}
# The fields of ``device`` that change the answers.
_MUST_STAY = ("backend", "precision", "weights")


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
    found = read_answers(folder, LEFT_OUT)
    answered = read_answers(folder, "answers") if found else {}
    damaged = {
        name: str(record["reason"])
        for name, record in found.items()
        if name in manifest.entries and name not in answered and not result_path(folder, name).is_file()
    }
    entries = {name: frames for name, frames in manifest.entries.items() if name not in damaged}
    reasons = [f"{name}: {reason}" for name, reason in damaged.items()]
    return replace(manifest, entries=entries, left_out=(*manifest.left_out, *reasons)) if damaged else manifest


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
