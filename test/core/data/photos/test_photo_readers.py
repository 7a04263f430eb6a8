from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elysium_core.data.photos.annotation_lines import read_annotated_photos, read_teacher_photos
from elysium_core.data.photos.photo_folders import read_photos
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.data.photos.voc_xml import read_voc_photos
from elysium_core.errors import DataError
from elysium_core.io.image import write_image

PICTURE = np.full((50, 100, 3), 90, np.uint8)


def voc_object(name="dog", box=(11, 6, 60, 25), extra=""):
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{sides}</bndbox>{extra}</object>"


def write_voc(folder: Path, stem: str, *objects: str, size=(100, 50), head="", picture=True) -> None:
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    (folder / "JPEGImages").mkdir(exist_ok=True)
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    text = f"{head}<annotation><filename>{stem}.jpg</filename>{sizes}{''.join(objects)}</annotation>"
    (folder / "Annotations" / f"{stem}.xml").write_text(text)
    if picture:
        write_image(folder / "JPEGImages" / f"{stem}.jpg", PICTURE)


def write_lines(folder: Path, *lines, name="annotations.jsonl", pictures=("a.png",)) -> Path:
    for picture in pictures:
        write_image(folder / picture, PICTURE)
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


DOG = {"name": "dog", "box": [0.1, 0.1, 0.6, 0.5]}


class TestVoc:
    def test_pixels_are_counted_from_one_and_include_both_ends(self, tmp_path):
        write_voc(tmp_path, "000001", voc_object(box=(1, 1, 100, 50)), voc_object("cat", (11, 6, 60, 25)))
        (photo,) = read_voc_photos(tmp_path, PhotoReport())
        assert [found.name for found in photo.objects] == ["dog", "cat"]
        assert photo.objects[0].box.as_list() == [0, 0, 1, 1]
        assert photo.objects[1].box.to_px(100, 50) == pytest.approx((10, 5, 60, 25))
        assert (photo.key, photo.width, photo.height) == ("JPEGImages/000001.jpg", 100, 50)

    def test_flags_are_read_and_parts_are_not(self, tmp_path):
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        flags = "<difficult>1</difficult><truncated>1</truncated>"
        write_voc(tmp_path, "1", voc_object("person", extra=flags + part))
        (photo,) = read_voc_photos(tmp_path, PhotoReport())
        (found,) = photo.objects
        assert (found.name, found.difficult, found.truncated) == ("person", True, True)
        assert found.box.to_px(100, 50) == pytest.approx((10, 5, 60, 25))

    @pytest.mark.parametrize(
        "box", [(0, 0, 120, 20), (60, 6, 10, 25), (5, 5, 4, 4), ("nan", 1, 2, 3), ("a", 1, 2, 3), (-9, 1, 20, 20)]
    )
    def test_boxes_outside_or_empty_are_counted_and_the_photo_stays(self, tmp_path, box):
        write_voc(tmp_path, "1", voc_object(box=box), voc_object())
        report = PhotoReport()
        (photo,) = read_voc_photos(tmp_path, report)
        assert len(photo.objects) == 1
        assert report.count(Skipped.BAD_BOX) == 1
        assert "object 1" in report.places(Skipped.BAD_BOX)[0]

    def test_an_annotation_with_entities_is_refused_unread(self, tmp_path):
        head = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]>'
        write_voc(tmp_path, "1", voc_object("&y;"), head=head)
        write_voc(tmp_path, "2", voc_object())
        report = PhotoReport()
        (photo,) = read_voc_photos(tmp_path, report)
        assert photo.key.endswith("2.jpg")
        assert "1.xml" in report.places(Skipped.BAD_ENTRY)[0]

    @pytest.mark.parametrize("size", [(0, 50), (-3, 50), (10**9, 50), ("wide", 50)])
    def test_an_annotation_without_a_possible_size_is_refused(self, tmp_path, size):
        write_voc(tmp_path, "1", voc_object(), size=size)
        write_voc(tmp_path, "2", voc_object())
        report = PhotoReport()
        assert len(list(read_voc_photos(tmp_path, report))) == 1
        assert report.count(Skipped.BAD_ENTRY) == 1

    def test_years_below_one_folder_are_read_one_after_the_other(self, tmp_path):
        write_voc(tmp_path / "VOC2012", "b", voc_object())
        write_voc(tmp_path / "VOC2007", "a", voc_object())
        assert [photo.path.stem for photo in read_photos(tmp_path, PhotoReport())] == ["a", "b"]

    def test_missing_pictures_are_named_and_a_set_without_any_is_an_error(self, tmp_path):
        write_voc(tmp_path, "1", voc_object(), picture=False)
        report = PhotoReport()
        with pytest.raises(DataError, match="JPEGImages"):
            list(read_voc_photos(tmp_path, report))
        assert report.count(Skipped.MISSING) == 1

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 400))
    def test_a_damaged_annotation_never_stops_the_others(self, tmp_path, junk, start, length):
        write_voc(tmp_path, "1", voc_object(), voc_object("cat"))
        write_voc(tmp_path, "2", voc_object())
        path = tmp_path / "Annotations" / "1.xml"
        content = path.read_bytes()
        path.write_bytes(content[:start] + junk + content[start + length :])
        photos = list(read_voc_photos(tmp_path, PhotoReport()))
        assert "2.jpg" in photos[-1].key
        assert all(0 <= value <= 1 for photo in photos for found in photo.objects for value in found.box)


