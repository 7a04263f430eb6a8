"""The report of a run on the frozen test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elysium_core.errors import DataError
from elysium_core.evaluation.answers import read_answers
from elysium_core.evaluation.protocols import DEFAULT_PROTOCOL
from elysium_core.evaluation.report import Report, Table, percent
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.evaluation.synthetic_scores import MODEL, Figures, Record, score_all

_TITLES = {
    "test": "Names and backgrounds: names known, backgrounds and motions never trained on",
    "words": "Words: every name, dyed things and two of a name among them, asked for by name, colour, size or place",
    "test-unseen": "Sprites never trained on, followed from a box",
    "small": "Small things: .05 to .12 of the frame's side, names known",
    "absence": "Doubt: share marked UNCERTAIN or LOST in the tenth frame without the object",
}
_RIVALS = (
    "Random object: the exact boxes of an object of the scene, the mean over all of them; copied first box: the true "
    "box of the first frame in every frame; any of that name: the mean over the things of the target's name; "
    "truth as text: the truth in steps of 1/100, the most that text can say."
)
_RIGHT = "Right object: the centre of the box is nearer to the target's centre than to any other object's."


def synthetic_report(folder: Path) -> Report:
    """Score the answers of a run.

    Raises:
        DataError: There is no answer yet.
    """
    manifest = read_manifest(folder)
    answers = read_answers(folder, "answers")
    records = [answers[name] for name in manifest.entries if name in answers]
    if not records:
        raise DataError(f"{str(folder)!r} holds no answer yet; run elysium eval synthetic first")
    missing = len(manifest.entries) - len(records)
    scores = score_all(records)
    mode = "stream mode" + (", closer looks (zoom)" if manifest.zoom else "")
    return Report(
        title=f"{manifest.model} on the frozen test set of generated video",
        facts={
            "Protocol": f"greedy, {mode}; AUC by {DEFAULT_PROTOCOL}, mean over clips",
            "Clips": f"{len(records)} of {len(manifest.entries)}"
            + (f" (at most {manifest.limit} of each part)" if manifest.limit else ""),
            "Model": ", ".join(f"{key} {value}" for key, value in manifest.device.items()),
            "Speed": _speed(records),
            "Version": manifest.version,
        },
        warnings=[f"{missing} clips have no answer yet and are left out."] if missing else [],
        tables=[_table(_TITLES[part], figures, manifest.model) for part, figures in scores.items() if figures],
        scores={"parts": scores, "clips": len(records)},
    )


def _table(title: str, figures: Figures, model: str) -> Table:
    columns = sorted({key for by in figures.values() for who in by.values() for key in who if key != "all"})
    rows = []
    for name, by in figures.items():
        for who, values in by.items():
            label = f"{name}, {model if who == MODEL else who}"
            rows.append([label, *(percent(values.get(key)) for key in [*columns, "all"])])
    headings = ["[%]", *(f"{key} object{'s' if key != '1' else ''}" for key in columns), "all"]
    return Table(title, headings, rows, (_RIVALS, _RIGHT) if len(rows) > len(figures) else ())


def _speed(records: Sequence[Record]) -> str:
    tracks = [track for record in records for track in record.get("tracks", ()) if track["seconds"] > 0]
    seconds = sum(track["seconds"] for track in tracks)
    return (
        f"{sum(len(track['boxes']) for track in tracks) / seconds:.1f} frames a second of tracking" if seconds else "-"
    )
