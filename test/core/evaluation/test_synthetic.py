from __future__ import annotations

import numpy as np
import pytest

from elysium_core.data.synthetic import testset
from elysium_core.data.synthetic.expressions import description, references
from elysium_core.errors import ConfigError, DataError, ExpressionError
from elysium_core.evaluation.answer_log import read_answers
from elysium_core.evaluation.benchmark import EvalRequest
from elysium_core.evaluation.benchmarks import make_report, prepare
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.run_folder import read_manifest
from elysium_core.evaluation.synthetic_benchmark import STILL_FRAMES, answer_clip
from elysium_core.evaluation.synthetic_scores import (
    is_name,
    nearest,
    score_absence,
    score_all,
    score_stills,
    score_tracks,
    score_video_reg,
    score_words,
)
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import Grounding, ModelInfo, TrackingConfig, TrackState, TrackUpdate

LEFT, RIGHT = [0.1, 0.4, 0.3, 0.6], [0.6, 0.4, 0.9, 0.7]
FRAMES = 12


def record(**answers) -> dict:
    """A clip of 12 frames: a cup on the left, a key on the right, both standing still."""
    truth = {"part": "test", "names": ["cup", "key"], "boxes": [[LEFT] * FRAMES, [RIGHT] * FRAMES]}
    return truth | {"visible": [[1.0] * FRAMES] * 2} | answers


def track(box, *, task="sot", target=0, states=None) -> dict:
    states = states or ["TRACKED"] * FRAMES
    return {
        "task": task,
        "target": target,
        "boxes": [box] * FRAMES,
        "states": states,
        "scores": [1.0] * FRAMES,
        "seconds": 1.0,
    }


class KnowingModel(IdentityModel):
    """Knows where everything is, because it is told the clip that it is asked about."""

    def __init__(self, sample) -> None:
        self.clip = sample.clip

    def meant(self, words: str, frame: int) -> int | None:
        """The object that words mean in a frame."""
        objects = range(len(self.clip.names))
        said = [[r.text for r in references(self.clip, n, frame)] for n in objects]
        return next((n for n in objects if words in said[n] or words == f"the {self.clip.names[n]}"), None)

    def box(self, target: int, frame: int) -> Box:
        return Box(*map(float, self.clip.boxes[target, frame]))

    def ground(self, image, expression, *, zoom=False):
        return Grounding(self.box(self.meant(expression, image.index), image.index), 1.0)

    def describe(self, frames, box, frame_index=0, *, zoom=False):
        frame = frames if isinstance(frames, Frame) else frames[frame_index]
        return description(self.clip, nearest(list(box), self.clip.boxes[:, frame.index].astype(float)))

    def tracker(self, mode="stream", config=None):
        return KnowingTracker(self)


class KnowingTracker:
    def __init__(self, model: KnowingModel) -> None:
        self._model = model
        self._target: int | None = None

    def add(self, expression="", box=None):
        first = self._model.clip.boxes[:, 0].astype(float)
        self._target = self._model.meant(expression, 0) if expression else nearest(list(box), first)
        return "1"

    def step(self, frame):
        if self._target is None or not self._model.clip.boxes[self._target, frame.index].any():
            return [TrackUpdate("1", frame.index, None, 0.0, TrackState.LOST)]
        return [TrackUpdate("1", frame.index, self._model.box(self._target, frame.index), 1.0, TrackState.TRACKED)]

    def flush(self):
        return []


CONFIG = TrackingConfig(max_targets=1)


def execute(model, folder, limit=1, ranks=None, **request):
    """Run a model over the test set, clip by clip."""
    return prepare(EvalRequest("synthetic", limit=limit, **request), ranks).execute(model, "identity", folder)


