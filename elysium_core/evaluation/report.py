"""A report in the abstract, and how it is written: Markdown, HTML, JSON, and lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from elysium_core.evaluation.results import write_json
from elysium_core.io.files import atomic_path

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}caption{text-align:left;font-weight:600;padding:.4em 0}"
    "th,td{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child,td:first-child{text-align:left}img{max-width:100%}dt{font-weight:600}dd{margin:0 0 .4em 0}"
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        title: What the figures are and by whose rules.
        columns: Headings; the first column holds names.
        rows: One text a column in each.
        notes: Sentences below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report says.

    Attributes:
        title: One line.
        facts: What was run, on what, how much of it.
        warnings: What a reader must know before the figures.
        tables: The figures.
        figures: Plots, as file names beside the report.
        scores: The figures for programs.
    """

    title: str
    facts: dict[str, str]
    warnings: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[str] = ()
    scores: dict[str, Any] = field(default_factory=dict)


def write_report(folder: Path, report: Report) -> list[Path]:
    """Write ``report.md``, ``report.html`` and ``scores.json``; return their paths."""
    paths = [folder / "report.md", folder / "report.html", folder / "scores.json"]
    for path, text in zip(paths, (as_markdown(report), as_html(report)), strict=False):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(paths[2], {"title": report.title, "facts": report.facts, **report.scores})
    return paths


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


def as_html(report: Report) -> str:
    """Return the report as one HTML page without scripts."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(report.title)}</title>",
        f"<style>{_STYLE}</style><h1>{escape(report.title)}</h1><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts.items()),
        "</dl>",
        *(f"<p><strong>{escape(warning)}</strong></p>" for warning in report.warnings),
        *(_html_table(table) for table in report.tables),
        *(f'<p><img src="{escape(name)}" alt="{escape(name)}"></p>' for name in report.figures),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


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
    """Return a share 0..1 in percent with two decimals, ``-`` where there is none."""
    return "-" if value is None else f"{100 * value:.2f}"


def counted(counts: dict[str, int]) -> str:
    """Return counts as ``3 (2 because a, 1 because b)``."""
    total = sum(counts.values())
    if not total:
        return "0"
    reasons = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f"{total} (" + ", ".join(f"{count}: {reason}" for reason, count in reasons) + ")"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Keep names from outside from breaking a table or becoming markup."""
    folded = " ".join(text.split())
    for sign in "\\|<`*[":
        folded = folded.replace(sign, "\\" + sign)
    return folded


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    return f"<table><caption>{escape(table.title)}</caption><tr>{head}</tr>{body}</table>{notes}"
