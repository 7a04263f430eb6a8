"""The report of a tracking run: the model beside the baselines, under each protocol asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elysium_core.data.readers.catalog import get_tracking_benchmark
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.baselines import run_baseline
from elysium_core.evaluation.plots import draw_plots
from elysium_core.evaluation.protocols import Protocol
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.results import TrackResult, file_name
from elysium_core.evaluation.run_folder import Manifest, read_manifest, read_results
from elysium_core.evaluation.scoring import score_benchmark, score_recording
from elysium_core.evaluation.tracking_tables import (
    Figures,
    baseline_figures,
    columns,
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
from elysium_core.io.files import atomic_path

_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class _Run:
    manifest: Manifest
    results: list[TrackResult]
    missing: dict[str, int]

    @property
    def scored(self) -> list[TrackResult]:
        return [result for result in self.results if not result.first_box_only]


def tracking_report(folder: Path, protocols: Sequence[str] = ()) -> Report:
    """Score a run from its files alone and draw its plots.

    Args:
        folder: The run folder.
        protocols: Whose rules to follow; those the run was asked for if empty.

    Raises:
        DataError: There is no result, or a file is damaged.
        ConfigError: A protocol is unknown.
    """
    manifest = read_manifest(folder)
    run = _Run(manifest, *read_results(folder, manifest))
    if not run.results:
        raise DataError(f"{str(folder)!r} holds no result yet; run elysium eval {manifest.benchmark} first")
    chosen = protocols_to_print(protocols or manifest.protocols)
    write_plain_boxes(folder, run.results)
    facts, warnings = _facts(run, chosen), _warnings(run)
    if not run.scored:
        return Report(_title(run), facts, warnings, [])
    figures = {protocol: _all_scores(run, protocol) for protocol in chosen}
    tables = [protocol_table(protocol, figures[protocol], manifest) for protocol in chosen]
    tables.append(_recordings_table(run, chosen[0]))
    warnings += near_frozen(name_in_tables(manifest.model), figures[chosen[0]])
    plots: list[str] = []
    try:
        plots = draw_plots(folder, chosen[0], figures[chosen[0]])
    except ConfigError as error:
        warnings.append(str(error))
    scores = {protocol.name: figures_as_json(figures[protocol]) for protocol in chosen}
    return Report(_title(run), facts, warnings, tables, plots, {"protocols": scores})


def write_plain_boxes(folder: Path, results: Iterable[TrackResult]) -> None:
    """Write ``boxes/<name>.txt`` as other toolkits read them: ``x,y,w,h`` a line, zeros without an answer."""
    for result in results:
        boxes = result.predicted_xywh_px.copy()
        boxes[:, :2] += result.pixel_origin
        rows = [[0.0] * 4 if (row != row).any() else row for row in boxes]
        with atomic_path(folder / "boxes" / file_name(result.name, ".txt")) as temporary:
            temporary.write_text("".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in rows), encoding="ascii")


def _all_scores(run: _Run, protocol: Protocol) -> Figures:
    scores = score_benchmark(run.scored, protocol, run.missing)
    model = {} if scores is None else {name_in_tables(run.manifest.model): scores}
    return model | baseline_figures(run.scored, protocol)


def _recordings_table(run: _Run, protocol: Protocol) -> Table:
    wanted = [column for column in columns(protocol) if column[1] not in ("success_50", "success_75")]
    rows = []
    for result, frozen in zip(run.scored, run_baseline("frozen", run.scored), strict=True):
        scores = score_recording(result, protocol)
        cells = [percent(None if scores is None else getattr(scores, key)) for _, key in wanted]
        still = score_recording(frozen, protocol)
        still_ao = percent(None if still is None else still.average_overlap)
        rows.append([result.name, str(result.frame_count), str(result.unanswered), *cells, still_ao])
    rows += [[name, str(frames), str(frames), *["0.00"] * len(wanted), "-"] for name, frames in run.missing.items()]
    headings = ["recording", "frames", "without a box", *(heading for heading, _ in wanted), "AO of frozen"]
    return Table(f"Recordings ({protocol.name})", headings, rows)


def _title(run: _Run) -> str:
    manifest = run.manifest
    benchmark = get_tracking_benchmark(manifest.benchmark)
    return f"{manifest.model} on {' '.join(filter(None, (benchmark.title, manifest.split)))}, {manifest.task}"


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
        "Speed": f"{frames_per_second(results)} frames a second of tracking time",
        "Version": manifest.version,
    }


def _warnings(run: _Run) -> list[str]:
    warnings = []
    if run.missing:
        warnings.append(
            f"{len(run.missing)} of {len(run.manifest.entries)} recordings have no result and score 0: "
            f"{_some(run.missing)}. Run the same command again to go on."
        )
    whole = (get_tracking_benchmark(run.manifest.benchmark).sizes or {}).get(run.manifest.split)
    if whole is not None and whole != len(run.manifest.entries):
        warnings.append(
            f"These are {len(run.manifest.entries)} of the benchmark's {whole} recordings; "
            "the figures are not those of the benchmark."
        )
    if not run.scored:
        warnings.append("The data set tells the first boxes only: send boxes/*.txt to its server for the scores.")
    return warnings


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_MOST_NAMES]) + (" ..." if len(listed) > _MOST_NAMES else "")
