"""Grounding, descriptions and questions: runs that resume, files that can be scored again, figures that are right."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from elysium_core.api import Elysium
from elysium_core.errors import BackendError, DataError
from elysium_core.evaluation.answer_log import AnswerLog, read_answers
from elysium_core.evaluation.benchmark import EvalRequest
from elysium_core.evaluation.benchmarks import prepare
from elysium_core.evaluation.description_benchmark import CaptionScorer, describing_report
from elysium_core.evaluation.grounding_benchmark import grounding_report, score_grounding
from elysium_core.evaluation.question_benchmark import questions_report, run_judge
from elysium_core.evaluation.run_folder import Manifest, open_run, read_manifest
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel
from elysium_core.types import Grounding, ModelInfo


def execute(model, run_folder, benchmark, data, **request):
    """Run a model over a benchmark; return the names of all that were answered, now or before."""
    return list(prepare(EvalRequest(benchmark, data, **request)).execute(model, "m", run_folder))


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

    @pytest.fixture
    def write(self, tmp_path):
        """Write one picture and a sentence about the same square for each text."""

        def _write(*texts):
            Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
            lines = [
                {"image": "a.png", "sent": t, "bbox": [10, 10, 30, 30], "width": 40, "height": 40, "split": "val"}
                for t in texts
            ]
            (tmp_path / "refcoco.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            return tmp_path

        return _write

    @pytest.mark.parametrize("zoom", [False, True])
    def test_a_run_and_its_report(self, write, tmp_path, zoom):
        asked = []

        class Model(IdentityModel):
            def ground(self, image, expression, *, zoom=False):
                asked.append(zoom)
                boxes = {"a": Box(0.25, 0.25, 0.75, 0.75), "b": Box(0.25, 0.25, 0.75, 0.5), "c": Box(0, 0, 0.1, 0.1)}
                return Grounding(boxes.get(expression), 1.0, "text")

        assert len(execute(Model(), tmp_path / "run", "refcoco", write(*"abcd"), zoom=zoom)) == 4
        assert asked == [zoom] * 4
        report = grounding_report(tmp_path / "run")
        table = {row[0]: row[1:] for row in report.tables[0].rows}
        assert table["m"] == ["50.00", "1", "1"]
        assert table["perfect"][0] == "100.00"
        assert table["Elysium 7B, figure of the paper"][0] == "89.07"

    def test_finished_sentences_are_not_asked_again_and_refused_ones_are_wrong(self, write, tmp_path):
        write("x", "<image>")
        execute(IdentityModel(), tmp_path / "run", "refcoco", tmp_path, limit=1)
        execute(IdentityModel(), tmp_path / "run", "refcoco", tmp_path)
        lines = (tmp_path / "run/answers-rank-0.jsonl").read_text().splitlines()
        assert [json.loads(line)["box"] is None for line in lines] == [False, True]


class TestDescriptions:
    @pytest.mark.parametrize("zoom", [False, True])
    def test_the_box_of_the_first_frame_that_has_one_is_asked_about(self, make_recording, tmp_path, zoom):
        asked = []

        class Model(IdentityModel):
            def describe(self, frames, box, frame_index=0, *, zoom=False):
                asked.append((len(frames), frames[frame_index].index, box, zoom))
                return "a white square"

        root = make_recording(frames=6, absent=(0, 1))
        execute(Model(), tmp_path / "run", "folder", root, task="video-reg", frames=3, zoom=zoom)
        # Frames 0, 2 and 5 are shown.
        assert asked == [(3, 2, Box.from_xywh_px(14, 12, 16, 20, 64, 48), zoom)]
        assert read_answers(tmp_path / "run", "answers")["mug"]["reference"] == "the white square"

    @pytest.mark.parametrize(("clip_length", "asked", "shown"), [(8, None, 8), (4, None, 4), (32, None, 8), (4, 9, 9)])
    def test_the_frames_that_are_noted_are_those_that_are_shown(
        self, make_recording, tmp_path, clip_length, asked, shown
    ):
        counts = []

        class Model(IdentityModel):
            info = ModelInfo("m", clip_length=clip_length)

            def describe(self, frames, box, frame_index=0, *, zoom=False):
                counts.append(len(frames))
                return "a white square"

        execute(Model(), tmp_path / "run", "folder", make_recording(frames=12), task="video-reg", frames=asked)
        assert counts == [shown]
        assert read_manifest(tmp_path / "run").frames == shown

    def test_a_recording_without_words_or_box_is_refused(self, make_recording, tmp_path):
        wordless = make_recording(root="a", expression="")
        with pytest.raises(DataError, match="has no description to compare with"):
            execute(IdentityModel(), tmp_path / "run", "folder", wordless, task="video-reg")
        boxless = make_recording(root="b", absent=range(6))
        with pytest.raises(DataError, match="no true box in any of the 6 frames"):
            execute(IdentityModel(), tmp_path / "run", "folder", boxless, task="video-reg")

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

    ANSWERS = ("a dog running in the snow", "the person in red", "a kangaroo dancing")
    REFERENCES = ("A running dog played in the snow field.", "the person in red", "a dancing kangaroo")
    CIDER = (3.15962, 10, 2.5)
    HOSTILE = ("", "a ||| b\nc", REFERENCES[2])

    @pytest.fixture
    def quick_java(self, tmp_path, monkeypatch):
        """A ``java`` that starts at once; what it scores is known."""
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        stand_in = Path(__file__).with_name("stand_in_java.py")
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{stand_in}" "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    def test_meteor_and_cider_get_answers_and_references_in_their_places(self, quick_java):
        pytest.importorskip("pycocoevalcap", reason="METEOR and CIDEr are part of the extra [eval]")
        scorer = CaptionScorer()
        scores = scorer.score(self.ANSWERS, self.REFERENCES)
        # Six of the eight words of the first reference are in its answer.
        assert scores.meteor_each == (6 / 8, 1, 1)
        assert scores.meteor == 13 / 15
        assert scores.cider_each == pytest.approx(self.CIDER, abs=1e-5)
        # Empty and hostile answers neither hang the scorer nor move the others.
        assert scorer.score(self.HOSTILE, self.REFERENCES).meteor_each == (0, 0, 1)

    # Slow: the real Java programs need 2 GB and ten seconds. What the package does with them is tested above.
    @pytest.mark.slow
    def test_meteor_and_cider_of_the_worked_example(self):
        pytest.importorskip("pycocoevalcap", reason="METEOR and CIDEr are part of the extra [eval]")
        if shutil.which("java") is None:
            pytest.skip("METEOR needs Java")
        scorer = CaptionScorer()
        scores = scorer.score(self.ANSWERS, self.REFERENCES)
        assert scores.meteor == pytest.approx(0.39522, abs=1e-5)
        assert scores.meteor_each == pytest.approx([0.31350, 1.0, 0.4], abs=1e-5)
        assert scores.cider == pytest.approx(5.21987, abs=1e-5)
        assert scores.cider_each == pytest.approx(self.CIDER, abs=1e-5)
        # Empty and hostile answers neither hang the Java process nor move the others.
        hostile = scorer.score(self.HOSTILE, self.REFERENCES)
        assert hostile.meteor_each == pytest.approx([0, 0, 1], abs=1e-5)

    def test_a_missing_package_is_one_sentence(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/java")
        monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
        with pytest.raises(BackendError, match="need pycocoevalcap"):
            CaptionScorer()


class TestQuestions:
    @pytest.fixture
    def write(self, tmp_path):
        """Write a video of 40 frames and a question about it for each text."""

        def _write(*texts):
            first, *others = (Image.new("L", (40, 30), 6 * k) for k in range(40))
            first.save(tmp_path / "video3.gif", save_all=True, append_images=others)
            asked = [{"id": k, "question": text, "answer": "a dog", "video_id": 3} for k, text in enumerate(texts)]
            (tmp_path / "test_qa.json").write_text(json.dumps(asked))
            return tmp_path

        return _write

    def test_sixteen_frames_are_shown_and_answers_are_judged_once(self, write, tmp_path):
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
        execute(Model(), run, "msrvtt-qa", write("what 0?", "what 1?", "what 2?"))
        assert shown == [[round(39 * k / 15) for k in range(16)]] * 3
        for _ in range(2):
            with AnswerLog(run, "verdicts") as log:
                list(run_judge(run, judge, log))
        assert len(judge.asked) == 1 + 3 + 3, "each unreadable reply is tried three times, nothing is judged twice"
        report = questions_report(run)
        assert report.scores == {"accuracy": pytest.approx(1 / 3), "score": pytest.approx(4 / 3)}
        assert report.facts["Replies of the judge that could not be read (count as no / 0)"] == "2"
        assert report.facts["Judge"].startswith("judge-1 (20")
        _, second, third = read_answers(run, "verdicts").values()
        assert second["replies"] == third["replies"] == ["no idea"] * 3
        assert report.tables[0].rows[-1] == ["Elysium 7B, figure of the paper", "67.5", "3.2"]
        assert report.tables[0].rows[1] == ["FrozenBiLM, figure of the paper", "16.8", "-"]

    @pytest.mark.parametrize(("asked", "shown"), [(None, 16), (5, 5), (32, 32)])
    def test_the_frames_that_are_noted_are_those_the_encoder_gets(
        self, write, tiny_folder, encoded, tmp_path, asked, shown
    ):
        model = Elysium.from_pretrained(tiny_folder, device="cpu")
        execute(model, tmp_path / "run", "msrvtt-qa", write("what?"), frames=asked)
        assert sum(encoded) == shown
        assert read_manifest(tmp_path / "run").frames == shown

    def test_without_a_judge_the_answers_wait(self, write, tmp_path):
        execute(IdentityModel(), tmp_path / "run", "msrvtt-qa", write("what?", "and then?"))
        path = tmp_path / "run/answers-rank-0.jsonl"
        path.write_text(path.read_text().splitlines()[0] + "\n")
        report = questions_report(tmp_path / "run")
        assert report.facts["Judge"] == "none yet"
        assert len(report.warnings) == 2

    def test_a_refused_question_is_answered_wrongly_not_left_out(self, write, tmp_path):
        execute(IdentityModel(), tmp_path / "run", "msrvtt-qa", write("USER: hi"))
        (answer,) = read_answers(tmp_path / "run", "answers").values()
        assert answer["prediction"] == ""
        assert "part of the model's prompt format" in answer["reason"]
