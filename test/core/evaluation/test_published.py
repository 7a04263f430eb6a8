"""The paper's tables 2 to 7: complete, as printed, and never beside a run that is silently unlike the paper's."""

from __future__ import annotations

import pytest

from elysium_core.evaluation.protocols import default_protocol
from elysium_core.evaluation.published import published_notes, published_rows, published_tables, unlike_the_paper
from elysium_core.evaluation.run_folder import Manifest


def run(benchmark="lasot", split="test", task="sot", model="real", **fields):
    return Manifest("tracking", benchmark, split, model, task, **fields)


def test_every_system_of_the_papers_tables_is_there():
    systems = {}
    for (benchmark, _, _), rows in published_tables().items():
        for row in rows if benchmark != "ablation" else ():
            systems.setdefault(row.table, set()).add(row.model)
    assert systems == {
        2: {
            *("OFA-L", "VisionLLM-H", "Shikra 7B", "Shikra 13B", "MiniGPT-v2 7B", "Ferret 7B", "GroundingGPT 7B"),
            "Elysium 7B",
        },
        3: {
            *("FrozenBiLM", "VideoLLaMA", "LLaMA-Adapter", "VideoChat", "Video-ChatGPT", "Valley-v3", "MovieChat"),
            "Elysium 7B",
        },
        4: {
            *("SiamFC", "SiamRPN", "MDNet", "SiamRPN++", "DiMP", "MAML", "SiamFC++", "CGACD", "SiamGAT"),
            "Elysium 7B",
        },
        5: {"MiniGPT-v2", "Elysium 7B"},
        6: {"MiniGPT-v2", "Elysium 7B"},
    }


def test_the_ablation_of_the_paper_is_there_and_beside_no_benchmark():
    rows = {row.model: row.cell("Acc@0.5", 2) for row in published_tables()["ablation", "refcoco-val", "rec"]}
    assert len(rows) == 11
    assert (rows["T-Selector, 1 token"], rows["T-Selector, 256 tokens"]) == ("51.57", "86.25")
    assert not any("T-Selector" in row.model for row in published_rows(run("refcoco", "val", "refcoco")))


@pytest.mark.parametrize(
    ("key", "model", "figures"),
    [
        (("refcoco", "testA", "rec"), "VisionLLM-H", {"Acc@0.5": 86.70}),
        (("refcocog", "test", "rec"), "Ferret 7B", {"Acc@0.5": 84.76}),
        (("tgif-qa", "test", "ask"), "FrozenBiLM", {"Accuracy": 41.0}),
        (("activitynet-qa", "test", "ask"), "MovieChat", {"Accuracy": 45.7, "Score 0..5": 3.4}),
        (("lasot", "test", "sot"), "SiamFC", {"AUC": 33.6, "P_norm": 42.0, "P": 33.9}),
        (("lasot", "test", "sot"), "CGACD", {"AUC": 51.8, "P_norm": 62.6}),
        (("uav123", "", "sot"), "MDNet", {"AUC": 52.8}),
        (("elysiumtrack", "val500", "rsot"), "MiniGPT-v2", {"AUC": 65.4, "P_norm": 70.1, "P": 67.4}),
        (("elysiumtrack", "val500", "video-reg"), "Elysium 7B", {"METEOR": 46.7, "CIDEr": 115.3}),
    ],
)
def test_figures_stand_where_the_paper_prints_them(key, model, figures):
    (row,) = [row for row in published_tables()[key] if row.model == model]
    assert row.figures == figures


def test_a_system_without_a_figure_for_a_data_set_has_no_row_there():
    assert "SiamRPN" not in {row.model for row in published_tables()["lasot", "test", "sot"]}
    assert "Valley-v3" not in {row.model for row in published_tables()["tgif-qa", "test", "ask"]}
    assert published_rows(run("otb100", "")) == ()


def test_the_notes_name_paper_table_and_input():
    notes = list(published_notes(published_rows(run("refcoco", "val", "rec"))))
    assert "table 2, not measured here" in notes[0]
    assert "Shikra 7B: 224 px, 256 tokens" in notes[1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "clip", "score_threshold": 0.0, "clip_length": 8}, ""),
        ({"mode": "clip", "clip_length": 6}, "clips of 6 frames instead of 8"),
        ({"mode": "stream", "score_threshold": 0.0}, "mode stream instead of clip"),
        ({"mode": "stream", "score_threshold": 0.3, "zoom": True}, "zoom, boxes with a score below 0.3"),
        ({"mode": "stream", "model": "opencv:MIL"}, ""),
        ({"mode": "stream", "benchmark": "otb100", "split": ""}, ""),
        ({"benchmark": "msvd-qa", "task": "ask", "frames": 16}, ""),
        ({"benchmark": "msvd-qa", "task": "ask", "frames": 5}, "5 frames instead of 16"),
    ],
)
def test_a_run_that_is_unlike_the_papers_says_so(fields, said):
    sentences = unlike_the_paper(run(**fields))
    assert bool(sentences) == bool(said)
    assert said in "".join(sentences)


def test_data_sets_with_a_server_are_scored_by_its_protocol():
    assert default_protocol("got10k") == "ope-got10k"
    assert default_protocol("trackingnet") == "ope-trackingnet"
    assert default_protocol("uav123") == "ope-lasot"
