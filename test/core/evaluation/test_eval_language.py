"""``elysium eval`` from the files of every language data set to a report, with a judge that plays replies back."""

from __future__ import annotations

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image
from typer.testing import CliRunner

from elysium_core.cli.app import app

SIZE = (64, 48)
BOX = (4, 6, 16, 14)


@pytest.fixture
def elysium():
    def run(*arguments):
        words = ["eval", *map(str, arguments)]
        return CliRunner().invoke(app, words if words[1] == "report" else [*words, "--model", "identity"])

    return run


class TestGrounding:
    def write_published(self, root, name):
        """``refs(...).p`` of Python 2 beside ``instances.json``: two sentences about the square, one in each split."""
        split = {"refcoco": "testA", "refcoco+": "testB", "refcocog": "test"}[name]
        references = [
            {
                "ref_id": number,
                "ann_id": 30,
                "image_id": 300,
                "split": which,
                "sentences": [{"sent": f"square {number}", "sent_id": number}],
            }
            for number, which in enumerate(("val", split))
        ]
        file = "COCO_train2014_000000000300.jpg"
        (root / name).mkdir(parents=True)
        (root / name / f"refs({'umd' if name == 'refcocog' else 'unc'}).p").write_bytes(pickle.dumps(references, 2))
        image = {"id": 300, "file_name": file, "width": SIZE[0], "height": SIZE[1]}
        instances = {"annotations": [{"id": 30, "bbox": BOX}], "images": [image]}
        (root / name / "instances.json").write_text(json.dumps(instances))
        (root / "train2014").mkdir()
        Image.new("RGB", SIZE).save(root / "train2014" / file)
        return split

    @pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
    def test_the_published_form(self, elysium, tmp_path, name):
        split = self.write_published(tmp_path / "data", name)
        result = elysium(name, "--data", tmp_path / "data", "--split", split, "--out", tmp_path / "run", "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert report["facts"]["Sentences"] == "1 of 1"
        assert report["perfect"] == {"accuracy": 1.0, "ties": 0, "sentences": 1}
        assert report["whole image"]["accuracy"] == 0.0
        assert "figure of the paper" in (tmp_path / "run/report.md").read_text()

    def test_an_image_that_is_not_there_is_named(self, elysium, tmp_path):
        self.write_published(tmp_path / "data", "refcoco")
        next((tmp_path / "data/train2014").iterdir()).unlink()
        result = elysium("refcoco", "--data", tmp_path / "data", "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert "COCO_train2014_000000000300.jpg' is in none of" in result.stderr


class TestQuestions:
    @pytest.fixture
    def judge(self):
        """An endpoint that plays recorded replies back, in turn and round again."""
        recorded = ["{'pred': 'yes', 'score': 4}", "{'pred': 'no', 'score': 1}"]

        class Handler(BaseHTTPRequestHandler):
            asked = 0

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                reply = recorded[Handler.asked % len(recorded)]
                Handler.asked += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

            def log_message(self, *arguments):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        server.server_close()
        thread.join()

    def write(self, root, name):
        """Two questions about one video, in the data set's own files."""
        video = {"msvd-qa": "clips/abc.gif", "msrvtt-qa": "v/video3.gif", "tgif-qa": "gifs/tumblr_a.gif"}.get(
            name, "all/v_abc.gif"
        )
        (root / video).parent.mkdir(parents=True)
        first, *others = (Image.new("L", SIZE, 20 * k) for k in range(12))
        first.save(root / video, save_all=True, append_images=others)
        if name == "tgif-qa":
            lines = "".join(f"tumblr_a\twhat {k}?\tsquare\t2\t{k}\n" for k in range(2))
            (root / "Test_frameqa_question.csv").write_text("gif_name\tquestion\tanswer\ttype\tvid_id\n" + lines)
        elif name == "activitynet-qa":
            asked = [{"video_name": "abc", "question": f"what {k}?", "question_id": f"v_abc_{k}"} for k in range(2)]
            known = [{"answer": "square", "type": 3, "question_id": f"v_abc_{k}"} for k in range(2)]
            (root / "test_q.json").write_text(json.dumps(asked))
            (root / "test_a.json").write_text(json.dumps(known))
        else:
            asked = [{"id": k, "question": f"what {k}?", "answer": "square", "video_id": 3} for k in range(2)]
            (root / "test_qa.json").write_text(json.dumps(asked))
            (root / "youtube_mapping.txt").write_text("abc vid3\n")

    @pytest.mark.parametrize("name", ["msvd-qa", "msrvtt-qa", "tgif-qa", "activitynet-qa"])
    def test_answers_first_and_the_judge_later(self, elysium, judge, tmp_path, name):
        self.write(tmp_path / "data", name)
        result = elysium(name, "--data", tmp_path / "data", "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        assert "2 answers are not judged" in result.stdout
        result = elysium("report", tmp_path / "run", "--judge-url", judge, "--judge-model", "recorded-1", "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert (report["accuracy"], report["score"]) == (0.5, 2.5)
        assert report["facts"]["Judge"].startswith("recorded-1 (20")
        verdicts = [json.loads(line) for line in (tmp_path / "run/verdicts-rank-0.jsonl").read_text().splitlines()]
        assert [verdict["replies"] for verdict in verdicts] == [
            ["{'pred': 'yes', 'score': 4}"],
            ["{'pred': 'no', 'score': 1}"],
        ]
        assert "figure of the paper" in (tmp_path / "run/report.md").read_text()

    def test_a_video_that_is_not_there_is_named(self, elysium, tmp_path):
        self.write(tmp_path / "data", "tgif-qa")
        (tmp_path / "data/gifs/tumblr_a.gif").unlink()
        result = elysium("tgif-qa", "--data", tmp_path / "data", "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert "line 2 of" in result.stderr
        assert "tumblr_a" in result.stderr
