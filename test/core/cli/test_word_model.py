"""The command line with a model that follows by words and has learnt one clip by heart."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from PIL import Image

from elysium_core.api import Elysium
from elysium_core.evaluation import tracking_report
from elysium_core.geometry import Box
from elysium_core.io.video import open_video
from elysium_core.viewer.library_backend import LibraryBackend

SETTINGS = ("--device", "cpu", "--max-pixels", 16384)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, lessons):
    """A folder for ``elysium eval folder`` with the clip twice, once for each object."""
    root = tmp_path_factory.mktemp("recordings")
    for name, words in (("apple", lessons.APPLE), ("mug", lessons.MUG)):
        (root / name / "frames").mkdir(parents=True)
        lines = []
        for frame in range(lessons.FRAMES):
            Image.fromarray(lessons.picture(frame)).save(root / name / "frames" / f"{frame:04}.png")
            box = lessons.truth(frame).get(words)
            sides = (
                (np.nan,) * 4
                if box is None
                else (*box.to_px(lessons.WIDTH, lessons.HEIGHT)[:2], lessons.SIDE, lessons.SIDE)
            )
            lines.append(",".join(f"{side:.0f}" for side in sides))
        (root / name / "gt.txt").write_text("\n".join(lines), encoding="utf-8")
        (root / name / "expression.txt").write_text(words, encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(tracking_report, "draw_plots", lambda *_: [])


def test_scores_of_given_boxes_say_that_words_were_followed(elysium, taught_qwen, recordings, tmp_path):
    command = ("eval", "folder", "--data", recordings, "-m", taught_qwen(), *SETTINGS, "--out", tmp_path, "--json")
    outcome = elysium(*command)
    assert outcome.code == 0, outcome.err
    (report,) = outcome.lines
    figures = report["protocols"]["ope-lasot"]
    assert figures[str(taught_qwen())]["auc"] == figures["perfect"]["auc"]
    assert [text for text in report["warnings"] if "its own words, such as 'an apple'" in text]
    stored = json.loads((tmp_path / "recordings" / "mug.json").read_text(encoding="utf-8"))
    assert (stored["first_box_given"], stored["expression"]) == (True, "the red mug")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("options", [("--task", "rsot"), ("--task", "rsot", "--zoom"), ("--task", "sot")])
def test_both_kinds_follow_what_they_have_learnt(elysium, taught_qwen, recordings, tmp_path, kind, options):
    folder = taught_qwen(kind)
    outcome = elysium(
        "eval", "folder", "--data", recordings, "-m", folder, *SETTINGS, *options, "--out", tmp_path, "--json"
    )
    assert outcome.code == 0, outcome.err
    figures = outcome.lines[0]["protocols"]["ope-lasot"]
    # Steps of the smaller model's boxes are pixels of a smaller picture.
    assert figures[str(folder)]["auc"] > 0.95 * figures["perfect"]["auc"]
    told = [text for text in outcome.lines[0]["warnings"] if "its own words" in text]
    assert len(told) == ("sot" in options)


@pytest.mark.slow
def test_sentences_about_pictures_are_scored(elysium, taught_qwen, lessons, tmp_path):
    """RefCOCO's layout, with frames of the clip."""
    data, folder = tmp_path / "data", taught_qwen()
    data.mkdir()
    lines = []
    for frame in range(2):
        Image.fromarray(lessons.picture(frame)).save(data / f"{frame}.png")
        for words, box in lessons.truth(frame).items():
            lines.append({
                "image": f"{frame}.png", "sent": words, "bbox": list(box.to_px(lessons.WIDTH, lessons.HEIGHT)),
                "width": lessons.WIDTH, "height": lessons.HEIGHT, "split": "val",
            })  # fmt: skip
    (data / "refcoco.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    outcome = elysium("eval", "refcoco", "--data", data, "-m", folder, *SETTINGS, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.lines[0][str(folder)] == {"accuracy": 1.0, "ties": 0, "sentences": 4}


@pytest.mark.slow
def test_the_viewer_follows_boxes_by_words_and_answers(taught_qwen, lessons, tmp_path):
    model = Elysium.from_pretrained(taught_qwen(), device="cpu", max_pixels=16384)
    for frame in range(2):
        Image.fromarray(lessons.picture(0)).save(tmp_path / f"{frame}.png")
    shown, news = [], threading.Condition()

    def deliver(picture):
        with news:
            shown.append(picture)
            news.notify_all()

    def wait(wanted):
        with news:
            assert news.wait_for(lambda: shown and wanted(shown[-1]), 30)
            return shown[-1]

    with open_video(str(tmp_path)) as recording:
        backend = LibraryBackend(recording, model, expressions=[lessons.APPLE])
        backend.start(deliver, lambda *fault: shown.append(fault))
        try:
            backend.watch(frozenset({""}))
            wait(lambda picture: picture.targets)
            backend.pause(True)
            box = lessons.truth(0)[lessons.MUG]
            backend.track("", "", box, shown[-1].stamp_ns, True)
            picture = wait(lambda picture: len(picture.targets) == 2)
            apple, mug = picture.targets
            assert (apple.words, apple.state, mug.text, mug.state) == (lessons.APPLE, "TRACKED", lessons.MUG, "TRACKED")
            assert Box(*mug.box).iou(box) > 0.95
            assert backend.describe("", mug.id) == lessons.MUG
            assert backend.ask("", lessons.QUESTION) == lessons.ANSWER
        finally:
            backend.close()
