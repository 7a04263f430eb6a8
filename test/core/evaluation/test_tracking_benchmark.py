"""Running a tracker over recordings: what it is told, what is written down, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers import folder
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.frame_sources import VideoFrames
from elysium_core.errors import ConfigError, DataError, ExpressionError
from elysium_core.evaluation.benchmark import EvalRequest
from elysium_core.evaluation.benchmarks import prepare
from elysium_core.evaluation.protocols import PROTOCOLS
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_result
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.evaluation.scoring import run_baseline, score_recording
from elysium_core.evaluation.track_recording import TrackingTask, track_recording
from elysium_core.geometry import Box
from elysium_core.types import ModelInfo


def track(root, tracker, **task):
    return track_recording(next(read_folder(root)), tracker, TrackingTask(**task))


def execute(root, model, run_folder, **request):
    """Run a model over the recordings; return the names of all that were answered, now or before."""
    return list(prepare(EvalRequest("folder", root, **request)).execute(model, "scripted", run_folder))


def test_sot_tells_the_first_true_box_and_nothing_else(make_recording, scripted_tracker):
    tracker = scripted_tracker()
    result = track(make_recording(), tracker)
    assert tracker.told == [("", Box.from_xywh_px(4, 10, 16, 20, 64, 48))]
    assert result.first_box_given
    assert result.frame_size == (64, 48)
    assert np.allclose(result.predicted_xywh_px, result.truth_xywh_px)


def test_rsot_tells_the_words_and_never_a_box(make_recording, scripted_tracker):
    tracker = scripted_tracker()
    result = track(make_recording(), tracker, task="rsot")
    assert tracker.told == [("the white square", None)]
    assert not result.first_box_given
    assert result.expression == "the white square"


def test_frames_without_a_box_are_nan_with_their_reason(make_recording, scripted_tracker):
    result = track(make_recording(), scripted_tracker(silent=(2, 3)))
    assert np.flatnonzero(np.isnan(result.predicted_xywh_px).any(axis=1)).tolist() == [2, 3]
    assert result.failures == {"the answer held no box": 2}
    assert result.parse_failures == {"no label": 2}


def test_answers_held_back_to_the_end_reach_their_own_frames(make_recording, scripted_tracker):
    result = track(make_recording(), scripted_tracker(hold_back=True))
    assert np.allclose(result.predicted_xywh_px, result.truth_xywh_px)


def test_a_silent_tracker_is_noticed(make_recording, scripted_tracker):
    tracker = scripted_tracker()
    tracker.step = lambda frame: []
    assert track(make_recording(), tracker).failures == {"the tracker gave no answer for this frame": 6}


@pytest.mark.parametrize(("kept", "complaint"), [(5, "more frames than"), (7, "fewer frames than")])
def test_a_video_of_another_length_than_its_truth_is_refused(
    make_recording, scripted_tracker, monkeypatch, kept, complaint
):
    root = make_recording()
    truth = root / "mug/gt.txt"
    truth.write_text("\n".join((truth.read_text().split() * 2)[:kept]))
    # A folder read as a video: like one, it tells its length only at its end.
    monkeypatch.setattr(folder, "_frames", lambda path: VideoFrames(path / "frames"))
    recording = next(read_folder(root))
    with pytest.raises(DataError, match=rf"decodes to {complaint} .*gt\.txt' has boxes \({kept}\)"):
        track_recording(recording, scripted_tracker(), TrackingTask())


def test_tasks_that_the_data_cannot_pose_are_refused(make_recording, scripted_tracker):
    root = make_recording(expression="", absent=(0,))
    with pytest.raises(DataError, match=r"first line of .*gt\.txt' has no box for 'mug'"):
        track(root, scripted_tracker())
    with pytest.raises(DataError, match="no words that name its target"):
        track(root, scripted_tracker(), task="rsot")
    with pytest.raises(ConfigError, match="'mot' is not one of sot, rsot"):
        TrackingTask("mot")
    with pytest.raises(ConfigError, match="words 'name' are not"):
        TrackingTask("rsot", "name")


def test_finished_recordings_are_not_tracked_again(make_recording, scripted_model, tmp_path):
    root = make_recording("a")
    make_recording("b")
    model = scripted_model()
    first = execute(root, model, tmp_path / "run")
    result_path(tmp_path / "run", "b").unlink()
    assert first == execute(root, model, tmp_path / "run") == ["a", "b"]
    assert len(model.trackers) == 3
    assert result_path(tmp_path / "run", "b").is_file()


def test_an_answer_that_was_measured_against_other_boxes_is_not_used(make_recording, scripted_model, tmp_path):
    root = make_recording("a")
    execute(root, scripted_model(), tmp_path / "run")
    truth = root / "a/gt.txt"
    truth.write_text(truth.read_text().replace("4,10,16,20", "4,10,17,20"))
    with pytest.raises(DataError, match=r"a\.json.*gt\.txt.*delete it"):
        execute(root, scripted_model(), tmp_path / "run")


def test_a_stopped_recording_leaves_no_file(make_recording, scripted_model, scripted_tracker, tmp_path):
    class Broken(scripted_tracker):
        def step(self, frame):
            if frame.index == 3:
                raise KeyboardInterrupt
            return super().step(frame)

    model = scripted_model()
    model.tracker = lambda mode, config: Broken()
    with pytest.raises(KeyboardInterrupt):
        execute(make_recording(), model, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").rglob("*.*")] == ["run.json"]


class TestResultFiles:
    def result(self, **changes):
        truth = np.asarray([[1.5, 2, 3, 4], [np.nan] * 4])
        predicted = np.asarray([[np.nan] * 4, [0, 0, 1.23456, 1]])
        fields = {"frame_size": (64, 48), "failures": {"lost": 1}, "expression": "café", "seconds": 0.25} | changes
        return TrackResult("a/b: c", predicted, truth, np.asarray([False, True]), **fields)

    def test_a_file_holds_everything_that_scoring_needs(self, tmp_path):
        write_result(tmp_path, self.result(pixel_origin=1))
        again = read_result(result_path(tmp_path, "a/b: c"))
        assert np.array_equal(again.truth_xywh_px, self.result().truth_xywh_px, equal_nan=True)
        assert again.predicted_xywh_px[1].tolist() == [0, 0, 1.235, 1]
        assert (again.name, again.pixel_origin, again.unanswered) == ("a/b: c", 1, 1)
        assert again.failures == {"lost": 1}
        assert again.absent.tolist() == [False, True]

    def test_it_is_plain_json_without_nan(self, tmp_path):
        write_result(tmp_path, self.result())
        content = json.loads(result_path(tmp_path, "a/b: c").read_text(), parse_constant=pytest.fail)
        assert content["truth_xywh_px"] == [[1.5, 2.0, 3.0, 4.0], None]

    @pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "a\\b", "", "CON:", "x" * 60])
    def test_no_name_leads_out_of_the_folder(self, tmp_path, name):
        assert result_path(tmp_path, name).resolve().parent == (tmp_path / "recordings").resolve()

    @pytest.mark.parametrize("damage", ["", "{}", "[]", '{"name": 1}', "null"])
    def test_a_damaged_file_is_named(self, tmp_path, damage):
        path = tmp_path / "x.json"
        path.write_text(damage)
        with pytest.raises(DataError, match=r"x\.json' cannot be read .* delete it and run again"):
            read_result(path)


def test_words_that_a_model_refuses_are_its_failure_and_do_not_stop_the_run(make_recording, scripted_tracker):
    class Refusing(scripted_tracker):
        def add(self, expression="", box=None):
            raise ExpressionError("this model knows no 'white square'", code="EXPR_UNKNOWN")

    result = track(make_recording(), Refusing(), task="rsot")
    assert result.unanswered == 6
    assert result.failures == {"the model refuses the words (EXPR_UNKNOWN)": 6}


@pytest.mark.parametrize(
    ("mode", "trained", "asked", "used"),
    [
        ("clip", 32, None, 8),  # the paper's clips, whatever the last stage of training used
        ("clip", 8, None, 8),
        ("clip", 4, None, 4),  # never more than the model has seen
        ("clip", 32, 16, 16),
        ("clip", 4, 8, 8),
        ("stream", 32, None, 32),
        ("stream", 4, None, 4),
        ("stream", 4, 8, 8),
    ],
)
def test_clips_of_the_protocol_and_of_the_training_are_two_settings(
    make_recording, scripted_model, tmp_path, mode, trained, asked, used
):
    model, configs = scripted_model(), []
    model.info, make = ModelInfo("m", clip_length=trained), model.tracker
    model.tracker = lambda mode, config: (configs.append(config), make())[1]
    execute(make_recording(), model, tmp_path / "run", mode=mode, clip_length=asked)
    assert [config.clip_length for config in configs] == [used]
    assert read_manifest(tmp_path / "run").clip_length == used


@pytest.mark.parametrize("task", ["sot", "rsot"])
def test_boxes_are_in_pixels_of_their_own_picture(make_recording, scripted_tracker, tmp_path, task):
    root = make_recording()
    for index in (3, 4, 5):
        path = root / "mug/frames" / f"{index}.png"
        with Image.open(path) as picture:
            picture.resize((128, 96)).save(path)
    lines = (root / "mug/gt.txt").read_text().splitlines()
    lines[3:] = [",".join(str(2 * int(value)) for value in line.split(",")) for line in lines[3:]]
    (root / "mug/gt.txt").write_text("\n".join(lines))
    result = track(root, scripted_tracker(), task=task)
    assert np.allclose(result.predicted_xywh_px, result.truth_xywh_px)
    assert result.sizes.tolist() == [[64, 48]] * 3 + [[128, 96]] * 3
    for protocol in PROTOCOLS.values():
        scores = score_recording(result, protocol)
        perfect = score_recording(result.with_predictions(result.truth_xywh_px), protocol)
        assert scores.success.tolist() == perfect.success.tolist()
    write_result(tmp_path, result)
    again = read_result(result_path(tmp_path, result.name))
    assert again.sizes.tolist() == result.sizes.tolist()
    assert run_baseline("centre", [again])[0].predicted_xywh_px[-1].tolist() == [32, 24, 64, 48]


def test_boxes_of_another_unit_do_not_start_a_track(make_recording, scripted_tracker):
    root = make_recording()
    source = next(read_folder(root))
    wrong = replace(source, boxes_xywh_px=source.boxes_xywh_px * 10)
    with pytest.raises(DataError, match="64x48 px"):
        track_recording(wrong, scripted_tracker(), TrackingTask())


@pytest.mark.parametrize(
    "name",
    ["厨房里的机器人正在寻找红色杯子并把它递给坐在桌边的老人第一段", "a" * 255, "🦊" * 60, "mug", "a/b %", "\udce4"],
)
def test_any_name_of_a_folder_is_a_file_name(tmp_path, name):
    names = [name, name[:-1] + "x"]
    paths = {result_path(tmp_path, each) for each in names}
    assert len(paths) == 2
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        assert len(os.fsencode(path.name)) <= 255
