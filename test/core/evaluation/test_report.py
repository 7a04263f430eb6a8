"""Reports: every figure stands beside its protocol, its baselines and what must be known about it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from elysium_core.errors import DataError
from elysium_core.evaluation.plots import draw_plots
from elysium_core.evaluation.protocols import PROTOCOLS
from elysium_core.evaluation.report import Report, Table, as_lines, as_markdown, write_report
from elysium_core.evaluation.results import TrackResult, write_result
from elysium_core.evaluation.run_folder import Manifest, open_run
from elysium_core.evaluation.scoring import score_benchmark
from elysium_core.evaluation.tracking_report import tracking_report

TRUTH = np.asarray([[10.0 + 12 * k, 10 + 5 * k, 20, 16] for k in range(8)])


def store(folder, entries=("one", "two"), *, benchmark="folder", split="", task="sot", predicted=TRUTH, **result):
    manifest = Manifest(
        "tracking",
        benchmark,
        split,
        "nano",
        task,
        words="description",
        mode="stream",
        protocols=("ope-lasot",),
        entries={name: len(TRUTH) for name in entries},
    )
    open_run(folder, manifest)
    fields = {"failures": {"lost": 2}, "parse_failures": {"bad label": 1}, "seconds": 0.5} | result
    for name in entries:
        write_result(folder, TrackResult(name, predicted, TRUTH, np.zeros(8, bool), (128, 96), **fields))


def rows(report, title):
    table = next(table for table in report.tables if table.title == title)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_every_figure_has_its_protocol_counts_and_baselines(tmp_path):
    store(tmp_path)
    report = tracking_report(tmp_path)
    assert report.facts["Protocol"] == "ope-lasot"
    assert report.facts["Recordings"] == "2 of 2"
    assert report.facts["Frames"] == "16"
    assert report.facts["Frames without a box"] == "4 (4: lost)"
    assert report.facts["Unparseable answers"] == "2 (2: bad label)"
    table = rows(report, "ope-lasot")
    assert list(table) == ["nano", "perfect", "rounded", "frozen", "centre"]
    assert table["nano"]["AUC"] == table["perfect"]["AUC"] == "95.24"
    assert float(table["frozen"]["AUC"]) < 40
    assert list(table["nano"]) == ["", "AUC", "P_norm@0.20", "P@20px", "AO", "SR@0.5", "SR@0.75"]


def test_the_released_scorer_only_stands_beside_a_right_one_and_says_what_it_is(tmp_path):
    store(tmp_path)
    report = tracking_report(tmp_path, ("elysium-ref",))
    assert [table.title for table in report.tables[:2]] == ["ope-lasot", "elysium-ref (not comparable)"]
    assert "not comparable" in report.facts["Protocol"]


def test_a_report_can_be_made_again_by_any_protocol_without_the_data(tmp_path):
    store(tmp_path)
    for name in PROTOCOLS:
        report = tracking_report(tmp_path, (name,))
        assert report.scores["protocols"][name]["perfect"]["success_75"] == 1.0


def test_missing_recordings_score_zero_and_are_listed(tmp_path):
    store(tmp_path)
    (tmp_path / "recordings/two.json").unlink()
    report = tracking_report(tmp_path)
    assert rows(report, "ope-lasot")["nano"]["AUC"] == "47.62"
    assert rows(report, "Recordings (ope-lasot)")["two"]["AUC"] == "0.00"
    assert any("1 of 2 recordings have no result and score 0: two" in warning for warning in report.warnings)


def test_a_part_of_a_benchmark_is_never_taken_for_the_whole(tmp_path):
    store(tmp_path, benchmark="lasot", split="test")
    assert any("2 of the benchmark's 280 recordings" in warning for warning in tracking_report(tmp_path).warnings)


def test_the_papers_figures_stand_beside_and_are_marked(tmp_path):
    store(tmp_path, benchmark="lasot", split="test")
    row = rows(tracking_report(tmp_path), "ope-lasot")["Elysium 7B, figure of the paper"]
    assert (row["AUC"], row["P_norm@0.20"], row["P@20px"], row["AO"]) == ("56.1", "61.0", "50.1", "-")


def test_a_run_in_another_mode_than_the_papers_says_so(tmp_path):
    store(tmp_path, benchmark="lasot", split="test")
    assert any("mode stream instead of clip" in warning for warning in tracking_report(tmp_path).warnings)


def test_a_protocol_without_the_papers_figures_has_no_rows_of_it(tmp_path):
    store(tmp_path, benchmark="lasot", split="test")
    assert not any("paper" in name for name in rows(tracking_report(tmp_path, ("ope-got10k",)), "ope-got10k"))


def test_a_model_near_the_frozen_box_is_told_so(tmp_path):
    store(tmp_path, predicted=np.tile(TRUTH[0], (8, 1)))
    assert any("a box that never moves" in warning for warning in tracking_report(tmp_path).warnings)


def test_truth_of_first_boxes_only_gives_files_for_the_server_and_no_scores(tmp_path):
    store(tmp_path, first_box_only=True, pixel_origin=1)
    report = tracking_report(tmp_path)
    assert not report.tables
    assert any("send boxes/*.txt to its server" in warning for warning in report.warnings)
    assert (tmp_path / "boxes/one.txt").read_text().splitlines()[0] == "11.000,11.000,20.000,16.000"


def test_a_folder_without_results(tmp_path):
    store(tmp_path, entries=())
    with pytest.raises(DataError, match="holds no result yet"):
        tracking_report(tmp_path)


class TestWriting:
    report = Report(
        title="a <b> & | c",
        facts={"Protocol": "x|y"},
        warnings=["mind the <gap>"],
        tables=[Table("T", ["", "AUC"], [["na|me", "1.0"], ["<script>alert(1)</script>", "2"]], ["a note"])],
        figures=["success.png"],
        scores={"protocols": {"x": {"auc": 0.5}}},
    )

    def test_markdown_escapes_names(self):
        text = as_markdown(self.report)
        assert r"| na\|me | 1.0 |" in text
        assert "<script" not in text.replace(r"\<script", "")
        assert "![success.png](success.png)" in text

    def test_terminal_lines_are_aligned(self):
        lines = list(as_lines(self.report))
        table = lines[lines.index("T") + 1 :][:3]
        assert {len(line) for line in table} == {max(map(len, table))}

    def test_files(self, tmp_path):
        names = [path.name for path in write_report(tmp_path, self.report)]
        assert names == ["report.md", "scores.json"]
        assert json.loads((tmp_path / "scores.json").read_text())["protocols"]["x"]["auc"] == 0.5


def test_plots_show_the_curves_the_protocol_defines(tmp_path):
    pytest.importorskip("matplotlib", reason="plots are part of the extra [eval]")
    from PIL import Image

    result = TrackResult("r", TRUTH, TRUTH, np.zeros(8, bool), (128, 96))
    for name, files in {
        "ope-lasot": ["success.png", "precision.png", "norm_precision.png"],
        "ope-otb": ["success.png", "precision.png"],
        "ope-got10k": ["success.png"],
    }.items():
        scores = score_benchmark([result], PROTOCOLS[name])
        assert draw_plots(tmp_path / name, PROTOCOLS[name], {"nano": scores, "frozen": scores}) == files
        pixels = np.asarray(Image.open(tmp_path / name / "success.png").convert("RGB")).reshape(-1, 3)
        assert (np.abs(pixels.astype(int) - (27, 108, 168)).sum(axis=1) < 30).any(), "the model's blue line"


def test_without_matplotlib_a_sentence_takes_the_place_of_the_plots(plots, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    store(tmp_path)
    report = tracking_report(tmp_path)
    assert not report.figures
    assert any("plots need matplotlib" in warning for warning in report.warnings)
