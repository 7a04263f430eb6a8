"""What a visitor of the repository meets first: CI, hooks, citation, change log, help, the drawing of the folders."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import elysium_core

ROOT = Path(__file__).resolve().parents[1]


def test_continuous_integration_runs_what_a_developer_runs():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    test = jobs["test"]
    assert test["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make lint", "make test"} <= set(lines)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy", "codespell", "commit-subject"]
    lint = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(hook["entry"].removesuffix(" --force-exclude") in lint for hook in hooks[:3])


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == elysium_core.__version__
    assert citation["license"] == "Apache-2.0"
    assert [paper["title"] for paper in citation["references"]] == [
        "Elysium: Exploring Object-level Perception in Videos via MLLM"
    ]


def test_make_help_lists_every_target():
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony is not None
    assert re.findall(r"^  make (\w+)", printed, flags=re.MULTILINE) == phony[1].split()


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE)) <= kinds
    entries = re.findall(r"^[-*] .*$", text, flags=re.MULTILINE)
    assert len(entries) > 20
    assert [entry for entry in entries if len(entry) > 160] == []


def drawing() -> dict[str, str]:
    """Return the folder tree of docs/architecture.md: path -> the line behind it."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"## The house\n.*?```\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = [(-1, "")]
    for line in block[1].splitlines():
        names, _, meaning = line.strip().partition("  ")
        indent = len(line) - len(line.lstrip())
        while parents[-1][0] >= indent:
            parents.pop()
        for name in names.split():
            found[parents[-1][1] + name.rstrip("/")] = meaning.strip()
        parents.append((indent, parents[-1][1] + names.split()[0]))
    return found


def test_the_drawing_of_the_house_shows_every_part():
    drawn = drawing()
    assert [path for path in drawn if not (ROOT / path).exists()] == []
    assert [path for path, meaning in drawn.items() if len(meaning) < 8] == []
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [name for name in listed if "/" in name and (ROOT / name).is_file()]
    parts = {name.split("/")[0] for name in files}
    parts |= {"/".join(name.split("/")[:2]) for name in files if name.startswith(("elysium_core/", "elysium_ros/"))}
    assert {part for part in parts if not re.search(r"^\.|/__|py\.typed", part)} - set(drawn) == set()
