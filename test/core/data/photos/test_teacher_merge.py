"""Further names for annotated photos, from a teacher's boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.teacher_merge import merge_teacher
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.image import write_image

NAMES = ("cup", "wine glass", "cell phone")
CENTRAL, LEFT, SMALL = [0.2, 0.2, 0.8, 0.8], [0.0, 0.1, 0.3, 0.6], [0.85, 0.85, 0.95, 0.95]


@pytest.fixture
def folder(tmp_path):
    """``folder(teacher, annotated, *paths)`` makes a folder of photos and a teacher's file; returns both."""

    def make(teacher, annotated=None, *paths):
        photos = tmp_path / "photos"
        for path in paths or ("a.png",):
            (photos / path).parent.mkdir(parents=True, exist_ok=True)
            write_image(photos / path, np.zeros((40, 60, 3), np.uint8))
        if annotated is not None:
            lines = [json.dumps({"image": path, "objects": found}) for path, found in annotated.items()]
            (photos / "annotations.jsonl").write_text("\n".join(lines))
        boxes = tmp_path / "teacher.jsonl"
        boxes.write_text("\n".join(json.dumps({"image": path, "boxes": found}) for path, found in teacher.items()))
        return photos, boxes

    return make


def merged(photos, boxes, tmp_path, names=NAMES):
    """The report, and the objects of each photo as a recipe reads them."""
    report = merge_teacher(photos, boxes, names, tmp_path / "merged.jsonl")
    found = PhotoSet.open([photos], [tmp_path / "merged.jsonl"])
    objects = {}
    for index in range(len(found)):
        group = found.objects_of(index)
        objects[found.key(index)] = [(each.name, each.difficult, [round(s, 3) for s in each.box]) for each in group]
    return report, objects


def box(name, score, corners):
    return {"name": name, "score": score, "box": corners}


def test_sure_boxes_become_objects_and_unsure_ones_difficult_objects(folder, tmp_path):
    dog = {"name": "dog", "box": LEFT, "truncated": 1}
    said = [
        box("mug", 0.9, CENTRAL),
        box("wine glass", 0.4, SMALL),
        box("cell phone", 0.2, LEFT),
        box("bus", 0.9, SMALL),
    ]
    report, objects = merged(*folder({"a.png": said}, {"a.png": [dog]}), tmp_path)
    assert objects == {"a.png": [("dog", False, LEFT), ("cup", False, CENTRAL), ("wine glass", True, SMALL)]}
    assert (report.added["cup"], report.added["wine glass"], report.unsure) == (1, 0, 1)


def test_a_thing_that_is_annotated_or_has_a_surer_name_is_not_added(folder, tmp_path):
    said = [box("cup", 0.9, LEFT), box("cup", 0.6, CENTRAL), box("wine glass", 0.8, CENTRAL)]
    _, objects = merged(*folder({"a.png": said}, {"a.png": [{"name": "bottle", "box": LEFT}]}), tmp_path)
    assert [name for name, _, _ in objects["a.png"]] == ["bottle", "wine glass"]


def test_a_category_names_what_is_in_the_middle(folder, tmp_path):
    said = {
        "cellphone/1.png": [box("remote", 0.6, CENTRAL), box("cup", 0.9, SMALL)],
        "cellphone/2.png": [box("cell phone", 0.9, SMALL)],
        "gramophone/1.png": [box("wine glass", 0.9, CENTRAL)],
    }
    report, objects = merged(*folder(said, None, *said), tmp_path)
    assert objects == {
        "cellphone/1.png": [("cell phone", False, CENTRAL), ("cup", False, SMALL)],
        "cellphone/2.png": [],
        "gramophone/1.png": [],
    }
    assert (report.without_box, dict(report.added)) == (1, {"cell phone": 1, "cup": 1})


def test_a_name_that_is_annotated_is_refused(folder, tmp_path):
    photos, boxes = folder({"a.png": []}, {"a.png": [{"name": "mug", "box": LEFT}]})
    with pytest.raises(ConfigError, match="'cup' is annotated"):
        merged(photos, boxes, tmp_path)
    assert not (tmp_path / "merged.jsonl").exists()


def test_nothing_is_overwritten(folder, tmp_path):
    photos, boxes = folder({"a.png": []})
    (tmp_path / "merged.jsonl").write_text("kept")
    with pytest.raises(DataError, match="exists already"):
        merge_teacher(photos, boxes, NAMES, tmp_path / "merged.jsonl")
    assert (tmp_path / "merged.jsonl").read_text() == "kept"
