"""The figures that the Elysium paper prints for itself and for other models (``published.yaml``).

They were not measured by this project, and every report marks them so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from elysium_core.evaluation.peers import is_peer
from elysium_core.evaluation.run_folder import Manifest
from elysium_core.io.sampling import QUESTION_FRAMES

PAPER = "Elysium paper (arXiv 2403.16558)"
_PAPER_MODE = "clip"
_PAPER_CLIP = 8


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a table of the paper, for one data set, split and task.

    Attributes:
        model: The evaluated model.
        figures: Name of the figure -> value as printed; percent unless the name has another unit. A figure that the
            paper does not give is not there.
        table: Number of the table in the paper.
        details: What the paper says of the model's input.
        note: Remark on all rows of the table.
    """

    model: str
    figures: dict[str, float]
    table: int
    details: str = ""
    note: str = ""

    @property
    def label(self) -> str:
        """Name in a table of a report."""
        return f"{self.model}, figure of the paper"

    def cell(self, figure: str, decimals: int) -> str:
        """Return one figure as text, ``-`` if the paper does not give it."""
        value = self.figures.get(figure)
        return "-" if value is None else f"{value:.{decimals}f}"


@lru_cache(maxsize=1)
def published_tables() -> dict[tuple[str, str, str], tuple[PublishedRow, ...]]:
    """Return benchmark, split and task -> rows of the paper, in its order."""
    text = files("elysium_core.evaluation").joinpath("published.yaml").read_text(encoding="utf-8")
    rows: dict[tuple[str, str, str], list[PublishedRow]] = {}
    for table in yaml.safe_load(text):
        for model, values in table["rows"].items():
            for key, figures in _figures(table["columns"], values).items():
                details = table.get("details", {}).get(model, "")
                row = PublishedRow(model, figures, table["table"], details, table.get("note", ""))
                rows.setdefault(key, []).append(row)
    return {key: tuple(found) for key, found in rows.items()}


def _figures(columns: Sequence[Any], values: Sequence[Any]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return the figures of one row by benchmark, split and task."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for (benchmark, split, task, figure), value in zip(columns, values, strict=True):
        if value is not None:
            found.setdefault((benchmark, split, task), {})[figure] = float(value)
    return found


def published_rows(manifest: Manifest) -> tuple[PublishedRow, ...]:
    """Return the paper's rows for the benchmark, split and task of a run; empty if there are none."""
    return published_tables().get((manifest.benchmark, manifest.split, manifest.task), ())


def published_notes(rows: Sequence[PublishedRow]) -> Iterator[str]:
    """Yield the sentences below a table with rows of the paper: where they come from, and what it says of them."""
    if not rows:
        return
    remark = f"; {rows[0].note}" if rows[0].note else ""
    yield f"Figures of the paper: printed in the {PAPER}, table {rows[0].table}, not measured here{remark}."
    if details := [f"{row.model}: {row.details}" for row in rows if row.details]:
        yield f"As the paper says: {'; '.join(details)}."


def unlike_the_paper(manifest: Manifest) -> list[str]:
    """Return a sentence if a run beside figures of the paper was not made as the paper says (section 4.3).

    Args:
        manifest: The run. Trackers of other projects have no mode of their own, so nothing is said of them.
    """
    if not published_rows(manifest) or is_peer(manifest.model):
        return []
    differing = list(_tracking_differences(manifest) if manifest.mode else _question_differences(manifest))
    if not differing:
        return []
    return [f"This run does not follow the paper, whose figures stand beside it: {', '.join(differing)}."]


def _tracking_differences(manifest: Manifest) -> Iterator[str]:
    if manifest.mode != _PAPER_MODE:
        yield f"mode {manifest.mode} instead of {_PAPER_MODE}"
    elif manifest.clip_length not in (None, _PAPER_CLIP):
        yield f"clips of {manifest.clip_length} frames instead of {_PAPER_CLIP}"
    if manifest.zoom:
        yield "zoom"
    if manifest.score_threshold:
        yield f"boxes with a score below {manifest.score_threshold:g} are uncertain instead of counted"


def _question_differences(manifest: Manifest) -> Iterator[str]:
    if manifest.task == "ask" and manifest.frames not in (None, QUESTION_FRAMES):
        yield f"{manifest.frames} frames instead of {QUESTION_FRAMES}"
