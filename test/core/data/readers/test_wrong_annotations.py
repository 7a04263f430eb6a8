"""Annotations that are wrong in their units, their pictures or their kind: refused, or read right, never guessed."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers.annotation_files import iterate_json_objects, text_field
from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS
from elysium_core.data.readers.davis import read_davis
from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.frame_sources import PictureFrames, frame_sizes
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.data.readers.refcoco import read_refcoco
from elysium_core.data.readers.video_qa import read_video_qa
from elysium_core.errors import DataError

SIZE = (32, 24)


def track_line(**changes) -> str:
    line = {"id": "a", "vid": "v", "frames": ["frames/v/0.png"], "box": [[0.1, 0.1, 0.5, 0.5]], "frame_size": [*SIZE]}
    return json.dumps({**line, "object_class": "cat", "object_description": "the cat", **changes}) + "\n"


@pytest.mark.parametrize(
    "box", [[3, 4, 20, 18], [10, 10, 50, 50], [100, 100, 500, 500], [-0.6, 0, 1, 1], [0.1, 0.1, 1.6, 0.5]]
)
def test_elysiumtrack_boxes_in_other_units_are_refused_by_line_and_frame(tmp_path, write, pictures, box):
    pictures("frames/v", ["0.png", "1.png"])
    frames = ["frames/v/0.png", "frames/v/1.png"]
    write("ElysiumTrack-val500.json", track_line() + track_line(frames=frames, box=[[0.1, 0.1, 0.5, 0.5], box]))
    left_out: list[DataError] = []
    assert [each.name for each in read_elysiumtrack(tmp_path, skip=left_out.append)] == ["a"]
    assert "line 2 " in str(left_out[0])
    assert "frame 1" in str(left_out[0])
    with pytest.raises(DataError, match="fractions"):
        list(read_elysiumtrack(tmp_path))


def test_a_box_that_reaches_a_little_over_the_edge_is_read(tmp_path, write, pictures):
    pictures("frames/v", ["0.png"])
    write("ElysiumTrack-val500.json", track_line(box=[[-0.01, 0.1, 1.02, 0.5]]))
    assert len(list(read_elysiumtrack(tmp_path))) == 1


@pytest.mark.parametrize("boxes", ["0.1,0.2,0.3,0.4\n0.1,0.2,0.3,0.5\n", "0,0,1,0.5\n0,0,1,1\n"])
def test_boxes_in_fractions_are_refused_where_pixels_are_due(tmp_path, write, pictures, boxes):
    pictures("mug/frames", ["0.png", "1.png"])
    write("mug/gt.txt", boxes)
    with pytest.raises(DataError, match="in fractions"):
        list(read_folder(tmp_path))


def recording(boxes) -> LabelledRecording:
    frames = PictureFrames(None, [str(index) for index in range(len(boxes))])
    return LabelledRecording("a", frames, np.asarray(boxes, float), "gt.txt")


def test_boxes_of_a_larger_picture_are_refused():
    boxes = [[20, 10, 20, 10], [18, 10, 28, 20], [2, 2, 4, 4]]
    with pytest.raises(DataError, match="32x24 px"):
        recording([[60, 50, 20, 10], [28, 20, 28, 20], [2, 2, 4, 4]]).require_px(*SIZE)
    recording(boxes).require_px(*SIZE)
    recording([[np.nan] * 4, [0, 0, 0, 0]]).require_px(*SIZE)


@pytest.mark.parametrize("bbox", [[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 0.5], [100, 200, 500, 600]])
def test_refcoco_boxes_in_other_units_are_refused(tmp_path, write, bbox):
    line = {"image": "a.jpg", "sent": "the cat", "bbox": bbox, "width": 32, "height": 24, "split": "val"}
    write("refcoco.jsonl", json.dumps(line))
    with pytest.raises(DataError, match="in px"):
        list(read_refcoco(tmp_path, "refcoco", "val"))


NO_TEXT = [None, [], ["the cat"], {}, {"a": 1}, "", " ", True]


@pytest.mark.parametrize("value", NO_TEXT)
@pytest.mark.parametrize("field", ["image", "sent", "split"])
def test_what_is_no_text_never_becomes_words_in_refcoco(tmp_path, write, field, value):
    line = {
        "image": "a.jpg",
        "sent": "x",
        "bbox": [1, 1, 9, 9],
        "width": 32,
        "height": 24,
        "split": "val",
        field: value,
    }
    write("refcoco.jsonl", json.dumps(line))
    with pytest.raises(DataError, match="line 1 of"):
        list(read_refcoco(tmp_path, "refcoco", "val"))


@pytest.mark.parametrize("value", NO_TEXT)
@pytest.mark.parametrize("field", ["question", "answer"])
def test_what_is_no_text_never_becomes_words_in_questions(tmp_path, write, field, value):
    good = {"id": 1, "video_id": 1, "question": "who?", "answer": "a cat"}
    write("vid1.mp4", "")
    write("test_qa.json", json.dumps([{**good, field: value}, good, value]))
    left_out: list[DataError] = []
    assert [item.answer for item in read_video_qa(tmp_path, "msvd-qa", skip=left_out.append)] == ["a cat"]
    assert len(left_out) == 2
    assert "item 1 of" in str(left_out[0])


def test_a_number_is_text():
    assert text_field({"answer": 2}, "answer", "line 1") == "2"


@pytest.mark.parametrize("text", ['\ufeff[{"a": 1}]', '\n \n[{"a": 1}]', '\ufeff{"a": 1}\n', '\n{"a": 1}'])
def test_lists_and_lines_are_told_apart_behind_marks_and_blanks(write, text):
    assert [item for _, item in iterate_json_objects(write("a.json", text))] == [{"a": 1}]


def test_a_bad_line_between_good_ones_is_left_out(write):
    left_out: list[DataError] = []
    path = write("a.json", '{"a": 1}\nnull\n{"a": \n{"a": 2}\n')
    assert [number for number, _ in iterate_json_objects(path, left_out.append)] == [1, 4]
    assert ["line 2" in str(left_out[0]), "line 3" in str(left_out[1])] == [True, True]


def test_own_boxes_are_cut_at_the_edges_of_the_picture(tmp_path, write, pictures):
    pictures("mug/frames", [f"{index}.png" for index in range(6)])
    boxes = ["-4,2,10,8", "2,-4,10,8", "28,20,10,10", "-20,0,10,10", "NaN,NaN,NaN,NaN", "1.25,2.5,3.125,4.5"]
    write("mug/gt.txt", "\n".join(boxes))
    (mug,) = read_folder(tmp_path)
    nothing = [np.nan] * 4
    expected = [[0, 2, 6, 8], [2, 0, 10, 4], [28, 20, 4, 4], nothing, nothing, [1.25, 2.5, 3.125, 4.5]]
    np.testing.assert_array_equal(mug.boxes_xywh_px, expected)


def test_a_folder_and_a_zip_file_give_the_same_pixels(tmp_path, write):
    pictures = {
        "0.png": Image.fromarray(np.linspace(0, 65535, 32 * 24).reshape(24, 32).astype(np.uint16)),
        "1.png": Image.new("LA", SIZE, (90, 10)),
        "2.png": Image.new("P", SIZE, 3),
        "3.jpg": Image.new("CMYK", SIZE, (10, 90, 20, 0)),
        "4.webp": Image.new("RGB", SIZE, (10, 90, 20)),
        "5.jpg": Image.fromarray(np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    for where in ("folder", "zip"):
        frames = tmp_path / where / "frames/v"
        frames.mkdir(parents=True)
        for name, picture in pictures.items():
            picture.save(frames / name, **({"exif": exif} if name == "5.jpg" else {}))
        names = [f"frames/v/{name}" for name in pictures]
        write(f"{where}/ElysiumTrack-val500.json", track_line(frames=names, box=[[0.1, 0.1, 0.5, 0.5]] * 6))
    with zipfile.ZipFile(tmp_path / "zip/frames.zip", "w") as archive:
        for name in pictures:
            archive.write(tmp_path / "zip/frames/v" / name, f"frames/v/{name}")
            (tmp_path / "zip/frames/v" / name).unlink()
    (tmp_path / "zip/frames/v").rmdir()
    from_folder, from_zip = (
        [frame.image for frame in next(read_elysiumtrack(tmp_path / where)).frames] for where in ("folder", "zip")
    )
    assert all(np.array_equal(one, other) for one, other in zip(from_folder, from_zip, strict=True))
    assert from_zip[0].max() > 250
    assert from_zip[0].mean() < 140
    assert from_zip[5].shape == (24, 32, 3)  # its annotation is of the picture as it is stored


def test_masks_decide_how_a_picture_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder in ("JPEGImages/480p/cat", "Annotations/480p/cat"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "JPEGImages/480p/cat/0.jpg", exif=exif)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:9, 20:30] = 255
    Image.fromarray(mask).save(tmp_path / "Annotations/480p/cat/0.png")
    (cat,) = read_davis(tmp_path)
    assert (next(iter(cat.frames)).width, next(iter(cat.frames)).height) == SIZE


def test_sizes_are_read_of_each_picture(tmp_path, pictures):
    folder = pictures("a", ["0.png", "1.png"])
    assert frame_sizes(PictureFrames(folder, ["0.png", "1.png"])).tolist() == [[32, 24]]
    pictures("a", ["1.png"], size=(64, 24))
    assert frame_sizes(PictureFrames(folder, ["0.png", "1.png"])).tolist() == [[32, 24], [64, 24]]


def test_every_reader_can_leave_entries_out(tmp_path):
    for benchmark in TRACKING_BENCHMARKS.values():
        with pytest.raises(DataError, match=str(tmp_path)):  # of an empty folder there is nothing to leave out
            list(benchmark.read(tmp_path, benchmark.default_split, pytest.fail))
