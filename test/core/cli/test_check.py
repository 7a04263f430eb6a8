from __future__ import annotations

import json
from functools import partial

import pytest

from elysium_core.evaluation import model_check
from elysium_core.evaluation.model_check import check_model


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer and smaller pictures."""
    monkeypatch.setattr(model_check, "check_model", partial(check_model, side_px=128, pictures=4))


@pytest.mark.slow
def test_the_result_is_one_sentence_and_one_file(elysium, tmp_path):
    outcome = elysium("check", "nano", "--vision-backend", "torch", "--device", "cpu", "--out", tmp_path / "check.json")
    assert outcome.code == 0
    assert outcome.out.startswith("nano on cpu in float32: 4 of 4 answers are those of transformers")
    written = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert written["sentence"] == outcome.out.strip()
    assert written["passed"] is True


@pytest.mark.slow
def test_a_failed_check_is_an_exit_code(elysium, qwen_folders):
    outcome = elysium("check", qwen_folders["qwen2_5_vl"], "--device", "cpu", "--max-pixels", 8192, "--json")
    assert outcome.code == 1
    (result,) = outcome.lines
    assert (result["identical"], result["answers"], result["boxes"], result["passed"]) == (4, 4, 0, False)


def test_a_model_without_weights_has_nothing_to_check(elysium):
    outcome = elysium("check", "identity")
    assert outcome.code == 2
    assert "'identity'" in outcome.err
