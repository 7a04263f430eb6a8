"""docs/reliability.md names codes and tests that exist, and every code that the node reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
SOURCES = [path for folder in ("elysium_ros", "elysium_core") for path in (ROOT / folder).rglob("*.py")]

# How a code is written where it is reported: as an argument, as an attribute of an error, beside a level.
REPORTED = re.compile(
    r'code(?:: str)? ?= ?"([A-Z]+(?:_[A-Z]+)*)"|report\(\s*"([A-Z_]+)"|(?:DiagnosticStatus\.\w+|level), "([A-Z_]+)"'
    r'|GPU_LOST = "([A-Z_]+)"'
)
SINGLE_WORDS = "INTERNAL|MEMORY|BUSY|TIMEOUT|PAUSED|CONFIG|TRANSITION|MODE|TARGET|TASK"
# Codes of what is not the node: the demo and the client.
ELSEWHERE = {"DEMO", "NODE", "NODE_DIED", "NO_ANSWER"}


def reported_codes(folder: str) -> set[str]:
    sources = "\n".join(path.read_text("utf-8") for path in SOURCES if path.relative_to(ROOT).parts[0] == folder)
    return {next(filter(None, match.groups())) for match in REPORTED.finditer(sources)}


def codes_on_the_page() -> set[str]:
    return set(re.findall(rf"`([A-Z]+(?:_[A-Z]+)+|{SINGLE_WORDS})`", PAGE))


def test_every_code_of_the_node_is_on_the_page() -> None:
    assert reported_codes("elysium_ros") - ELSEWHERE - {"OK"} - codes_on_the_page() == set()


def test_every_code_on_the_page_is_one() -> None:
    spelled = "\n".join(path.read_text("utf-8") for path in SOURCES)
    assert {code for code in codes_on_the_page() if not re.search(rf"\b{code}\b", spelled)} == set()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test/[\w/]+\.py::\w+)`", PAGE))))
def test_every_promise_is_held_by_a_test_that_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / path).read_text("utf-8")


def test_every_row_of_a_table_names_its_test() -> None:
    heads = ("|---", "| What happens |", "| State |", "| Promise |")
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(heads)]
    assert len(rows) > 50
    assert [row for row in rows if "::test_" not in row] == []