class TestLines:
    def test_objects_with_flags(self, tmp_path):
        write_lines(tmp_path, {"image": "a.png", "objects": [DOG | {"difficult": 1, "truncated": 1}]})
        (photo,) = read_annotated_photos(tmp_path, PhotoReport())
        (found,) = photo.objects
        assert (found.name, found.box.as_list()) == ("dog", DOG["box"])
        assert (found.difficult, found.truncated, found.score) == (True, True, 1.0)

    @pytest.mark.parametrize(
        "box",
        [[0.1, 0.1, 1.2, 0.5], [0.5, 0.1, 0.1, 0.5], [0.1, 0.1, 0.1, 0.5], [0, 0, 1], "0,0,1,1", None, [0, 0, True, 1]],
    )
    def test_bad_boxes_are_counted(self, tmp_path, box):
        write_lines(tmp_path, {"image": "a.png", "objects": [{"name": "dog", "box": box}, DOG]})
        report = PhotoReport()
        (photo,) = read_annotated_photos(tmp_path, report)
        assert [found.box.as_list() for found in photo.objects] == [DOG["box"]]
        assert report.count(Skipped.BAD_BOX) == 1

    @pytest.mark.parametrize("image", ["../a.png", "/etc/passwd", "", 7, None, "a\0.png"])
    def test_a_picture_outside_the_folder_is_never_opened(self, tmp_path, image):
        inner = tmp_path / "inner"
        inner.mkdir()
        write_image(tmp_path / "a.png", PICTURE)
        write_lines(inner, {"image": image, "objects": [DOG]}, {"image": "a.png", "objects": []})
        report = PhotoReport()
        assert [photo.path for photo in read_annotated_photos(inner, report)] == [inner / "a.png"]
        assert report.count(Skipped.BAD_ENTRY) == 1

    def test_damaged_lines_are_skipped_and_named(self, tmp_path):
        good = {"image": "a.png", "objects": [DOG]}
        write_lines(tmp_path, "{", "[1]", good, '{"image": "a.png", "objects": 3}', good)
        report = PhotoReport()
        assert len(list(read_annotated_photos(tmp_path, report))) == 2
        assert [place.split(" of ")[0] for place in report.places(Skipped.BAD_ENTRY)] == ["line 1", "line 2", "line 4"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=100), st.integers(0, 300), st.integers(0, 300))
    def test_damage_costs_at_most_the_damaged_lines(self, tmp_path, junk, start, length):
        good = {"image": "a.png", "objects": [DOG]}
        path = write_lines(tmp_path, good, good)
        content = path.read_bytes()
        damaged = content[:start] + junk + content[start + length :]
        path.write_bytes(damaged + b"\n" + json.dumps(good).encode())
        assert len(list(read_annotated_photos(tmp_path, PhotoReport()))) >= 1


class TestTeacher:
    def test_unsure_boxes_are_left_out(self, tmp_path):
        boxes = [DOG | {"score": 0.9}, DOG | {"score": 0.4}]
        path = write_lines(tmp_path, {"image": "a.png", "width": 100, "height": 50, "boxes": boxes}, name="t.jsonl")
        (photo,) = read_photos(tmp_path, PhotoReport(), teacher=path)
        assert [found.score for found in photo.objects] == [0.9]
        assert (photo.width, photo.height) == (100, 50)

    def test_a_file_about_other_pictures_is_an_error(self, tmp_path):
        path = write_lines(tmp_path, {"image": "other.png", "boxes": []}, name="t.jsonl")
        with pytest.raises(DataError, match=r"none of the 1 pictures"):
            list(read_teacher_photos(path, tmp_path, PhotoReport()))

    @pytest.mark.parametrize("score", [-0.1, 1.5, "high", None, True])
    def test_a_score_that_is_none_is_counted(self, tmp_path, score):
        boxes = [DOG | {"score": score}, DOG | {"score": 0.8}]
        path = write_lines(tmp_path, {"image": "a.png", "boxes": boxes}, name="t.jsonl")
        report = PhotoReport()
        (photo,) = read_teacher_photos(path, tmp_path, report)
        assert len(photo.objects) == 1
        assert report.count(Skipped.BAD_ENTRY) == 1


class TestFolder:
    def test_subfolders_are_categories(self, tmp_path):
        for name in ("camera/2.jpg", "camera/10.jpg", "wild_cat/1.png", "BACKGROUND_Google/1.jpg", "1.bmp", ".x/1.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write_image(tmp_path / name, PICTURE)
        (tmp_path / "notes.txt").write_text("x")
        photos = [(photo.key, photo.category) for photo in read_photos(tmp_path, PhotoReport())]
        assert photos == [
            ("1.bmp", ""),
            ("BACKGROUND_Google/1.jpg", ""),
            ("camera/2.jpg", "camera"),
            ("camera/10.jpg", "camera"),
            ("wild_cat/1.png", "wild cat"),
        ]

    def test_missing_and_empty_folders_say_what_was_expected(self, tmp_path):
        with pytest.raises(DataError, match=r"no photo folder.*JPEGImages.*docs/data.md"):
            read_photos(tmp_path / "none", PhotoReport())
        with pytest.raises(DataError, match=r"holds no picture.*JPEGImages.*docs/data.md"):
            list(read_photos(tmp_path, PhotoReport()))
