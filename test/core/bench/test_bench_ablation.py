"""The ablation of token adapters: from a recipe to the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.ablation import TABLE, Score, as_report, variants
from elysium_core.errors import ConfigError
from elysium_core.evaluation.published import published_tables
from elysium_core.training.recipes import load_any_recipe

RECIPE = Path(__file__).resolve().parents[3] / "training" / "ablation.yaml"
TINY = [
    *("model.side_px=32", "model.visual_tokens=4", "model.vision_width=32", "model.vision_layers=1"),
    *("model.llm_width=32", "model.llm_layers=1", "model.llm_mlp=48", "stages.vision.steps=2"),
    *("stages.language.steps=2", "stages.adapter.steps=2", "stages.adapter.batch_frames=2"),
]


def test_the_adapters_are_those_of_the_paper_by_their_share_of_tokens():
    assert [each.name for each in variants(64)] == [
        *("none-64", "cross_attention-16", "concatenation-16"),
        *("t_selector-1", "t_selector-4", "t_selector-8", "t_selector-16", "t_selector-32"),
    ]
    known = {row.model.split(" (")[0] for row in published_tables()[TABLE]}
    assert {each.paper for each in variants(64)} <= known
    names = [each.name for each in variants(16)]
    assert len(names) == len(set(names)), "small shares of few patches are one token"


def test_the_table_has_the_papers_figures_beside_its_own():
    recipe = load_any_recipe(RECIPE, [])
    scored = {each: Score(0.5, 0.25, 1.5, 1.0) for each in variants(64)}
    rows = {row[0] + row[1]: row[2:6] for row in as_report(recipe, scored, 10).tables[0].rows}
    assert rows["none64 of 64"] == ["50.00", "25.00", "1.500", "86.19"]
    assert rows["t_selector16 of 64"][3] == "84.77"
    assert rows["concatenation16 of 64"][3] == "59.29 / 52.24"


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("model.adapter=none", "visual_tokens"),
        ("model.adapter=fusion", "adapter"),
        ("model.adapter=cross_attention", "kind"),
        ("stages.vision.kind=adapters", "kind"),
    ],
)
def test_settings_that_do_not_fit_are_named(setting, field):
    with pytest.raises(ConfigError) as caught:
        load_any_recipe(RECIPE, [setting])
    assert field in str(caught.value)


@pytest.mark.slow
def test_one_command_trains_scores_and_continues(bench, tmp_path):
    words = ["ablation", RECIPE, *TINY, "--out", tmp_path / "runs", "--pictures", 4]
    first = bench(*words, "--only", "concatenation-4", "--only", "t_selector-1")
    assert first.code == 0, first.err
    assert (tmp_path / "runs" / "t_selector-1" / "checkpoint" / "config.json").is_file()
    assert "86.19" not in first.out
    more = bench(*words, "--only", "t_selector-1", "--only", "none-16", "--only", "cross_attention-4", "--json")
    assert more.code == 0, more.err
    assert set(more.lines[0]) == {"title", "t_selector-1", "none-16", "cross_attention-4"}
    assert more.lines[0]["t_selector-1"]["seconds"] == 0 < more.lines[0]["none-16"]["seconds"], "it was trained before"
