"""``elysium eval`` from the files of every tracking layout to a report, and what it says of files that are not right.

Each data set is there in miniature, with its own quirks, and shows one white square that moves over black.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from elysium_core.cli.app import app

SIZE = (64, 48)
FRAMES = 12


def square(index: int) -> tuple[int, int, int, int]:
    """Where the target is: x, y, w, h in whole pixels from 0."""
    return 4 + 3 * index, 6 + 2 * index, 16, 14


def picture(index: int) -> Image.Image:
    """Frame ``index``: the square is white, the rest black."""
    pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    x, y, w, h = square(index)
    pixels[y : y + h, x : x + w] = 255
    return Image.fromarray(pixels)


def write_frames(folder: Path, name: str, first: int = 1, count: int = FRAMES) -> None:
    """Write pictures called by a format of their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture(index).convert("RGB").save(folder / (name % (first + index)), quality=95)


def rows(separator: str = ",", origin: int = 0, count: int = FRAMES, form: str = "d") -> str:
    """Return the truth as lines."""
    boxes = ((x + origin, y + origin, w, h) for x, y, w, h in map(square, range(count)))
    return "".join(separator.join(format(value, form) for value in box) + "\n" for box in boxes)


def otb100(root: Path) -> None:
    """Pixels from 1, tabs in one sequence, two targets in another; file names of five digits."""
    write_frames(root / "Crossing/img", "%04d.jpg")
    (root / "Crossing/groundtruth_rect.txt").write_text(rows("\t", origin=1))
    write_frames(root / "Jogging/img", "%05d.jpg")
    (root / "Jogging/groundtruth_rect.1.txt").write_text(rows(origin=1))
    (root / "Jogging/groundtruth_rect.2.txt").write_text(rows("   ", origin=1))


def uav123(root: Path) -> None:
    """Two entries, of which one is a later part of a longer folder; an absent target."""
    write_frames(root / "data_seq/UAV123/bike1", "%06d.jpg")
    write_frames(root / "data_seq/UAV123/car16", "%06d.jpg", first=415)
    (root / "anno/UAV123").mkdir(parents=True)
    (root / "anno/UAV123/bike1.txt").write_text(rows())
    lines = rows().splitlines()
    (root / "anno/UAV123/car16_2.txt").write_text("\n".join([*lines[:-1], "NaN,NaN,NaN,NaN"]))


def lasot(root: Path) -> None:
    """Flags on one line, a sentence, and an absent target written as 1,1,-1,-1."""
    folder = root / "airplane/airplane-1"
    write_frames(folder / "img", "%08d.jpg")
    lines = rows().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join([*lines[:-1], "1,1,-1,-1"]) + "\n")
    (folder / "full_occlusion.txt").write_text(",".join("0" * FRAMES))
    (folder / "out_of_view.txt").write_text(",".join("0" * (FRAMES - 1) + "1"))
    (folder / "nlp.txt").write_text("white square on black\n")


def got10k(root: Path) -> None:
    """Fractions, a cover of 0 in the last frame, and a test split of first boxes."""
    for split in ("val", "test"):
        folder = root / split / f"GOT-10k_{split}_000001"
        write_frames(folder, "%08d.jpg")
        (folder / "groundtruth.txt").write_text(rows(form=".4f", count=FRAMES if split == "val" else 1))
        (folder / "meta_info.ini").write_text("[METAINFO]\nobject_class: square\n")
        (root / split / "list.txt").write_text(folder.name + "\n")
    (root / "val/GOT-10k_val_000001/cover.label").write_text("8\n" * (FRAMES - 1) + "0\n")
    (root / "val/GOT-10k_val_000001/absence.label").write_text("0\n" * FRAMES)


def trackingnet(root: Path) -> None:
    """File names that are not padded (10.jpg after 9.jpg), and a test split of first boxes."""
    for split, count in (("TRAIN_0", FRAMES), ("TEST", 1)):
        write_frames(root / split / "frames/vid_1", "%d.jpg", first=0)
        (root / split / "anno").mkdir()
        (root / split / "anno/vid_1.txt").write_text(rows(form=".2f", count=count))


def elysiumtrack(root: Path) -> None:
    """One object a line, boxes in 0..1; frames in a zip for one split, unpacked for the other."""
    names = [f"frames/1025/{index:06d}.png" for index in range(FRAMES)]
    width, height = SIZE
    boxes = [[x / width, y / height, (x + w) / width, (y + h) / height] for x, y, w, h in map(square, range(FRAMES))]
    item = {"source": "webvid", "vid": "1025", "metadata": {}, "frames": names, "frame_size": [width, height]}
    words = {"object_class": "square", "object_description": "a white square on black"}
    lines = [item | words | {"id": key, "box": boxes} for key in ("1025_0", "1025_1")]
    for split in ("val500", "1M"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / split).mkdir(parents=True)
        (root / split / f"ElysiumTrack-{split}.json").write_text(text)
    write_frames(root / "1M/frames/1025", "%06d.png", first=0)
    with zipfile.ZipFile(root / "val500/frames.zip", "w") as archive:
        for name in names:
            archive.write(root / "1M" / name, name)


