"""Running a tracker over recordings: what it is told, what is written down, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from elysium_core.data.readers import folder
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.frame_sources import VideoFrames
from elysium_core.errors import ConfigError, DataError, ExpressionError
from elysium_core.evaluation.metrics import Ranks
from elysium_core.evaluation.results import TrackResult, read_result, result_path, write_result
from elysium_core.evaluation.run_folder import Manifest, open_run, read_manifest
from elysium_core.evaluation.tracking_run import TrackingTask, run_recordings, track_recording
from elysium_core.geometry import Box


def track(root, tracker, **task):
    return track_recording(next(read_folder(root)), tracker, TrackingTask(**task))


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
    assert track(make_recording(), tracker).failures == {"the tracker said nothing about this frame": 6}


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
    first = list(run_recordings(read_folder(root), model.tracker, TrackingTask(), tmp_path / "run"))
    result_path(tmp_path / "run", "b").unlink()
    again = list(run_recordings(read_folder(root), model.tracker, TrackingTask(), tmp_path / "run"))
    assert [r.name for r in first] == ["a", "b"]
    assert [None if r is None else r.name for r in again] == [None, "b"]
    assert len(model.trackers) == 3


def test_an_answer_that_was_measured_against_other_boxes_is_not_used(make_recording, scripted_model, tmp_path):
    root = make_recording("a")
    list(run_recordings(read_folder(root), scripted_model().tracker, TrackingTask(), tmp_path / "run"))
    for recording in read_folder(root):
        recording.boxes_xywh_px[0, 2] += 1
        with pytest.raises(DataError, match=r"measured against other boxes .* delete it"):
            list(run_recordings(iter([recording]), scripted_model().tracker, TrackingTask(), tmp_path / "run"))


def test_a_stopped_recording_leaves_no_file(make_recording, scripted_tracker, tmp_path):
    class Broken(scripted_tracker):
        def step(self, frame):
            if frame.index == 3:
                raise KeyboardInterrupt
            return super().step(frame)

    with pytest.raises(KeyboardInterrupt):
        list(run_recordings(read_folder(make_recording()), Broken, TrackingTask(), tmp_path / "run"))
    assert not list(tmp_path.glob("run/**/*.*"))


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


class TestRunFolder:
    manifest = Manifest("tracking", "folder", "", "nano", "sot", mode="stream", entries={"a": 3})

    def test_it_goes_on_with_the_same_run(self, tmp_path):
        open_run(tmp_path, self.manifest)
        more = Manifest("tracking", "folder", "", "nano", "sot", mode="stream", limit=2, entries={"a": 3, "b": 4})
        open_run(tmp_path, more)
        assert read_manifest(tmp_path).entries == {"a": 3, "b": 4}

    @pytest.mark.parametrize("changes", [{"model": "identity"}, {"task": "rsot"}, {"mode": "clip"}, {"split": "val"}])
    def test_it_refuses_to_mix_two_runs(self, tmp_path, changes):
        open_run(tmp_path, self.manifest)
        ((name, value),) = changes.items()
        fields = {"kind": "tracking", "benchmark": "folder", "split": "", "model": "nano", "task": "sot"}
        with pytest.raises(ConfigError, match=rf"with {name} .*, not {value!r}; choose another --out"):
            open_run(tmp_path, Manifest(**({"mode": "stream"} | fields | changes)))

    @pytest.mark.parametrize("changed", ["backend", "precision", "weights"])
    def test_it_refuses_answers_of_another_model_of_the_same_name(self, tmp_path, changed):
        device = {"name": "nano", "device": "cpu", "backend": "torch", "precision": "float32", "weights": "abc"}
        open_run(tmp_path, replace(self.manifest, device=device))
        open_run(tmp_path, replace(self.manifest, device=device | {"device": "cuda:0"}))
        with pytest.raises(ConfigError, match=f"holds a run with {changed} '{device[changed]}', not 'other'"):
            open_run(tmp_path, replace(self.manifest, device=device | {changed: "other"}))

    def test_it_refuses_another_number_of_frames(self, tmp_path):
        open_run(tmp_path, replace(self.manifest, frames=8))
        with pytest.raises(ConfigError, match="with frames 8, not 4"):
            open_run(tmp_path, replace(self.manifest, frames=4))

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(DataError, match=r"holds no run\.json"):
            read_manifest(tmp_path)
        (tmp_path / "run.json").write_text('{"kind": 1}')
        with pytest.raises(DataError, match="cannot be read"):
            read_manifest(tmp_path)


class TestRanks:
    def test_shares_are_disjoint_and_complete(self):
        shares = [list(Ranks(rank, 3).share(range(10))) for rank in range(3)]
        assert sorted(item for share in shares for item in share) == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_torchrun_tells_which_one_this_is(self, monkeypatch):
        assert Ranks.from_environment() == Ranks(0, 1, 0)
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert Ranks.from_environment() == Ranks(3, 4, 1)

    @pytest.mark.parametrize(("rank", "world"), [("4", "4"), ("-1", "2"), ("x", "2"), ("0", "0")])
    def test_nonsense_is_refused(self, monkeypatch, rank, world):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(ConfigError, match=f"RANK={rank}, WORLD_SIZE={world}"):
            Ranks.from_environment()

    def test_each_process_gets_its_own_gpu(self, monkeypatch):
        monkeypatch.setattr("elysium_core.evaluation.metrics._has_cuda", lambda: True)
        assert Ranks(3, 4, 1).device("auto") == "cuda:1"
        assert Ranks(3, 4, 1).device("cpu") == "cpu"
        assert Ranks().device("auto") == "auto"


def test_words_that_a_model_refuses_are_its_failure_and_do_not_stop_the_run(make_recording, scripted_tracker):
    class Refusing(scripted_tracker):
        def add(self, expression="", box=None):
            raise ExpressionError("this model knows no 'white square'", code="EXPR_UNKNOWN")

    result = track(make_recording(), Refusing(), task="rsot")
    assert result.unanswered == 6
    assert result.failures == {"the model refuses the words (EXPR_UNKNOWN)": 6}
