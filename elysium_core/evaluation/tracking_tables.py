"""Tables and facts for reports of one tracking run, or of several over the same recordings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from elysium_core.evaluation.peers import is_peer
from elysium_core.evaluation.protocols import (
    REFERENCE_PROTOCOL,
    Protocol,
    Summary,
    default_protocol,
    get_protocol,
)
from elysium_core.evaluation.published import published_notes, published_rows
from elysium_core.evaluation.report import Table, counted, percent
from elysium_core.evaluation.results import TrackResult
from elysium_core.evaluation.run_folder import Manifest
from elysium_core.evaluation.scoring import BASELINES, Scores, run_baseline, score_benchmark, score_recording

Figures = dict[str, Scores]
"""Name of tracker -> its scores by one protocol; models come before baselines."""

# These properties have a meaning for models of this project only; others have the default.
_OURS = frozenset({"coordinate_levels", "clip_length", "parameters"})
_NEAR_FROZEN = 0.05


def name_in_tables(model: str) -> str:
    """Return the name of a model in tables; a prefix is added if it equals the name of a baseline."""
    return f"model {model}" if model in BASELINES else model


def describe_task(manifest: Manifest) -> str:
    """Return a sentence about the input of the tracker and the boxes that count."""
    told = "the first box is given" if manifest.task == "sot" else f"words are given ({manifest.words})"
    if is_peer(manifest.model):
        return f"{manifest.task}: {told}; every box counts"
    least = manifest.score_threshold
    threshold = f"boxes with a score below {least:g} are uncertain" if least else "every box counts"
    mode = manifest.mode + (" with zoom" if manifest.zoom else "")
    return f"{manifest.task}: {told}; tracking mode {mode}, {threshold}"


def describe_model(manifest: Manifest) -> str:
    """Return the description of model and device; for models of other projects, without fields they do not have."""
    device = {key: value for key, value in manifest.device.items() if not (is_peer(manifest.model) and key in _OURS)}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in device.items()) or manifest.model


def counts_by_reason(counts: Iterable[Mapping[str, int]]) -> str:
    """Return the sum of counts by reason, as a report prints it."""
    return counted(sum((Counter(count) for count in counts), Counter()))


def frames_per_second(results: Sequence[TrackResult]) -> str:
    """Return frames per second of tracking time, without reading frames; ``-`` if it was not measured."""
    seconds = sum(result.seconds for result in results)
    return f"{sum(result.frame_count for result in results) / seconds:.1f}" if seconds > 0 else "-"


def name_protocols(protocols: Sequence[Protocol]) -> str:
    """Return the names of protocols, with a mark on those that are not comparable."""
    return ", ".join(p.name + ("" if p.comparable else " (not comparable)") for p in protocols)


def protocols_to_print(names: Sequence[str], benchmark: str) -> list[Protocol]:
    """Return the protocols of a report; the released scorer is never the only one and always last.

    Args:
        names: Names of protocols.
        benchmark: Data set, whose own protocol takes the place of none.

    Raises:
        ConfigError: A protocol is unknown.
    """
    right = [name for name in dict.fromkeys(names) if name != REFERENCE_PROTOCOL]
    right = right or [default_protocol(benchmark)]
    chosen = [*right, REFERENCE_PROTOCOL] if REFERENCE_PROTOCOL in names else right
    return [get_protocol(name) for name in chosen]


def baseline_figures(results: list[TrackResult], protocol: Protocol) -> Figures:
    """Score every baseline on the recordings that were answered."""
    # Baselines are scored only on recordings that have a result.
    scores = {name: score_benchmark(run_baseline(name, results), protocol) for name in BASELINES}
    return {name: value for name, value in scores.items() if value is not None}


def near_frozen(name: str, figures: Figures) -> list[str]:
    """Return a warning if a tracker is not clearly better than a box that never moves, else an empty list."""
    model, frozen = figures.get(name), figures.get("frozen")
    if model is None or frozen is None or model.average_overlap - frozen.average_overlap > _NEAR_FROZEN:
        return []
    sentence = (
        f"The average overlap of {name}, {percent(model.average_overlap)}, is not clearly above that of a box that "
        f"never moves ({percent(frozen.average_overlap)}): these recordings do not show that it tracks."
    )
    return [sentence]


def columns(protocol: Protocol) -> list[tuple[str, str]]:
    """Return heading and attribute of each score that the protocol defines."""
    found = []
    if protocol.auc is not Summary.NONE:
        found.append(("AUC" if protocol.auc is Summary.MEAN else "AUC (area)", "auc"))
    if protocol.norm_precision is not Summary.NONE:
        at = protocol.norm_precision is Summary.AT_20
        found.append(("P_norm@0.20" if at else "P_norm (area 0..0.5)", "norm_precision"))
    if protocol.precision is not Summary.NONE:
        at = protocol.precision is Summary.AT_20
        found.append(("P@20px" if at else "P (area 0..50px)", "precision"))
    return [*found, ("AO", "average_overlap"), ("SR@0.5", "success_50"), ("SR@0.75", "success_75")]


def protocol_table(protocol: Protocol, figures: Figures, manifest: Manifest) -> Table:
    """Return the table of one protocol; a comparable protocol also gets the figures of the paper, marked as such.

    Args:
        protocol: The protocol.
        figures: Scores for the rows of the table.
        manifest: Benchmark, split and task.
    """
    wanted = columns(protocol)
    headings = ["", *(heading for heading, _ in wanted)]
    rows = [[name, *(percent(getattr(scores, key)) for _, key in wanted)] for name, scores in figures.items()]
    counted_frames = next((scores.frames for scores in figures.values()), 0)
    notes = [f"Protocol of: {protocol.source}. {counted_frames} frames in the denominator."]
    if not protocol.comparable:
        title = f"{protocol.name} (not comparable)"
        notes.append(
            "Not comparable with other protocols: it limits all coordinates to 100 px, see docs/evaluation.md."
        )
        return Table(title, headings, rows, notes)
    figure_of = [re.split(r"[@ ]", heading, maxsplit=1)[0] for heading, _ in wanted]
    paper = [row for row in published_rows(manifest) if row.figures.keys() & set(figure_of)]
    rows += [[row.label, *(row.cell(figure, 1) for figure in figure_of)] for row in paper]
    return Table(protocol.name, headings, rows, [*notes, *published_notes(paper)])


def recordings_table(results: list[TrackResult], missing: Mapping[str, int], protocol: Protocol) -> Table:
    """Return the table of a run's recordings, with the average overlap (AO) of a box that never moves.

    Args:
        results: Results that can be scored.
        missing: Recordings without a result, with their number of frames.
        protocol: The protocol.
    """
    wanted = [column for column in columns(protocol) if column[1] not in ("success_50", "success_75")]
    rows = []
    for result, frozen in zip(results, run_baseline("frozen", results), strict=True):
        scores = score_recording(result, protocol)
        cells = [percent(None if scores is None else getattr(scores, key)) for _, key in wanted]
        still = score_recording(frozen, protocol)
        still_ao = percent(None if still is None else still.average_overlap)
        rows.append([result.name, str(result.frame_count), str(result.unanswered), *cells, still_ao])
    rows += [[name, str(frames), str(frames), *["0.00"] * len(wanted), "-"] for name, frames in missing.items()]
    headings = ["recording", "frames", "without a box", *(heading for heading, _ in wanted), "AO of frozen"]
    return Table(f"Recordings ({protocol.name})", headings, rows)


def compared_recordings_table(
    runs: Mapping[str, Sequence[TrackResult]], truth: list[TrackResult], protocol: Protocol
) -> Table:
    """Return the table of one score per recording, with a column for each run and one for a box that never moves.

    Args:
        runs: Name of each run -> its results.
        truth: One result of each recording, for the ground truth.
        protocol: The protocol.
    """
    figure, heading = ("average_overlap", "AO") if protocol.auc is Summary.NONE else ("auc", "AUC")
    rivals = {name: {result.name: result for result in results} for name, results in runs.items()}
    rivals["frozen"] = {result.name: result for result in run_baseline("frozen", truth)}
    rows = [
        [
            result.name,
            str(result.frame_count),
            *(_one_figure(by.get(result.name), protocol, figure) for by in rivals.values()),
        ]
        for result in truth
    ]
    notes = ["A recording that a run has not answered is shown and counted as 0.00."]
    title = f"{heading} of each recording ({protocol.name})"
    return Table(title, ["recording", "frames", *rivals], rows, notes)


def _one_figure(result: TrackResult | None, protocol: Protocol, figure: str) -> str:
    scores = None if result is None else score_recording(result, protocol)
    return percent(0.0 if result is None else None if scores is None else getattr(scores, figure))


def figures_as_json(figures: Figures) -> dict[str, Any]:
    """Return all scores and curves of one protocol for programs, 0..1."""
    return {name: _scores_json(scores) for name, scores in figures.items()}


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