def davis(root: Path) -> None:
    """Masks of 0 and 255, whose tight boxes are the truth; listed for a split."""
    write_frames(root / "JPEGImages/480p/libby", "%05d.jpg", first=0)
    write_frames(root / "Annotations/480p/libby", "%05d.png", first=0)
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("libby\n")


def folder(root: Path) -> None:
    """Frames whose names sort differently as texts; and a video without loss."""
    write_frames(root / "pictures/frames", "%d.png", first=0)
    (root / "pictures/gt.txt").write_text(rows())
    (root / "pictures/expression.txt").write_text("the white square")
    (root / "video").mkdir()
    first, *others = (picture(index) for index in range(FRAMES))
    first.save(root / "video/clip.gif", save_all=True, append_images=others, duration=100)
    (root / "video/gt.txt").write_text(rows("\t"))


LAYOUTS = {write.__name__: write for write in (folder, otb100, uav123, lasot, got10k, trackingnet, elysiumtrack, davis)}


@pytest.fixture
def elysium():
    def run(*arguments):
        words = ["eval", *map(str, arguments)]
        return CliRunner().invoke(app, words if words[1] == "report" else [*words, "--model", "identity"])

    return run


@pytest.mark.parametrize(
    ("name", "split", "recordings", "absent"),
    [
        ("folder", "", 2, 0),
        ("otb100", "", 3, 0),
        ("uav123", "", 2, 1),
        ("lasot", "test", 1, 1),
        ("got10k", "val", 1, 1),
        ("trackingnet", "TRAIN_0", 1, 0),
        ("elysiumtrack", "val500", 2, 0),
        ("elysiumtrack", "1M", 2, 0),
        ("davis", "val", 1, 0),
    ],
)
def test_tracking_data_from_files_to_scores(elysium, tmp_path, name, split, recordings, absent):
    data, run = tmp_path / "data", tmp_path / "run"
    LAYOUTS[name](data)
    root = data / split if name == "elysiumtrack" else data
    result = elysium(
        name, "--data", root, "--split", split, "--out", run, "-p", "ope-otb", "-p", "ope-got10k", "--json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["facts"]["Recordings"] == f"{recordings} of {recordings}"
    assert report["facts"]["Frames"] == str(recordings * FRAMES)
    scores = report["protocols"]["ope-got10k"]
    assert scores["perfect"]["average_overlap"] == 1
    assert scores["perfect"]["frames"] == recordings * (FRAMES - 1) - absent
    assert scores["identity"] == scores["frozen"]
    assert scores["frozen"]["average_overlap"] < 0.3
    for path in (run / "recordings").iterdir():
        content = json.loads(path.read_text())
        truth = content["truth_xywh_px"][: FRAMES - absent]
        # The boxes lie on the white pixels, whatever pixel the data set counts from.
        assert truth == pytest.approx(np.asarray([square(k) for k in range(len(truth))]), abs=1e-3)
        assert content["predicted_xywh_px"][0] == pytest.approx(square(0), abs=1e-3)


@pytest.mark.parametrize(("name", "split"), [("got10k", "test"), ("trackingnet", "TEST")])
def test_splits_that_only_their_server_can_score(elysium, tmp_path, name, split):
    LAYOUTS[name](tmp_path / "data")
    result = elysium(name, "--data", tmp_path / "data", "--split", split, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "send boxes/*.txt to its server" in result.stdout
    (boxes,) = (tmp_path / "run/boxes").iterdir()
    assert len(boxes.read_text().splitlines()) == FRAMES


@pytest.mark.parametrize(
    ("name", "file", "text", "complaint"),
    [
        (
            "otb100",
            "Crossing/groundtruth_rect.txt",
            "1,2,3,4\n1,2,3\n",
            "line 2 of .*groundtruth_rect.txt' holds '1,2,3'",
        ),
        ("uav123", "anno/UAV123/bike1.txt", "1,2,3,4\nNaN,2,3,4\n", "line 2 of .*bike1.txt' .*NaN in all four places"),
        ("lasot", "airplane/airplane-1/groundtruth.txt", "1,2,3,4\nx,2,3,4\n", "line 2 of .*four numbers"),
        ("lasot", "airplane/airplane-1/out_of_view.txt", "0,1", "out_of_view.txt' holds 2 flags for 12 frames"),
        ("got10k", "val/GOT-10k_val_000001/groundtruth.txt", "1,2,inf,4\n", "line 1 of .*a box is finite"),
        ("got10k", "val/list.txt", "GOT-10k_val_000009\n", "GOT-10k_val_000009"),
        ("folder", "pictures/gt.txt", "1,2,-3,4\n", "line 1 of .*a box of negative size"),
        ("folder", "pictures/gt.txt", "1,2,3,4\n", "gt.txt' holds 1 boxes but .*12 frames; .*is a frame missing"),
        ("folder", "video/gt.txt", "1,2,3,4\n", "clip.gif' decodes to more frames than .*gt.txt' has boxes"),
        ("davis", "Annotations/480p/libby/00003.png", "no picture", "mask .*00003.png' cannot be read"),
    ],
)
def test_damaged_truth_is_named_by_file_and_line(elysium, tmp_path, name, file, text, complaint):
    LAYOUTS[name](tmp_path / "data")
    (tmp_path / "data" / file).write_text(text)
    result = elysium(name, "--data", tmp_path / "data", "--out", tmp_path / "run")
    if result.exit_code == 2:  # there is no other recording
        assert re.search(complaint, result.stderr), result.stderr
        assert not (tmp_path / "run/report.md").exists()
    else:
        assert result.exit_code == 0, result.output
        (reason,) = json.loads((tmp_path / "run/scores.json").read_text())["left_out"]
        assert re.search(complaint, reason)
        assert "Left out" in result.stdout


def test_one_bad_recording_does_not_stop_the_others(elysium, tmp_path):
    LAYOUTS["folder"](tmp_path / "data")
    whole = elysium("folder", "--data", tmp_path / "data", "--out", tmp_path / "whole")
    shutil.copytree(tmp_path / "data/pictures", tmp_path / "data/more")  # found damaged before the run
    (tmp_path / "data/more/frames/5.png").unlink()
    shutil.copytree(tmp_path / "data/pictures", tmp_path / "data/other")  # found damaged in the run
    (tmp_path / "data/other/frames/5.png").write_bytes(b"no picture")
    result = elysium("folder", "--data", tmp_path / "data", "--out", tmp_path / "run", "--json")
    assert (whole.exit_code, result.exit_code) == (0, 0), result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert len(report["left_out"]) == 2
    assert "more/frames" in report["left_out"][0]
    assert re.search(r"other: frame 5 of .*5\.png", report["left_out"][1])
    assert report["facts"]["Left out"] == "2"
    assert "left out: " in result.stderr
    assert report["protocols"] == json.loads((tmp_path / "whole/scores.json").read_text())["protocols"]
    # Repaired, it takes part when the run is continued.
    shutil.copy(tmp_path / "data/pictures/frames/5.png", tmp_path / "data/other/frames/5.png")
    again = elysium("folder", "--data", tmp_path / "data", "--out", tmp_path / "run", "--json")
    assert len(json.loads(again.stdout.splitlines()[-1])["left_out"]) == 1


@pytest.mark.parametrize(
    ("name", "split", "frame"),
    [
        ("otb100", "", "Crossing/img/0005.jpg"),
        ("uav123", "", "data_seq/UAV123/car16/000419.jpg"),
        ("lasot", "", "airplane/airplane-1/img/00000005.jpg"),
        ("got10k", "val", "val/GOT-10k_val_000001/00000005.jpg"),
        ("trackingnet", "TRAIN_0", "TRAIN_0/frames/vid_1/5.jpg"),
        ("davis", "", "JPEGImages/480p/libby/00005.jpg"),
        ("folder", "", "pictures/frames/5.png"),
    ],
)
def test_a_missing_frame_is_said_before_anything_runs(elysium, tmp_path, name, split, frame):
    LAYOUTS[name](tmp_path / "data")
    (tmp_path / "data" / frame).unlink()
    result = elysium(name, "--data", tmp_path / "data", "--split", split, "--out", tmp_path / "run")
    assert "missing" in result.stderr
    assert result.exit_code == 2 or "left out: " in result.stderr
    assert (tmp_path / "run").exists() == (result.exit_code == 0)


def test_descriptions_of_elysiumtrack(elysium, tmp_path, monkeypatch):
    # METEOR itself runs in test_language_tasks.
    monkeypatch.setattr(shutil, "which", lambda name: None)
    elysiumtrack(tmp_path / "data")
    data = tmp_path / "data/val500"
    result = elysium("elysiumtrack", "--data", data, "--task", "video-reg", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "2 of 2" in result.stdout
    line = json.loads((tmp_path / "run/answers-rank-0.jsonl").read_text().splitlines()[0])
    assert (line["reference"], line["category"], line["frame"]) == ("a white square on black", "square", 0)