class TestAnswers:
    @pytest.mark.parametrize("part", testset.PARTS, ids=lambda part: part.name)
    def test_a_model_that_knows_everything_gets_full_marks(self, part):
        sample = part.draw(2)
        scores = score_all([answer_clip(part, 2, KnowingModel(sample), CONFIG)])
        for figures in scores.values():
            for name, by in figures.items():
                # Overlap must exceed 21 thresholds, the last of which is 1.
                assert by["model"]["all"] == pytest.approx(20 / 21 if "AUC" in name else 1.0), name
        assert ("gone later" in scores["absence"]) == (part is testset.VANISHING)
        assert ("RSOT AUC" in scores["test"]) == (part is testset.TEST)
        assert {"RSOT AUC", "REC Acc@0.5", "absent from the start"} <= scores[
            "small"
        ].keys() or part is not testset.SMALL
        assert ("RSOT AUC" in scores["words"]) == (part is testset.WORDS)

    def test_stills_ask_about_what_is_well_seen(self):
        sample = testset.TEST.draw(3)
        stills = answer_clip(testset.TEST, 3, IdentityModel(), CONFIG)["stills"]
        expected = [(f, n) for f in STILL_FRAMES for n in range(4) if sample.clip.visible[n, f] >= 0.55]
        assert [(still["frame"], still["target"]) for still in stills] == expected

    def test_words_that_a_model_refuses_are_wrong_answers(self):
        class Refusing(IdentityModel):
            def ground(self, image, expression, *, zoom=False):
                raise ExpressionError("never heard of it")

            def tracker(self, mode="stream", config=None):
                tracker = super().tracker(mode, config)
                add = tracker.add

                def refuse(expression="", box=None):
                    if expression:
                        raise ExpressionError("never heard of it")
                    return add(box=box)

                tracker.add = refuse
                return tracker

        scores = score_all([answer_clip(testset.TEST, 0, Refusing(), CONFIG)])
        assert scores["test"]["REC Acc@0.5"]["model"]["all"] == 0
        assert scores["test"]["RSOT AUC"]["model"]["all"] == 0
        assert scores["test"]["SOT AUC"]["model"]["all"] > 0
        assert scores["absence"]["absent from the start"]["model"]["all"] == 1

    def test_the_absent_name_is_not_in_the_clip(self):
        asked = []

        class Listening(IdentityModel):
            def tracker(self, mode="stream", config=None):
                tracker = super().tracker(mode, config)
                add = tracker.add
                tracker.add = lambda expression="", box=None: (asked.append(expression), add(expression, box))[1]
                return tracker

        sample = testset.TEST.draw(1)
        answer_clip(testset.TEST, 1, Listening(), CONFIG)
        absent = [words for words in asked if words and words.removeprefix("the ") not in sample.clip.names]
        assert len(absent) == 1
        assert absent[0].removeprefix("the ") in testset.TEST.names


