"""Reports of runs as Markdown, JSON and terminal text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysium_core.evaluation.results import write_json
from elysium_core.io.files import atomic_path


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells.

    Attributes:
        title: Heading: the figures and their protocol.
        columns: Column headings; the first column holds names.
        rows: The rows, each with one cell per column.
        notes: Sentences below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The content of a report.

    Attributes:
        title: One line.
        facts: Facts about the run, such as protocol, data set and number of entries.
        warnings: Sentences that are shown before the tables.
        tables: The tables.
        figures: Plots, as names of files in the folder of the report.
        scores: The scores for programs.
    """

    title: str
    facts: dict[str, str]
    warnings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[str] = ()
    scores: dict[str, Any] = field(default_factory=dict)


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write ``report.md`` and ``scores.json``; return their paths."""
    text, scores = folder / "report.md", folder / "scores.json"
    with atomic_path(text) as temporary:
        temporary.write_text(as_markdown(report), encoding="utf-8")
    write_json(scores, {"title": report.title, "facts": report.facts, **report.scores})
    return [text, scores]


def as_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [f"# {_cell(report.title)}", ""]
    lines += [f"- **{_cell(name)}**: {_cell(value)}" for name, value in report.facts.items()] + [""]
    lines += [line for warning in report.warnings for line in (f"> {_cell(warning)}", "")]
    for table in report.tables:
        lines += [f"## {_cell(table.title)}", ""]
        lines += [_row(table.columns), _row([":--"] + ["--:"] * (len(table.columns) - 1))]
        lines += [_row(row) for row in table.rows] + [""]
        lines += [line for note in table.notes for line in (_cell(note), "")]
    lines += [line for name in report.figures for line in (f"![{name}]({name})", "")]
    return "\n".join(lines)


def as_lines(report: Report) -> Iterator[str]:
    """Yield the report as lines of plain text for a terminal."""
    yield report.title
    width = max((len(name) for name in report.facts), default=0)
    yield from (f"  {name:<{width}}  {value}" for name, value in report.facts.items())
    yield from (f"  ! {warning}" for warning in report.warnings)
    for table in report.tables:
        yield ""
        yield table.title
        columns = list(zip(table.columns, *table.rows, strict=True))
        widths = [max(len(text) for text in column) for column in columns]
        for row in (table.columns, *table.rows):
            cells = [
                f"{text:<{w}}" if k == 0 else f"{text:>{w}}"
                for k, (text, w) in enumerate(zip(row, widths, strict=True))
            ]
            yield "  " + "  ".join(cells).rstrip()
        yield from (f"  {note}" for note in table.notes)


def percent(value: float | None) -> str:
    """Return a share 0..1 in percent with two decimals, ``-`` for None."""
    return "-" if value is None else f"{100 * value:.2f}"


def counted(counts: dict[str, int]) -> str:
    """Return counts by reason as ``3 (2: reason a, 1: reason b)``."""
    total = sum(counts.values())
    if not total:
        return "0"
    reasons = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{total} (" + ", ".join(f"{count}: {reason}" for reason, count in reasons) + ")"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Escape a text, so that names from data files cannot break a table or become markup."""
    folded = " ".join(text.split())
    for sign in "\\|<`*[":
        folded = folded.replace(sign, "\\" + sign)
    return folded
