"""Several trackers on the same recordings: one table, one plot, and a refusal where they were not the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from elysium_core.cli.app import app
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.report import write_report
from elysium_core.evaluation.results import TrackResult, write_result
from elysium_core.evaluation.run_folder import Manifest, open_run, run_folders_below
from elysium_core.evaluation.tracking_report import comparison_report, tracking_report

TRUTH = np.asarray([[10.0 + 12 * k, 10 + 5 * k, 20, 16] for k in range(8)])


@pytest.fixture
def store(tmp_path):
    """Write a run whose tracker is off by some pixels."""

    def _store(folder, model="nano", *, off=0.0, entries=("one", "two"), answered=None, truth=TRUTH, **manifest):
        fields = {"benchmark": "folder", "split": "", "task": "sot", "mode": "stream"} | manifest
        open_run(
            tmp_path / folder,
            Manifest(
                "tracking", model=model, protocols=("ope-lasot",), entries=dict.fromkeys(entries, len(TRUTH)), **fields
            ),
        )
        for name in entries if answered is None else answered:
            result = TrackResult(
                name, truth + np.asarray([off, 0, 0, 0]), truth, np.zeros(8, bool), (128, 96), seconds=0.5
            )
            write_result(tmp_path / folder, result)
        return tmp_path / folder

    return _store


def rows(report, number):
    table = report.tables[number]
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_one_table_holds_every_tracker_and_the_baselines(store, tmp_path):
    folders = [store("a", "nano", off=3), store("b", "opencv:MIL", off=60)]
    report = comparison_report(folders, tmp_path / "out")
    table = rows(report, 0)
    assert list(table) == ["nano", "opencv:MIL", "perfect", "rounded", "frozen", "centre"]
    assert table["perfect"]["AUC"] == "95.24"
    assert float(table["nano"]["AUC"]) > float(table["opencv:MIL"]["AUC"])
    assert report.scores["protocols"]["ope-lasot"]["nano"]["precision"] == 1.0
    (warning,) = report.warnings
    assert warning.startswith("The average overlap of opencv:MIL, 12.50, is not clearly above that of a box that never")
    each = rows(report, 1)
    assert list(each["one"]) == ["recording", "frames", "nano", "opencv:MIL", "frozen"]
    assert each["one"]["nano"] == table["nano"]["AUC"]
    runs = rows(report, 2)
    assert runs["nano"]["frames/s"] == "16.0"
    assert "every box counts" in report.tables[2].notes[1], "a peer has no threshold"


def test_figures_are_those_of_the_single_reports(store, tmp_path):
    folders = [store("a", "nano", off=3, answered=("one",)), store("b", "x", off=7)]
    for protocol in ("ope-lasot", "ope-got10k", "elysium-ref"):
        both = comparison_report(folders, tmp_path / "out", (protocol,)).scores["protocols"][protocol]
        for folder, name in zip(folders, ("nano", "x"), strict=True):
            assert both[name] == tracking_report(folder, (protocol,)).scores["protocols"][protocol][name]


def test_a_recording_without_a_result_scores_zero_and_is_named(store, tmp_path):
    report = comparison_report([store("a"), store("b", "x", answered=("one",))], tmp_path / "out")
    assert rows(report, 0)["x"]["AUC"] == "47.62"
    assert rows(report, 1)["two"]["x"] == "0.00"
    assert any("x has no result for 1 of 2 recordings" in warning for warning in report.warnings)


def test_runs_of_one_model_are_told_apart(store, tmp_path):
    report = comparison_report([store("a"), store("b", mode="clip"), store("c", "x")], tmp_path / "out")
    assert list(rows(report, 0))[:3] == ["nano (stream)", "nano (clip)", "x"]
    report = comparison_report([store("d"), store("e"), store("f", "perfect", task="rsot")], tmp_path / "out")
    assert list(rows(report, 0))[:4] == ["nano (d)", "nano (e)", "model perfect", "perfect"]
    assert any("only words" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"benchmark": "lasot"}, "has benchmark 'lasot', but .*'folder'"),
        ({"split": "x"}, "has split 'x'"),
        ({"entries": ("one",)}, "has number of recordings 1"),
        ({"entries": ("one", "three")}, "recording 'two' is not the same"),
        ({"truth": TRUTH + 1}, "the truth of 'one' changed"),
    ],
)
def test_other_recordings_are_refused(store, tmp_path, other, complaint):
    with pytest.raises(ConfigError, match=complaint):
        comparison_report([store("a"), store("b", "x", **other)], tmp_path / "out")


def test_runs_that_cannot_be_compared(store, tmp_path):
    with pytest.raises(DataError, match="holds no result yet"):
        comparison_report([store("a"), store("b", "x", answered=())], tmp_path / "out")
    open_run(tmp_path / "c", Manifest("grounding", "refcoco", "val", "m", "rec"))
    with pytest.raises(ConfigError, match="of kind grounding; only tracking runs are compared"):
        comparison_report([store("a"), tmp_path / "c"], tmp_path / "out")


def test_plots_draw_every_tracker_in_its_own_colour(store, plots, tmp_path):
    pytest.importorskip("matplotlib", reason="plots are part of the extra [eval]")
    from PIL import Image

    report = comparison_report([store("a", off=3), store("b", "x", off=9)], tmp_path / "out")
    write_report(tmp_path / "out", report)
    assert "![success.png](success.png)" in (tmp_path / "out/report.md").read_text()
    pixels = np.asarray(Image.open(tmp_path / "out/success.png").convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((27, 108, 168), (204, 51, 17)):
        assert (np.abs(pixels - colour).sum(axis=1) < 30).any()


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["eval", *map(str, arguments)], catch_exceptions=False)

    def test_one_command_compares_models_on_own_recordings(self, make_recording, tmp_path):
        data, out = make_recording(), tmp_path / "run"
        result = self.run("folder", "--data", data, "-m", "identity", "-m", "opencv:MIL", "--out", out, "--json")
        assert result.exit_code == 0, result.output
        scores = json.loads(result.stdout)["protocols"]["ope-lasot"]
        assert list(scores)[:2] == ["identity", "opencv:MIL"]
        assert (out / "opencv_MIL/recordings/mug.json").is_file()
        assert [folder.name for folder in run_folders_below(out)] == ["identity", "opencv_MIL"]
        again = self.run("report", out, "--protocol", "ope-otb", "--json")
        assert list(json.loads(again.stdout)["protocols"]["ope-otb"])[:2] == ["identity", "opencv:MIL"]
        assert (out / "report.md").is_file()

    def test_folders_of_earlier_runs_are_compared(self, store, tmp_path):
        folders = [store("a"), store("b", "x")]
        result = self.run("report", *folders)
        assert result.exit_code == 0, result.output
        assert "nano, x on own recordings" in result.stdout
        assert (tmp_path / "comparison/report.md").is_file()

    def test_a_folder_without_runs_is_one_sentence(self, tmp_path):
        result = self.run("report", tmp_path)
        assert result.exit_code == 2
        assert "holds no run.json" in result.stderr

    def test_language_benchmarks_are_reported_model_by_model(self, tmp_path):
        from PIL import Image

        line = {"image": "a.png", "sent": "x", "bbox": [0, 0, 40, 40], "width": 40, "height": 40, "split": "val"}
        (tmp_path / "refcoco.jsonl").write_text(json.dumps(line) + "\n")
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        out = tmp_path / "run"
        assert self.run("refcoco", "--data", tmp_path, "-m", "identity", "--out", out / "a").exit_code == 0
        assert self.run("refcoco", "--data", tmp_path, "-m", "identity", "--out", out / "b").exit_code == 0
        result = self.run("report", out, "--json")
        assert [json.loads(text)["identity"]["sentences"] for text in result.stdout.splitlines()] == [1, 1]
