"""The report of a tracking run: the model beside the baselines, under each protocol asked for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.data.readers.catalog import get_tracking_benchmark
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.baselines import BASELINES, run_baseline
from elysium_core.evaluation.plots import draw_plots
from elysium_core.evaluation.protocols import (
    DEFAULT_PROTOCOL,
    REFERENCE_PROTOCOL,
    Protocol,
    Summary,
    get_protocol,
)
from elysium_core.evaluation.published import PAPER, published_rows
from elysium_core.evaluation.report import Report, Table, counted, percent
from elysium_core.evaluation.results import TrackResult, file_name
from elysium_core.evaluation.run_folder import Manifest, read_manifest, read_results
from elysium_core.evaluation.scoring import Scores, score_benchmark, score_recording
from elysium_core.io.files import atomic_path

_NEAR_FROZEN = 0.05
_MOST_NAMES = 10


Figures = dict[str, Scores]
"""Name of tracker -> its scores by one protocol; the model comes first."""


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
    chosen = [get_protocol(name) for name in _with_the_right_one(protocols or manifest.protocols)]
    write_plain_boxes(folder, run.results)
    facts, warnings = _facts(run, chosen), _warnings(run)
    if not run.scored:
        return Report(_title(run), facts, warnings, [])
    figures = {protocol: _all_scores(run, protocol) for protocol in chosen}
    tables = [_protocol_table(run, protocol, figures[protocol]) for protocol in chosen]
    tables.append(_recordings_table(run, chosen[0]))
    warnings += _nearness(run, figures[chosen[0]])
    plots: list[str] = []
    try:
        plots = draw_plots(folder, chosen[0], figures[chosen[0]])
    except ConfigError as error:
        warnings.append(str(error))
    scores = {p.name: {name: _scores_json(value) for name, value in figures[p].items()} for p in chosen}
    return Report(_title(run), facts, warnings, tables, plots, {"protocols": scores})


def write_plain_boxes(folder: Path, results: Iterable[TrackResult]) -> None:
    """Write ``boxes/<name>.txt`` as other toolkits read them: ``x,y,w,h`` a line, zeros without an answer."""
    for result in results:
        boxes = result.predicted_xywh_px.copy()
        boxes[:, :2] += result.pixel_origin
        rows = [[0.0] * 4 if (row != row).any() else row for row in boxes]
        with atomic_path(folder / "boxes" / file_name(result.name, ".txt")) as temporary:
            temporary.write_text("".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in rows), encoding="ascii")


def _with_the_right_one(names: Sequence[str]) -> list[str]:
    """Return the protocols to print; the released scorer never stands alone nor first."""
    right = [name for name in dict.fromkeys(names) if name != REFERENCE_PROTOCOL]
    right = right or [DEFAULT_PROTOCOL]
    return [*right, REFERENCE_PROTOCOL] if REFERENCE_PROTOCOL in names else right


def _all_scores(run: _Run, protocol: Protocol) -> Figures:
    figures = {run.manifest.model: score_benchmark(run.scored, protocol, run.missing)}
    for name in BASELINES:
        # A baseline has an answer wherever there is a result; recordings still to be run tell it nothing.
        figures[name] = score_benchmark(run_baseline(name, run.scored), protocol)
    return {name: scores for name, scores in figures.items() if scores is not None}


def _columns(protocol: Protocol) -> list[tuple[str, str]]:
    """Return heading and attribute of each figure the protocol defines."""
    columns = []
    if protocol.auc is not Summary.NONE:
        columns.append(("AUC" if protocol.auc is Summary.MEAN else "AUC (area)", "auc"))
    if protocol.norm_precision is not Summary.NONE:
        at = protocol.norm_precision is Summary.AT_20
        columns.append(("P_norm@0.20" if at else "P_norm (area 0..0.5)", "norm_precision"))
    if protocol.precision is not Summary.NONE:
        at = protocol.precision is Summary.AT_20
        columns.append(("P@20px" if at else "P (area 0..50px)", "precision"))
    return [*columns, ("AO", "average_overlap"), ("SR@0.5", "success_50"), ("SR@0.75", "success_75")]


def _protocol_table(run: _Run, protocol: Protocol, figures: Figures) -> Table:
    columns = _columns(protocol)
    rows = [[name, *(percent(getattr(scores, key)) for _, key in columns)] for name, scores in figures.items()]
    counted_frames = next((scores.frames for scores in figures.values()), 0)
    notes = [f"Rules of: {protocol.source}. {counted_frames} frames in the denominator."]
    if not protocol.comparable:
        title = f"{protocol.name} (not comparable)"
        notes.append("Not comparable with anything: it limits all coordinates to 100 px, see docs/evaluation.md.")
        return Table(title, ["", *(heading for heading, _ in columns)], rows, notes)
    for published in published_rows(run.manifest.benchmark, run.manifest.split, run.manifest.task):
        values = [_published_cell(published.figures, heading) for heading, _ in columns]
        rows.append([f"{published.model}, figure of the paper", *values])
        notes.append(f"{published.model}: printed in the {PAPER}, not measured here; {published.note}.")
    return Table(protocol.name, ["", *(heading for heading, _ in columns)], rows, notes)


def _published_cell(figures: dict[str, float], heading: str) -> str:
    value = figures.get(re.split(r"[@ ]", heading, maxsplit=1)[0])
    return "-" if value is None else f"{value:.1f}"


def _recordings_table(run: _Run, protocol: Protocol) -> Table:
    columns = [column for column in _columns(protocol) if column[1] not in ("success_50", "success_75")]
    rows = []
    for result, frozen in zip(run.scored, run_baseline("frozen", run.scored), strict=True):
        scores = score_recording(result, protocol)
        cells = [percent(None if scores is None else getattr(scores, key)) for _, key in columns]
        still = score_recording(frozen, protocol)
        still_ao = percent(None if still is None else still.average_overlap)
        rows.append([result.name, str(result.frame_count), str(result.unanswered), *cells, still_ao])
    rows += [[name, str(frames), str(frames), *["0.00"] * len(columns), "-"] for name, frames in run.missing.items()]
    headings = ["recording", "frames", "without a box", *(heading for heading, _ in columns), "AO of frozen"]
    return Table(f"Recordings ({protocol.name})", headings, rows)


def _title(run: _Run) -> str:
    manifest = run.manifest
    benchmark = get_tracking_benchmark(manifest.benchmark)
    return f"{manifest.model} on {' '.join(filter(None, (benchmark.title, manifest.split)))}, {manifest.task}"


def _facts(run: _Run, protocols: Sequence[Protocol]) -> dict[str, str]:
    manifest, results = run.manifest, run.results
    frames, seconds = sum(r.frame_count for r in results), sum(r.seconds for r in results)
    failures: Counter[str] = sum((Counter(r.failures) for r in results), Counter())
    unparseable: Counter[str] = sum((Counter(r.parse_failures) for r in results), Counter())
    task = "the first box is given" if manifest.task == "sot" else f"words are given ({manifest.words})"
    least = manifest.score_threshold
    threshold = f"boxes scoring less than {least:g} are not sure" if least else "every box counts"
    return {
        "Protocol": ", ".join(p.name + ("" if p.comparable else " (not comparable)") for p in protocols),
        "Task": f"{manifest.task}: {task}; tracking mode {manifest.mode}, {threshold}",
        "Recordings": f"{len(results)} of {len(manifest.entries)}",
        "Frames": str(frames),
        "Frames without a box": counted(failures),
        "Unparseable answers": counted(unparseable),
        "Model": ", ".join(f"{key} {value}" for key, value in manifest.device.items()) or manifest.model,
        "Speed": f"{frames / seconds:.1f} frames a second of tracking time" if seconds > 0 else "-",
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


def _nearness(run: _Run, figures: Figures) -> list[str]:
    model, frozen = figures.get(run.manifest.model), figures.get("frozen")
    if model is None or frozen is None or model.average_overlap - frozen.average_overlap > _NEAR_FROZEN:
        return []
    sentence = (
        f"The average overlap of {percent(model.average_overlap)} is not clearly above that of a box that never moves "
        f"({percent(frozen.average_overlap)}): these recordings do not show that the model tracks."
    )
    return [sentence]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_MOST_NAMES]) + (" ..." if len(listed) > _MOST_NAMES else "")


def _scores_json(scores: Scores) -> dict[str, Any]:
    return {
        "auc": scores.auc,
        "norm_precision": scores.norm_precision,
        "norm_precision_mean": scores.norm_precision_mean,
        "precision": scores.precision,
        "average_overlap": scores.average_overlap,
        "success_50": scores.success_50,
        "success_75": scores.success_75,
        "frames": scores.frames,
        "success_curve": scores.success.tolist(),
        "precision_curve": scores.precision_px.tolist(),
        "norm_precision_curve": scores.precision_norm.tolist(),
    }
