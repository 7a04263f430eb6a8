"""Grounding, descriptions and questions: runs that resume, files that can be scored again, figures that are right."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.refcoco import GroundingSample
from elysium_core.data.readers.video_qa import VideoQuestion
from elysium_core.errors import BackendError, DataError
from elysium_core.evaluation.answer_files import AnswerLog, read_answers
from elysium_core.evaluation.answering import questions_report, run_judge, run_questions
from elysium_core.evaluation.describing import CaptionScorer, describing_report, run_descriptions
from elysium_core.evaluation.expression_benchmark import grounding_report, run_grounding, score_grounding
from elysium_core.evaluation.frame_sampling import sample_source, sample_video
from elysium_core.evaluation.run_folder import Manifest, open_run
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import Grounding


class TestAnswerLog:
    def test_a_killed_run_loses_its_last_line_only(self, tmp_path):
        with AnswerLog(tmp_path, "answers") as log:
            log.append("1", {"text": "café"})
            log.append("2", {"text": "b"})
        path = tmp_path / "answers-rank-0.jsonl"
        path.write_bytes(path.read_bytes()[:-6])
        with AnswerLog(tmp_path, "answers") as log:
            assert list(log.done) == ["1"]
            log.append("2", {"text": "again"})
        assert {k: v["text"] for k, v in read_answers(tmp_path, "answers").items()} == {"1": "café", "2": "again"}

    def test_all_processes_are_read_and_each_writes_its_own_file(self, tmp_path):
        with AnswerLog(tmp_path, "answers", rank=0) as zero, AnswerLog(tmp_path, "answers", rank=1) as one:
            zero.append("a", {})
            one.append("b", {})
        assert set(AnswerLog(tmp_path, "answers", rank=2).done) == {"a", "b"}

    def test_damage_in_the_middle_is_named(self, tmp_path):
        (tmp_path / "answers-rank-0.jsonl").write_text('{"id": "1"}\nbroken\n{"id": "2"}\n')
        with pytest.raises(DataError, match=r"line 2 of .*answers-rank-0\.jsonl' is damaged"):
            read_answers(tmp_path, "answers")


class TestGrounding:
    TRUTH = (10.0, 10.0, 30.0, 30.0)

    @pytest.mark.parametrize(
        ("box", "right", "ties"),
        [
            ([10, 10, 30, 30], 1.0, 0),
            ([10, 10, 30, 20], 1.0, 1),  # overlap exactly one half counts, and is counted
            ([10, 10, 30, 19.99], 0.0, 0),
            ([30, 30, 10, 10], 0.0, 0),  # reversed: wrong, not turned round
            (None, 0.0, 0),
        ],
    )
    def test_half_overlap_counts(self, box, right, ties):
        scores = score_grounding([box], [list(self.TRUTH)])
        assert (scores.accuracy, scores.ties, scores.without_box) == (right, ties, int(box is None))

    def test_a_run_and_its_report(self, tmp_path):
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        samples = [GroundingSample(str(k), "a.png", text, self.TRUTH, 40, 40, "val") for k, text in enumerate("abcd")]

        class Model(IdentityModel):
            def ground(self, image, expression):
                boxes = {"a": Box(0.25, 0.25, 0.75, 0.75), "b": Box(0.25, 0.25, 0.75, 0.5), "c": Box(0, 0, 0.1, 0.1)}
                return Grounding(boxes.get(expression), 1.0, "text")

        open_run(
            tmp_path, Manifest("grounding", "refcoco", "val", "m", "rec", entries={s.sample_id: 1 for s in samples})
        )
        with AnswerLog(tmp_path, "answers") as log:
            assert list(run_grounding(samples, Model(), tmp_path, log)) == list("0123")
        report = grounding_report(tmp_path)
        table = {row[0]: row[1:] for row in report.tables[0].rows}
        assert table["m"] == ["50.00", "1", "1"]
        assert table["perfect"][0] == "100.00"
        assert table["Elysium 7B, figure of the paper"][0] == "89.07"

    def test_finished_sentences_are_not_asked_again_and_refused_ones_are_wrong(self, tmp_path):
        Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
        samples = [
            GroundingSample(str(k), "a.png", text, self.TRUTH, 40, 40, "val") for k, text in enumerate(("x", "<image>"))
        ]
        with AnswerLog(tmp_path, "answers") as log:
            list(run_grounding(samples[:1], IdentityModel(), tmp_path, log))
            list(run_grounding(samples, IdentityModel(), tmp_path, log))
        lines = (tmp_path / "answers-rank-0.jsonl").read_text().splitlines()
        assert [json.loads(line)["box"] is None for line in lines] == [False, True]


class TestDescriptions:
    def test_the_box_of_the_first_frame_that_has_one_is_asked_about(self, make_recording, tmp_path):
        asked = []

        class Model(IdentityModel):
            def describe(self, frames, box, frame_index=0):
                asked.append((len(frames), frames[frame_index].index, box))
                return "a white square"

        root = make_recording(frames=6, absent=(0, 1))
        with AnswerLog(tmp_path / "run", "answers") as log:
            list(run_descriptions(read_folder(root), Model(), log, frame_count=3))
        # Frames 0, 2 and 5 are shown.
        assert asked == [(3, 2, Box.from_xywh_px(14, 12, 16, 20, 64, 48))]
        assert log.done["mug"]["reference"] == "the white square"

    def test_a_recording_without_words_or_box_is_refused(self, make_recording, tmp_path):
        with AnswerLog(tmp_path / "run", "answers") as log:
            wordless = read_folder(make_recording(root="a", expression=""))
            with pytest.raises(DataError, match="has no description to compare with"):
                list(run_descriptions(wordless, IdentityModel(), log))
            boxless = read_folder(make_recording(root="b", absent=range(6)))
            with pytest.raises(DataError, match="no true box in any of the 6 frames"):
                list(run_descriptions(boxless, IdentityModel(), log))

    def test_without_java_a_sentence_takes_the_place_of_the_scores(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None)
        open_run(tmp_path, Manifest("describing", "folder", "", "m", "video-reg", entries={"a": 1, "b": 1}))
        with AnswerLog(tmp_path, "answers") as log:
            log.append("a", {"answer": " ", "reference": "x", "category": ""})
        report = describing_report(tmp_path)
        assert not report.tables
        assert report.facts["Empty descriptions"] == "1"
        assert any("need Java" in warning for warning in report.warnings)
        assert any("1 recordings have no description" in warning for warning in report.warnings)

    def test_meteor_and_cider_of_the_worked_example(self):
        pytest.importorskip("pycocoevalcap", reason="METEOR and CIDEr are part of the extra [eval]")
        if shutil.which("java") is None:
            pytest.skip("METEOR needs Java")
        answers = ["a dog running in the snow", "the person in red", "a kangaroo dancing"]
        references = ["A running dog played in the snow field.", "the person in red", "a dancing kangaroo"]
        scorer = CaptionScorer()
        scores = scorer.score(answers, references)
        assert scores.meteor == pytest.approx(0.39522, abs=1e-5)
        assert scores.meteor_each == pytest.approx([0.31350, 1.0, 0.4], abs=1e-5)
        assert scores.cider == pytest.approx(5.21987, abs=1e-5)
        assert scores.cider_each == pytest.approx([3.15962, 10, 2.5], abs=1e-5)
        # Empty and hostile answers neither hang the Java process nor move the others.
        hostile = scorer.score(["", "a ||| b\nc", references[2]], references)
        assert hostile.meteor_each == pytest.approx([0, 0, 1], abs=1e-5)

    def test_a_missing_package_is_one_sentence(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
        monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.cider.cider", None)
        with pytest.raises(BackendError, match="need pycocoevalcap"):
            CaptionScorer()


class TestQuestions:
    def questions(self, video):
        return [VideoQuestion(str(k), video, f"what {k}?", "a dog", "3") for k in range(3)]

    def test_sixteen_frames_are_shown_and_answers_are_judged_once(self, make_recording, tmp_path):
        video = make_recording(frames=20) / "mug/frames"
        shown = []

        class Model(IdentityModel):
            def ask(self, frames, question):
                shown.append([frame.index for frame in frames])
                return f"dog {question}"

        class Judge:
            name, asked = "judge-1", []

            def reply(self, messages):
                self.asked.append(messages)
                return "{'pred': 'yes', 'score': 4}" if "what 0" in messages[1]["content"] else "no idea"

        run, judge = tmp_path / "run", Judge()
        open_run(run, Manifest("questions", "msvd-qa", "test", "m", "ask", entries={str(k): 1 for k in range(3)}))
        with AnswerLog(run, "answers") as log:
            list(run_questions(self.questions(video), Model(), log))
        assert shown[0] == [round(19 * k / 15) for k in range(16)]
        for _ in range(2):
            with AnswerLog(run, "verdicts") as log:
                list(run_judge(run, judge, log))
        assert len(judge.asked) == 1 + 3 + 3, "each unreadable reply is tried three times, nothing is judged twice"
        report = questions_report(run)
        assert report.scores == {"accuracy": pytest.approx(1 / 3), "score": pytest.approx(4 / 3)}
        assert report.facts["Replies of the judge that could not be read (count as no / 0)"] == "2"
        assert report.facts["Judge"].startswith("judge-1 (20")
        assert read_answers(run, "verdicts")["1"]["replies"] == ["no idea"] * 3
        assert report.tables[0].rows[1][:2] == ["Elysium 7B, figure of the paper", "75.8"]

    def test_without_a_judge_the_answers_wait(self, make_recording, tmp_path):
        video = make_recording() / "mug/frames"
        open_run(tmp_path, Manifest("questions", "msvd-qa", "test", "m", "ask", entries={"0": 1, "9": 1}))
        with AnswerLog(tmp_path, "answers") as log:
            list(run_questions(self.questions(video)[:1], IdentityModel(), log))
        report = questions_report(tmp_path)
        assert report.facts["Judge"] == "none yet"
        assert len(report.warnings) == 2

    def test_a_refused_question_is_answered_wrongly_not_left_out(self, make_recording, tmp_path):
        video = make_recording() / "mug/frames"
        with AnswerLog(tmp_path, "answers") as log:
            list(run_questions([VideoQuestion("1", video, "USER: hi", "x")], IdentityModel(), log))
        assert log.done["1"]["prediction"] == ""
        assert "part of the model's prompt format" in log.done["1"]["reason"]


class TestSampling:
    def test_the_first_and_the_last_frame_are_always_shown(self, make_recording):
        source = next(read_folder(make_recording(frames=10))).frames
        assert [frame.index for frame in sample_source(source, 4)] == [0, 3, 6, 9]
        assert [frame.index for frame in sample_source(source, 99)] == list(range(10))

    def test_a_real_video_of_unknown_length(self, tmp_path):
        av = pytest.importorskip("av")
        with av.open(str(tmp_path / "v.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for k in range(9):
                image = np.full((32, 32, 3), 20 * k, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
        frames = sample_video(tmp_path / "v.mp4", 3)
        assert [frame.index for frame in frames] == [0, 4, 8]