class TestRun:
    @pytest.fixture
    def two_clips(self, monkeypatch):
        monkeypatch.setattr(testset, "PARTS", (testset.TEST, testset.VANISHING))

    def test_a_run_goes_on_where_it_was(self, two_clips, tmp_path, monkeypatch):
        run = execute(IdentityModel(), tmp_path)
        assert next(run) == "test-0000"
        run.close()
        drawn = []
        draw = testset.FrozenPart.draw
        monkeypatch.setattr(
            testset.FrozenPart, "draw", lambda part, i: (drawn.append(part.clip_name(i)), draw(part, i))[1]
        )
        assert list(execute(IdentityModel(), tmp_path)) == [
            "test-0000",
            "test-vanishing-0000",
        ]
        assert drawn == ["test-vanishing-0000"]
        assert set(read_answers(tmp_path, "answers")) == {"test-0000", "test-vanishing-0000"}
        report = make_report(tmp_path)
        assert report.facts["Clips"] == "2 of 2 (at most 1 of each part)"
        assert len(report.tables) == 2

    def test_a_run_with_closer_looks_asks_for_them_in_all_it_does(self, two_clips, tmp_path):
        asked = []

        class Listening(IdentityModel):
            def ground(self, image, expression, *, zoom=False):
                asked.append(("ground", zoom))
                return super().ground(image, expression)

            def describe(self, frames, box, frame_index=0, *, zoom=False):
                asked.append(("describe", zoom))
                return super().describe(frames, box, frame_index)

            def tracker(self, mode="stream", config=None):
                asked.append(("tracker", config.zoom))
                return super().tracker(mode, config)

        assert len(list(execute(Listening(), tmp_path, zoom=True))) == 2
        assert set(asked) == {("ground", True), ("describe", True), ("tracker", True)}
        assert make_report(tmp_path).facts["Protocol"].startswith("greedy, stream mode, with zoom;")
        with pytest.raises(ConfigError, match="zoom True, not False"):
            list(execute(Listening(), tmp_path))

    def test_without_an_answer_there_is_no_report(self, two_clips, tmp_path):
        run = execute(IdentityModel(), tmp_path)
        next(run)
        run.close()
        (tmp_path / "answers-rank-0.jsonl").unlink()
        with pytest.raises(DataError, match="no answer yet"):
            make_report(tmp_path)

    def test_all_clips_are_named_once(self):
        entries = prepare(EvalRequest("synthetic")).entries
        assert len(entries) == 520
        assert set(entries.values()) == {30}
        assert len(prepare(EvalRequest("synthetic", limit=5)).entries) == 25

    def test_processes_share_the_clips(self, two_clips, tmp_path):
        shares = [list(execute(IdentityModel(), tmp_path, ranks=Ranks(rank, 2))) for rank in (0, 1)]
        assert shares == [["test-0000"], ["test-vanishing-0000"]]
        assert make_report(tmp_path).facts["Clips"].startswith("2 of 2")

    @pytest.mark.parametrize(("asked", "used"), [(None, 4), (6, 6)])
    def test_the_model_is_given_clips_of_its_own_length(self, two_clips, tmp_path, asked, used):
        configs, shown = [], []

        class Short(IdentityModel):
            info = ModelInfo("short", clip_length=4)

            def tracker(self, mode="stream", config=None):
                configs.append(config)
                return super().tracker(mode, config)

            def describe(self, frames, box, frame_index=0, *, zoom=False):
                shown.append(len(frames))
                return super().describe(frames, box, frame_index)

        list(execute(Short(), tmp_path, clip_length=asked))
        assert {config.clip_length for config in configs} == {used}
        assert set(shown) == {1, 4}, "single pictures, and for Video-REG as many as the model was trained with"
        assert read_manifest(tmp_path).clip_length == used

    def test_the_command_prints_and_writes_the_figures(self, two_clips, tmp_path):
        from typer.testing import CliRunner

        from elysium_core.cli.app import app

        arguments = ["eval", "synthetic", "--model", "identity", "--limit", "1", "--out", str(tmp_path / "run")]
        outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert outcome.exit_code == 0
        assert "SOT AUC, copied first box" in outcome.stdout
        assert (tmp_path / "run" / "scores.json").is_file()
        assert "REC Acc@0.5" in (tmp_path / "run" / "report.md").read_text()


class TestStills:
    @pytest.mark.parametrize(
        ("box", "accuracy", "right"), [(LEFT, 1, 1), (RIGHT, 0, 0), ([0.1, 0.4, 0.2, 0.5], 0, 1), (None, 0, 0)]
    )
    def test_overlap_and_choice_are_judged_apart(self, box, accuracy, right):
        still = {"frame": 0, "target": 0, "box": box, "answer": "the key"}
        figures = score_stills([record(stills=[still])])
        assert figures["REC Acc@0.5"]["model"] == {"2": accuracy, "all": accuracy}
        assert figures["REC right object"]["model"] == {"2": right, "all": right}
        assert figures["REC Acc@0.5"]["random object"]["all"] == 0.5
        assert figures["REG exact name"]["model"]["all"] == 0

    @pytest.mark.parametrize(
        ("answer", "name", "same"),
        [
            ("the cup", "cup", True),
            ("Cup.", "cup", True),
            ("the teddy bear", "teddy bear", True),
            ("the bear", "teddy bear", False),
            ("", "cup", False),
            ("the red cup", "cup", True),
            ("the blue cup", "cup", False),
            ("red", "cup", False),
        ],
    )
    def test_a_name_is_exact_but_for_article_and_full_stop(self, answer, name, same):
        assert is_name(answer, name, "red") is same

    def test_without_a_colour_none_may_be_said(self):
        assert not is_name("the red cup", "cup")

    def test_video_reg_counts_exact_names(self):
        records = [record(video_reg={"target": 1, "answer": "the key"}), record(video_reg={"target": 1, "answer": "x"})]
        assert score_video_reg(records)["Video-REG exact name"]["model"]["2"] == 0.5

    def test_absent_objects_are_never_the_nearest(self):
        truth = np.array([[0, 0, 0, 0], RIGHT], float)
        assert nearest([0.0, 0.0, 0.1, 0.1], truth) == 1
        assert nearest(None, truth) is None


