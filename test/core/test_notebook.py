"""The notebook "elysium in ten cells": its cells run in order, as in Jupyter, but without it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from elysium_core.io.video import open_video
from elysium_core.types import TrackState

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "ten_cells.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in CONTENT["cells"] if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Run one cell; return the value of its last line, which Jupyter shows."""
    tree = ast.parse(code)
    shown = tree.body.pop()
    assert isinstance(shown, ast.Expr), f"the cell shows nothing: {code}"
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(shown.value), str(NOTEBOOK), "eval"), names)


def test_it_has_ten_cells_without_stored_outputs():
    assert len(CODE) == 10
    assert [cell for cell in CONTENT["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
    assert CONTENT["nbformat"] == 4


@pytest.mark.slow
def test_all_cells_run_and_follow_both_things(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    try:
        shown = [run_cell(code, names) for code in CODE]
    finally:
        torch.set_num_threads(threads)
    assert names["found"].is_sure()
    assert shown[3] == "person"
    followed = [update.state for update in names["updates"]]
    assert followed.count(TrackState.TRACKED) >= 0.9 * len(followed)
    assert len(names["columns"]["frame"]) == 2 * len(names["frames"])
    with open_video(tmp_path / "followed.mp4") as recording:
        assert sum(1 for _ in recording) == len(names["frames"])
