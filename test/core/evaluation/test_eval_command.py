"""``elysium eval`` end to end, in this process, on recordings made for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from elysium_core.cli import eval as eval_command
from elysium_core.cli.app import app
from elysium_core.tracking.clip import ClipTracker
from elysium_core.types import ModelInfo, TrackingConfig


@pytest.fixture
def elysium():
    def run(*arguments):
        return CliRunner().invoke(app, ["eval", *map(str, arguments)], catch_exceptions=False)

    return run


@pytest.fixture
def use_model(monkeypatch):
    """Make every name load this model."""

    def use(model):
        monkeypatch.setattr(eval_command, "load_model", lambda *arguments, **settings: model)
        return model

    return use


def test_one_command_from_recordings_to_a_report(elysium, make_recording, plots, tmp_path):
    pytest.importorskip("matplotlib", reason="plots are part of the extra [eval]")
    root = make_recording("a")
    make_recording("b")
    result = elysium("folder", "--data", root, "--model", "identity", "--out", tmp_path / "run")
    assert result.exit_code == 0
    assert "identity on own recordings, sot" in result.stdout
    assert "2 of 2" in result.stdout
    for name in (
        "report.md",
        "scores.json",
        "run.json",
        "recordings/a.json",
        "boxes/b.txt",
        "success.png",
    ):
        assert (tmp_path / "run" / name).is_file()
    scores = json.loads((tmp_path / "run/scores.json").read_text())["protocols"]["ope-lasot"]
    assert scores["identity"]["auc"] == scores["frozen"]["auc"] < scores["perfect"]["auc"]


def test_json_is_one_object_on_stdout(elysium, make_recording, tmp_path):
    result = elysium("folder", "--data", make_recording(), "--model", "identity", "--out", tmp_path / "run", "--json")
    assert json.loads(result.stdout)["facts"]["Frames"] == "6"
    again = elysium("report", tmp_path / "run", "--protocol", "ope-otb", "--protocol", "elysium-ref", "--json")
    assert list(json.loads(again.stdout)["protocols"]) == ["ope-otb", "elysium-ref"]


def test_a_stopped_run_goes_on_and_ends_with_the_same_scores(
    elysium, make_recording, use_model, scripted_model, tmp_path
):
    root, run = make_recording("a"), tmp_path / "run"
    make_recording("b")
    model = use_model(scripted_model(silent=(4,)))
    whole = elysium("folder", "--data", root, "--out", run, "--json")
    (run / "recordings/b.json").unlink()
    again = elysium("folder", "--data", root, "--out", run, "--json")
    assert len(model.trackers) == 3
    first, second = json.loads(whole.stdout), json.loads(again.stdout)
    assert first["protocols"] == second["protocols"]
    assert second["facts"]["Frames without a box"] == "2 (2: the answer held no box)"
    assert second["facts"]["Unparseable answers"] == "2 (2: no label)"


def test_processes_of_torchrun_share_the_work(elysium, make_recording, monkeypatch, tmp_path):
    run = tmp_path / "run"
    for name in "abc":
        root = make_recording(name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    outputs = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        outputs.append(elysium("folder", "--data", root, "--model", "identity", "--out", run))
        if rank == "1":
            assert [path.stem for path in (run / "recordings").iterdir()] == ["b"]
    assert "the others still have 2 entries to do" in outputs[0].stderr
    assert outputs[0].stdout == ""
    assert "3 of 3" in outputs[1].stdout


@pytest.mark.slow
def test_torchrun_itself_gives_the_scores_of_one_process(elysium, make_recording, tmp_path):
    for name in "abcde":
        root = make_recording(name)
    words = ["eval", "folder", "--data", str(root), "--model", "identity", "--json", "--out"]
    one = elysium(*words[1:], tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "elysium_core.cli", *words]
    several = subprocess.run([*launch, str(tmp_path / "two")], capture_output=True, text=True, timeout=300, check=True)
    # The process that is done last reports; both may be, and then both say the same.
    for line in several.stdout.splitlines():
        assert json.loads(line)["protocols"] == json.loads(one.stdout)["protocols"]
    assert several.stdout
    assert sorted(path.stem for path in (tmp_path / "two/recordings").iterdir()) == list("abcde")


def test_rsot_and_limit(elysium, make_recording, use_model, scripted_model, tmp_path):
    root = make_recording("a")
    make_recording("b", expression="another")
    model = use_model(scripted_model())
    result = elysium("folder", "--data", root, "--task", "rsot", "--limit", "1", "--out", tmp_path / "run", "--json")
    assert json.loads(result.stdout)["facts"]["Recordings"] == "1 of 1"
    assert [tracker.told for tracker in model.trackers] == [[("the white square", None)]]


@pytest.mark.parametrize(
    ("arguments", "threshold", "clip_length"),
    [
        (["--mode", "stream"], TrackingConfig().score_threshold, 32),
        (["--mode", "clip"], 0.0, 8),  # the paper takes every box, and cuts into clips of 8
        (["--mode", "clip", "--score-threshold", "0.5", "--clip-length", "16"], 0.5, 16),
    ],
)
def test_settings_of_the_tracker(
    elysium, make_recording, use_model, scripted_model, tmp_path, arguments, threshold, clip_length
):
    model, configs = use_model(scripted_model()), []
    model.info = ModelInfo("long", clip_length=32)
    make = model.tracker
    model.tracker = lambda mode, config: (configs.append(config), make())[1]
    elysium("folder", "--data", make_recording(), *arguments, "--out", tmp_path / "run")
    (config,) = configs
    assert (config.mode, config.score_threshold, config.clip_length) == (arguments[1], threshold, clip_length)
    assert (config.max_targets, config.remove_after_s) == (1, 0.0)
    asked = json.loads((tmp_path / "run/run.json").read_text())
    assert (asked["mode"], asked["clip_length"]) == (arguments[1], clip_length)


@pytest.mark.parametrize(("trained", "clips"), [(32, [8, 8, 8, 8, 5]), (8, [8, 8, 8, 8, 5]), (4, [4] * 10 + [3])])
def test_clips_are_the_papers_and_never_longer_than_those_of_training(
    elysium, make_recording, tiny_folder, monkeypatch, tmp_path, trained, clips
):
    """33 frames are cut into clips of 8 that share a frame, also where the last stage of training used clips of 32."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["elysium"]["clip_length"] = trained
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "SHA256SUMS").unlink()
    lengths, run_clip = [], ClipTracker._run_clip

    def run(tracker, length):
        lengths.append(length)
        return run_clip(tracker, length)

    monkeypatch.setattr(ClipTracker, "_run_clip", run)
    root = make_recording(frames=33)
    result = elysium("folder", "--data", root, "--model", folder, "--mode", "clip", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert lengths == clips


def test_two_clip_lengths_are_two_runs(elysium, make_recording, tmp_path):
    words = ["folder", "--data", make_recording(), "--model", "identity", "--mode", "clip", "--out", tmp_path / "run"]
    assert elysium(*words).exit_code == 0
    result = elysium(*words, "--clip-length", "4")
    assert result.exit_code == 2
    assert "holds a run with clip_length 8, not 4; choose another --out" in result.stderr


def test_results_lie_in_a_folder_that_names_what_is_unusual(elysium, make_recording, monkeypatch, tmp_path):
    root = make_recording()
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--mode", "clip", "--task", "rsot"]):
        assert elysium("folder", "--data", root, "--model", "identity", *words).exit_code == 0
    assert {path.name for path in (tmp_path / "runs/eval").iterdir()} == {
        "folder-sot-identity",
        "folder-rsot-clip-identity",
    }


def test_zoom_is_asked_of_the_tracker_and_told_in_the_report(
    elysium, make_recording, use_model, scripted_model, tmp_path
):
    model, configs = use_model(scripted_model()), []
    make = model.tracker
    model.tracker = lambda mode, config: (configs.append(config), make())[1]
    root = make_recording()
    result = elysium("folder", "--data", root, "--zoom", "--out", tmp_path / "run", "--json")
    assert [config.zoom for config in configs] == [True]
    assert "tracking mode stream with zoom" in json.loads(result.stdout)["facts"]["Task"]
    result = elysium("folder", "--data", root, "--out", tmp_path / "run")
    assert "holds a run with zoom True, not False; choose another --out" in result.stderr


def test_opencv_runs_in_the_same_harness(elysium, make_recording, tmp_path):
    result = elysium("folder", "--data", make_recording(), "--model", "opencv:MIL", "--out", tmp_path / "run", "--json")
    assert json.loads(result.stdout)["protocols"]["ope-lasot"]["opencv:MIL"]["frames"] == 6


def test_refcoco_questions_and_descriptions(elysium, make_recording, monkeypatch, tmp_path):
    # METEOR itself runs in test_language_tasks.
    monkeypatch.setattr(shutil, "which", lambda name: None)
    line = {"image": "a.png", "sent": "the mug", "bbox": [0, 0, 40, 40], "width": 40, "height": 40, "split": "val"}
    data = tmp_path / "language"
    data.mkdir()
    (data / "refcoco.jsonl").write_text(json.dumps(line) + "\n")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(data / "a.png")
    result = elysium("refcoco", "--data", data, "--model", "identity", "--out", tmp_path / "r1", "--json")
    assert json.loads(result.stdout)["identity"]["accuracy"] == 1.0

    (data / "test_qa.json").write_text(json.dumps([{"id": 1, "question": "q?", "answer": "a", "video_id": 3}]))
    frames = [Image.fromarray(np.full((40, 40, 3), 60 * k, np.uint8)) for k in range(3)]
    frames[0].save(data / "video3.gif", save_all=True, append_images=frames[1:])
    result = elysium("msrvtt-qa", "--data", data, "--model", "identity", "--out", tmp_path / "r2")
    assert result.exit_code == 0
    assert "1 answers are not judged" in result.stdout

    result = elysium(
        "folder", "--data", make_recording(), "--task", "video-reg", "--model", "identity", "--out", tmp_path / "r3"
    )
    assert result.exit_code == 0
    assert "1 of 1" in result.stdout
    assert "something at" in (tmp_path / "r3/answers-rank-0.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["vot"], "benchmark 'vot' is not one of folder, otb100"),
        (["folder", "--task", "mot"], "'mot' is not one of sot, rsot, video-reg"),
        (["folder", "--protocol", "vot"], "protocol 'vot' is not one of ope-lasot"),
        (["folder", "--mode", "live"], "mode 'live' is not one of stream, clip"),
        (["folder", "--clip-length", "99"], "clip_length = 99 is not a whole number in 2..32"),
        (["folder", "--mode", "clip", "--zoom"], "zoom needs mode 'stream', not 'clip'"),
        (["msvd-qa", "--zoom"], "zoom cannot be used with questions"),
        (["folder", "--model", "opencv:MIL", "--zoom"], "--zoom is not for models of other projects"),
        (["lasot", "--split", "val"], "LaSOT has no split 'val'"),
        (["folder", "--model", "opencv:X"], "ships no tracker 'X'"),
        (["folder", "--judge-url", "http://127.0.0.1:9", "--judge-model", "m"], "--judge-url is for question"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(elysium, make_recording, tmp_path, arguments, complaint):
    model = [] if "--model" in arguments else ["--model", "identity"]
    result = elysium(*arguments, "--data", make_recording(), "--out", tmp_path / "run", *model)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_set_needs_its_folder(elysium, tmp_path):
    for benchmark in ("folder", "refcoco", "msvd-qa"):
        result = elysium(benchmark, "--model", "identity", "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert f"benchmark '{benchmark}' needs --data" in result.stderr


def test_damaged_data_stop_the_run_before_a_model_is_loaded(elysium, make_recording, monkeypatch, tmp_path):
    root = make_recording()
    (root / "mug/gt.txt").write_text("1,2,3,4\n1,2\n")
    monkeypatch.setattr(eval_command, "load_model", lambda *arguments, **settings: pytest.fail("a model was loaded"))
    result = elysium("folder", "--data", root, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "line 2 of" in result.stderr
    assert not (tmp_path / "run").exists()


def test_another_run_is_never_mixed_in(elysium, make_recording, tmp_path):
    root = make_recording()
    elysium("folder", "--data", root, "--model", "identity", "--out", tmp_path / "run")
    result = elysium("folder", "--data", root, "--model", "identity", "--task", "rsot", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "holds a run with task 'sot', not 'rsot'; choose another --out" in result.stderr


def test_help_lists_both_verbs(elysium):
    assert elysium("--help").exit_code == 0
    assert "BENCHMARK" in elysium("run", "--help").stdout
    assert "DIR" in elysium("report", "--help").stdout