class TestWords:
    def test_each_kind_of_words_is_scored_alone_beside_its_rivals(self):
        said = {"frame": 0, "target": 0, "words": "the cup on the left"}
        stills = [said | {"kind": "place", "box": LEFT}, said | {"kind": "place", "box": RIGHT}]
        clip = record(stills=[*stills, said | {"kind": "name", "box": None}]) | {"names": ["cup", "cup"]}
        figures = score_words([clip])
        assert figures["REC Acc@0.5 by place"]["model"]["all"] == 0.5
        assert figures["REC Acc@0.5 by name"]["model"]["all"] == 0
        assert figures["REC right object by place"]["model"]["2"] == 0.5
        assert figures["REC Acc@0.5 by place"]["any of that name"]["all"] == 0.5
        alone = figures | score_words([clip | {"names": ["cup", "key"]}])
        assert alone["REC Acc@0.5 by place"]["any of that name"]["all"] == 1
        assert alone["REC Acc@0.5 by place"]["random object"]["all"] == 0.5

    def test_a_colour_counts_only_where_there_is_one(self):
        answers = [("the red cup", 0), ("the cup", 0), ("the key", 1), ("the red key", 1)]
        stills = [{"frame": 0, "target": target, "answer": answer} for answer, target in answers]
        figures = score_words([record(stills=stills, colors=["red", None])])
        assert figures["REG exact name"]["model"]["all"] == 0.75
        assert figures["REG colour, too"]["model"]["all"] == 0.5


class TestTracks:
    def test_standing_still_where_nothing_moves_is_perfect(self):
        figures = score_tracks([record(tracks=[track(LEFT)])], "sot")
        for who in ("model", "copied first box", "truth as text"):
            assert figures["SOT AUC"][who]["2"] == pytest.approx(20 / 21)
        # One of two objects is right, the other has no overlap at all; the first frame is given.
        wrong = (1 / FRAMES) * (20 / 21)
        assert figures["SOT AUC"]["random object"]["2"] == pytest.approx((20 / 21 + wrong) / 2)
        assert figures["SOT right object"]["model"]["2"] == 1

    def test_the_given_box_does_not_count_as_a_choice(self):
        answer = track(RIGHT)
        answer["boxes"][0] = LEFT
        assert score_tracks([record(tracks=[answer])], "sot")["SOT right object"]["model"]["all"] == 0

    def test_frames_without_a_box_are_counted(self):
        answer = track(LEFT)
        answer["boxes"][6:] = [None] * 6
        figures = score_tracks([record(tracks=[answer])], "sot")
        assert figures["SOT frames with a box"]["model"]["all"] == 0.5
        assert figures["SOT right object"]["model"]["all"] == pytest.approx(5 / 11)
        assert figures["SOT AUC"]["model"]["all"] == pytest.approx(0.5 * 20 / 21)

    def test_each_task_is_scored_alone(self):
        clip = record(tracks=[track(LEFT), track(RIGHT, task="rsot")])
        assert score_tracks([clip], "rsot")["RSOT AUC"]["model"]["all"] == 0
        assert score_tracks([clip], "sot")["SOT AUC"]["model"]["all"] == pytest.approx(20 / 21)


class TestAbsence:
    @pytest.mark.parametrize(
        ("states", "noticed"),
        [
            (["TRACKED"] * 10, 0),
            (["TRACKED"] * 9 + ["UNCERTAIN"], 1),
            (["LOST"] * 10, 1),
            (["LOST"] * 9 + ["TRACKED"], 0),
        ],
    )
    def test_what_counts_is_the_tenth_frame(self, states, noticed):
        figures = score_absence([record(absent={"states": states})])
        assert figures["absent from the start"]["model"]["all"] == noticed

    @pytest.mark.parametrize(
        ("states", "followed", "noticed"),
        [
            (["TRACKED"] * 2 + ["UNCERTAIN"] * 10, 1, 1),
            (["TRACKED"] * 12, 1, 0),
            (["LOST"] * 12, 0, None),  # nothing to lose
        ],
    )
    def test_only_what_was_followed_can_be_missed(self, states, followed, noticed):
        clip = record(tracks=[track(LEFT, task="rsot", states=states)])
        clip["visible"] = [[1.0, 1.0] + [0.0] * 10, [1.0] * 12]
        figures = score_absence([clip])
        assert figures["followed until it was gone"]["model"]["all"] == followed
        assert figures["gone later"]["model"].get("all") == noticed
