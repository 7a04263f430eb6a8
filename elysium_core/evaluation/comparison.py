"""Several tracking runs over the same recordings in one report: who does better, where, and at what speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elysium_core.data.readers.catalog import get_tracking_benchmark
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.baselines import run_baseline
from elysium_core.evaluation.plots import draw_plots
from elysium_core.evaluation.protocols import Protocol, Summary
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.run_folder import Manifest, read_manifest, read_results
from elysium_core.evaluation.scoring import Scores, score_benchmark, score_recording
from elysium_core.evaluation.tracking_tables import (
    Figures,
    baseline_figures,
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
)

_TRACKING = "tracking"
_HEADING = {"auc": "AUC", "average_overlap": "AO"}


@dataclass(frozen=True, slots=True)
class _Entrant:
    """One run in the comparison, under a name that no other has."""

    name: str
    manifest: Manifest
    results: dict[str, TrackResult]

    def figures(self, protocol: Protocol) -> Scores | None:
        missing = {name: frames for name, frames in self.manifest.entries.items() if name not in self.results}
        return score_benchmark(list(self.results.values()), protocol, missing)


def comparison_report(folders: Sequence[Path], out: Path, protocols: Sequence[str] = ()) -> Report:
    """Score several runs over the same recordings side by side and draw their plots.

    Args:
        folders: Run folders, two or more.
        out: Where the plots go.
        protocols: Whose rules to follow; those the first run was asked for if empty.

    Raises:
        ConfigError: The runs are not over the same recordings, or a protocol is unknown.
        DataError: A run has no result, or a file is damaged.
    """
    entrants = _entrants(folders)
    first = entrants[0]
    truth = _common_truth(entrants)
    chosen = protocols_to_print(protocols or first.manifest.protocols)
    figures = {protocol: _figures(entrants, truth, protocol) for protocol in chosen}
    tables = [protocol_table(protocol, figures[protocol], first.manifest) for protocol in chosen]
    tables += [_recordings_table(entrants, truth, chosen[0]), _runs_table(entrants)]
    warnings, plots = _warnings(entrants), []
    warnings += [text for entrant in entrants for text in near_frozen(entrant.name, figures[chosen[0]])]
    try:
        plots = draw_plots(out, chosen[0], figures[chosen[0]])
    except ConfigError as error:
        warnings.append(str(error))
    facts = {
        "Protocol": name_protocols(chosen),
        "Recordings": str(len(first.manifest.entries)),
        "Frames": str(sum(first.manifest.entries.values())),
        "Version": first.manifest.version,
    }
    scores = {protocol.name: figures_as_json(figures[protocol]) for protocol in chosen}
    return Report(_title(entrants), facts, warnings, tables, plots, {"protocols": scores})


def _entrants(folders: Sequence[Path]) -> list[_Entrant]:
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.kind != _TRACKING:
            raise ConfigError(f"{str(folder)!r} holds a run of kind {manifest.kind}; only tracking runs are compared")
        _require_same_recordings(folders[0], manifests[0], folder, manifest)
    entrants = []
    for folder, manifest, name in zip(folders, manifests, _distinct_names(folders, manifests), strict=True):
        results, _ = read_results(folder, manifest)
        if not results:
            raise DataError(f"{str(folder)!r} holds no result yet; run elysium eval {manifest.benchmark} first")
        if any(result.first_box_only for result in results):
            raise DataError(f"{str(folder)!r} knows the first boxes only; there is nothing to compare")
        entrants.append(_Entrant(name, manifest, {result.name: result for result in results}))
    return entrants


def _require_same_recordings(first: Path, known: Manifest, folder: Path, manifest: Manifest) -> None:
    for what, one, other in (
        ("benchmark", known.benchmark, manifest.benchmark),
        ("split", known.split, manifest.split),
        ("number of recordings", len(known.entries), len(manifest.entries)),
    ):
        if one != other:
            raise ConfigError(f"{str(folder)!r} has {what} {other!r}, but {str(first)!r} {one!r}; compare equal runs")
    differing = [name for name, frames in known.entries.items() if manifest.entries.get(name) != frames]
    if differing:
        raise ConfigError(f"recording {differing[0]!r} is not the same in {str(first)!r} and {str(folder)!r}")


def _distinct_names(folders: Sequence[Path], manifests: Sequence[Manifest]) -> list[str]:
    """Name runs by model; where a model has several, also by what differs between them, at last by folder."""
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


def _common_truth(entrants: Sequence[_Entrant]) -> list[TrackResult]:
    """Return one result of each recording that any run has answered, for its truth.

    Raises:
        ConfigError: Two runs saw different truth.
    """
    truth: dict[str, TrackResult] = {}
    for entrant in entrants:
        for name, result in entrant.results.items():
            known = truth.setdefault(name, result)
            if not np.array_equal(known.truth_xywh_px, result.truth_xywh_px, equal_nan=True):
                raise ConfigError(f"the truth of {name!r} changed between the runs; run the older ones again")
    return list(truth.values())


def _figures(entrants: Sequence[_Entrant], truth: list[TrackResult], protocol: Protocol) -> Figures:
    scores = {entrant.name: entrant.figures(protocol) for entrant in entrants}
    return {name: value for name, value in scores.items() if value is not None} | baseline_figures(truth, protocol)


def _recordings_table(entrants: Sequence[_Entrant], truth: list[TrackResult], protocol: Protocol) -> Table:
    figure = "average_overlap" if protocol.auc is Summary.NONE else "auc"
    frozen = {result.name: result for result in run_baseline("frozen", truth)}
    rivals = {entrant.name: entrant.results for entrant in entrants} | {"frozen": frozen}
    rows = [
        [
            result.name,
            str(result.frame_count),
            *(_one_figure(by.get(result.name), protocol, figure) for by in rivals.values()),
        ]
        for result in truth
    ]
    notes = ["A recording that a run has not answered stands as 0.00 and counts as that in the mean."]
    title = f"{_HEADING[figure]} of each recording ({protocol.name})"
    return Table(title, ["recording", "frames", *rivals], rows, notes)


def _one_figure(result: TrackResult | None, protocol: Protocol, figure: str) -> str:
    scores = None if result is None else score_recording(result, protocol)
    return percent(0.0 if result is None else None if scores is None else getattr(scores, figure))


def _runs_table(entrants: Sequence[_Entrant]) -> Table:
    rows = []
    for entrant in entrants:
        results = list(entrant.results.values())
        rows.append(
            [
                entrant.name,
                f"{len(results)} of {len(entrant.manifest.entries)}",
                counts_by_reason(result.failures for result in results),
                counts_by_reason(result.parse_failures for result in results),
                frames_per_second(results),
            ]
        )
    notes = [f"{e.name}: {describe_task(e.manifest)}. {describe_model(e.manifest)}." for e in entrants]
    headings = ["", "recordings", "frames without a box", "unparseable answers", "frames/s"]
    return Table("Runs", headings, rows, notes)


def _warnings(entrants: Sequence[_Entrant]) -> list[str]:
    warnings = [
        f"{entrant.name} has no result for {missing} of {len(entrant.manifest.entries)} recordings; they score 0."
        for entrant in entrants
        if (missing := len(entrant.manifest.entries) - len(entrant.results))
    ]
    if len({entrant.manifest.task for entrant in entrants}) > 1:
        warnings.append("Some trackers were given the first box and some only words; baselines are those of the first.")
    return warnings


def _title(entrants: Sequence[_Entrant]) -> str:
    manifest = entrants[0].manifest
    benchmark = " ".join(filter(None, (get_tracking_benchmark(manifest.benchmark).title, manifest.split)))
    return f"{', '.join(entrant.name for entrant in entrants)} on {benchmark}"
