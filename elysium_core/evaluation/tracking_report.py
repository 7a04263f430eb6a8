"""Reports of tracking runs: one run with the baselines, or several runs over the same recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elysium_core.data.readers.catalog import get_tracking_benchmark
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.plots import draw_plots
from elysium_core.evaluation.protocols import Protocol
from elysium_core.evaluation.published import unlike_the_paper
from elysium_core.evaluation.report import Report, Table
from elysium_core.evaluation.results import TrackResult, file_name
from elysium_core.evaluation.run_folder import Manifest, read_manifest, read_results
from elysium_core.evaluation.scoring import score_benchmark
from elysium_core.evaluation.tracking_tables import (
    Figures,
    baseline_figures,
    compared_recordings_table,
    counts_by_reason,
    describe_model,
    describe_task,
    figures_as_json,
    frames_per_second,
    name_in_tables,
    name_protocols,
    near_frozen,
    protocol_table,
    protocols_to_print,
    recordings_table,
)
from elysium_core.io.files import atomic_path

TRACKING = "tracking"
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class _Run:
    """One run with a unique name in the report."""

    name: str
    manifest: Manifest
    results: list[TrackResult]
    missing: dict[str, int]

    @property
    def scored(self) -> list[TrackResult]:
        """The results that can be scored, which have more true boxes than the first."""
        return [result for result in self.results if not result.first_box_only]

    def figures(self, protocol: Protocol) -> Figures:
        scores = score_benchmark(self.scored, protocol, self.missing)
        return {} if scores is None else {self.name: scores}


def tracking_report(folder: Path, protocols: Sequence[str] = ()) -> Report:
    """Score a run from its files and draw its plots.

    Args:
        folder: The run folder.
        protocols: Names of the protocols; those of the run if empty.

    Raises:
        DataError: There is no result, or a file is damaged.
        ConfigError: A protocol is unknown.
    """
    manifest = read_manifest(folder)
    run = _Run(name_in_tables(manifest.model), manifest, *read_results(folder, manifest))
    _require_results(folder, run)
    chosen = protocols_to_print(protocols or manifest.protocols, manifest.benchmark)
    write_plain_boxes(folder, run.results)
    title = f"{manifest.model} on {_benchmark_title(manifest)}, {manifest.task}"
    facts, warnings = _facts(run, chosen), _warnings(run)
    if not run.scored:
        return Report(title, facts, warnings, [])
    figures = {protocol: run.figures(protocol) | baseline_figures(run.scored, protocol) for protocol in chosen}
    tables = [protocol_table(protocol, figures[protocol], manifest) for protocol in chosen]
    tables.append(recordings_table(run.scored, run.missing, chosen[0]))
    warnings += near_frozen(run.name, figures[chosen[0]])
    plots = _draw(folder, chosen[0], figures[chosen[0]], warnings)
    return Report(title, facts, warnings, tables, plots, _as_json(figures))


def comparison_report(folders: Sequence[Path], out: Path, protocols: Sequence[str] = ()) -> Report:
    """Compare several runs over the same recordings and draw their plots.

    Args:
        folders: Run folders, two or more.
        out: Folder for the plots.
        protocols: Names of the protocols; those of the first run if empty.

    Raises:
        ConfigError: The runs are not over the same recordings, or a protocol is unknown.
        DataError: A run has no result, or a file is damaged.
    """
    runs = _comparable_runs(folders)
    first = runs[0].manifest
    truth = _common_truth(runs)
    chosen = protocols_to_print(protocols or first.protocols, first.benchmark)
    figures = {}
    for protocol in chosen:
        figures[protocol] = {name: scores for run in runs for name, scores in run.figures(protocol).items()}
        figures[protocol] |= baseline_figures(truth, protocol)
    rivals = {run.name: run.results for run in runs}
    tables = [protocol_table(protocol, figures[protocol], first) for protocol in chosen]
    tables += [compared_recordings_table(rivals, truth, chosen[0]), _runs_table(runs)]
    warnings = _comparison_warnings(runs)
    warnings += [text for run in runs for text in near_frozen(run.name, figures[chosen[0]])]
    facts = {
        "Protocol": name_protocols(chosen),
        "Recordings": str(len(first.entries)),
        "Frames": str(sum(first.entries.values())),
        "Version": first.version,
    }
    title = f"{', '.join(run.name for run in runs)} on {_benchmark_title(first)}"
    plots = _draw(out, chosen[0], figures[chosen[0]], warnings)
    return Report(title, facts, warnings, tables, plots, _as_json(figures))


def write_plain_boxes(folder: Path, results: Iterable[TrackResult]) -> None:
    """Write ``boxes/<name>.txt`` in the format of other toolkits: a line ``x,y,w,h`` per frame, zeros for no answer."""
    for result in results:
        boxes = result.predicted_xywh_px.copy()
        boxes[:, :2] += result.pixel_origin
        rows = [[0.0] * 4 if (row != row).any() else row for row in boxes]
        with atomic_path(folder / "boxes" / file_name(result.name, ".txt")) as temporary:
            temporary.write_text("".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in rows), encoding="ascii")


def _require_results(folder: Path, run: _Run) -> None:
    if not run.results:
        raise DataError(f"{str(folder)!r} holds no result yet; run elysium eval {run.manifest.benchmark} first")


def _draw(folder: Path, protocol: Protocol, figures: Figures, warnings: list[str]) -> list[str]:
    """Draw the plots; if that is not possible, add the reason to the warnings."""
    try:
        return draw_plots(folder, protocol, figures)
    except ConfigError as error:
        warnings.append(str(error))
        return []


def _as_json(figures: dict[Protocol, Figures]) -> dict[str, Any]:
    return {"protocols": {protocol.name: figures_as_json(by) for protocol, by in figures.items()}}


def _benchmark_title(manifest: Manifest) -> str:
    return " ".join(filter(None, (get_tracking_benchmark(manifest.benchmark).title, manifest.split)))


def _facts(run: _Run, protocols: Sequence[Protocol]) -> dict[str, str]:
    manifest, results = run.manifest, run.results
    return {
        "Protocol": name_protocols(protocols),
        "Task": describe_task(manifest),
        "Recordings": f"{len(results)} of {len(manifest.entries)}",
        "Frames": str(sum(result.frame_count for result in results)),
        "Frames without a box": counts_by_reason(result.failures for result in results),
        "Unparseable answers": counts_by_reason(result.parse_failures for result in results),
        "Model": describe_model(manifest),
        "Speed": f"{frames_per_second(results)} frames per second of tracking time",
        "Version": manifest.version,
    }


def _warnings(run: _Run) -> list[str]:
    warnings = unlike_the_paper(run.manifest)
    if run.missing:
        named = ", ".join(list(run.missing)[:_MOST_NAMES]) + (" ..." if len(run.missing) > _MOST_NAMES else "")
        warnings.append(
            f"{len(run.missing)} of {len(run.manifest.entries)} recordings have no result and score 0: "
            f"{named}. Run the same command again to continue."
        )
    whole = (get_tracking_benchmark(run.manifest.benchmark).sizes or {}).get(run.manifest.split)
    if whole is not None and whole != len(run.manifest.entries):
        warnings.append(
            f"These are {len(run.manifest.entries)} of the benchmark's {whole} recordings; "
            "the figures are not those of the benchmark."
        )
    if not run.scored:
        warnings.append(
            "The data set has true boxes for first frames only: send boxes/*.txt to its server for the scores."
        )
    return warnings + _described(run)


def _described(run: _Run) -> list[str]:
    """What must be said of a model that turned given boxes into words."""
    words = [result.expression for result in run.results if result.first_box_given and result.expression]
    if not words:
        return []
    share = f"{len(words)} of {len(run.results)} recordings"
    return [
        f"In {share} the model described what is in the first box and followed its own words, such as {words[0]!r}."
    ]


def _comparable_runs(folders: Sequence[Path]) -> list[_Run]:
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.kind != TRACKING:
            raise ConfigError(f"{str(folder)!r} holds a run of kind {manifest.kind}; only tracking runs are compared")
        _require_same_recordings(folders[0], manifests[0], folder, manifest)
    runs = []
    for folder, manifest, name in zip(folders, manifests, _distinct_names(folders, manifests), strict=True):
        run = _Run(name, manifest, *read_results(folder, manifest))
        _require_results(folder, run)
        if len(run.scored) < len(run.results):
            raise DataError(
                f"{str(folder)!r} has true boxes for first frames only, so it cannot be compared; use another split"
            )
        runs.append(run)
    return runs


def _require_same_recordings(first: Path, known: Manifest, folder: Path, manifest: Manifest) -> None:
    for what, one, other in (
        ("benchmark", known.benchmark, manifest.benchmark),
        ("split", known.split, manifest.split),
        ("number of recordings", len(known.entries), len(manifest.entries)),
    ):
        if one != other:
            raise ConfigError(
                f"{str(folder)!r} has {what} {other!r}, but {str(first)!r} {one!r}; compare runs with equal settings"
            )
    differing = [name for name, frames in known.entries.items() if manifest.entries.get(name) != frames]
    if differing:
        raise ConfigError(f"recording {differing[0]!r} is not the same in {str(first)!r} and {str(folder)!r}")


def _distinct_names(folders: Sequence[Path], manifests: Sequence[Manifest]) -> list[str]:
    """Name runs by model; if a model has several runs, add the settings that differ, or else the folder."""
    names = []
    for folder, manifest in zip(folders, manifests, strict=True):
        rivals = [other for other in manifests if other.model == manifest.model]
        differing = [key for key in ("task", "mode") if len({getattr(other, key) for other in rivals}) > 1]
        known_by = [getattr(manifest, key) for key in differing]
        if sum(all(getattr(r, key) == getattr(manifest, key) for key in differing) for r in rivals) > 1:
            known_by.append(folder.resolve().name)
        name = name_in_tables(manifest.model)
        names.append(f"{name} ({' '.join(known_by)})" if known_by else name)
    return names


def _common_truth(runs: Sequence[_Run]) -> list[TrackResult]:
    """Return one result of each recording that any run has answered, for the ground truth.

    Raises:
        ConfigError: Two runs have different ground truth.
    """
    truth: dict[str, TrackResult] = {}
    for run in runs:
        for result in run.results:
            known = truth.setdefault(result.name, result)
            if not np.array_equal(known.truth_xywh_px, result.truth_xywh_px, equal_nan=True):
                raise ConfigError(f"the truth of {result.name!r} changed between the runs; run the older ones again")
    return list(truth.values())


def _runs_table(runs: Sequence[_Run]) -> Table:
    rows = [
        [
            run.name,
            f"{len(run.results)} of {len(run.manifest.entries)}",
            counts_by_reason(result.failures for result in run.results),
            counts_by_reason(result.parse_failures for result in run.results),
            frames_per_second(run.results),
        ]
        for run in runs
    ]
    notes = [f"{run.name}: {describe_task(run.manifest)}. {describe_model(run.manifest)}." for run in runs]
    headings = ["", "recordings", "frames without a box", "unparseable answers", "frames/s"]
    return Table("Runs", headings, rows, notes)


def _comparison_warnings(runs: Sequence[_Run]) -> list[str]:
    warnings = [f"{run.name}: {text}" for run in runs for text in (*unlike_the_paper(run.manifest), *_described(run))]
    warnings += [
        f"{run.name} has no result for {len(run.missing)} of {len(run.manifest.entries)} recordings; they score 0."
        for run in runs
        if run.missing
    ]
    if len({run.manifest.task for run in runs}) > 1:
        warnings.append(
            "Some trackers got the first box and some only words; the baselines are those of the first run."
        )
    return warnings
