from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from elysium_core.data.photos.photo_records import PhotoObject, PhotoRecord
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.data.photos.photo_set import LONGEST_SIDE_PX, PhotoSet
from elysium_core.errors import DataError
from elysium_core.geometry import Box
from elysium_core.io.image import write_image


def record(folder: Path, name: str, shape=(60, 90), size=(0, 0), objects=()) -> PhotoRecord:
    write_image(folder / name, np.full((*shape, 3), 120, np.uint8))
    return PhotoRecord(folder / name, name, objects, "", *size)


def test_an_unreadable_picture_is_counted_and_named_once(tmp_path, caplog):
    good = record(tmp_path, "good.jpg")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:200])
    photos = PhotoSet.of([good, PhotoRecord(tmp_path / "bad.jpg", "bad.jpg")])
    with caplog.at_level(logging.WARNING):
        assert [photos.read(1), photos.read(1)] == [None, None]
        assert {photos.draw(np.random.default_rng(n))[0] for n in range(20)} == {0}
    assert photos.report.places(Skipped.UNREADABLE) == [str(tmp_path / "bad.jpg")]
    assert len(caplog.records) == 1


def test_a_photo_that_is_deleted_later_is_counted(tmp_path):
    photos = PhotoSet.of([record(tmp_path, "a.png")])
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="picture missing"):
        photos.draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("annotated", "fits"),
    [((90, 60), True), ((180, 120), True), ((45, 30), True), ((91, 61), True), ((60, 90), False), ((90, 80), False)],
)
def test_an_annotation_of_a_picture_of_another_shape_is_left_out(tmp_path, annotated, fits):
    photos = PhotoSet.of([record(tmp_path, "a.png", size=annotated)])
    assert (photos.read(0) is not None) is fits
    assert photos.report.count(Skipped.OTHER_SIZE) == (not fits)


def test_large_pictures_are_shrunk_and_tiny_ones_left_out(tmp_path):
    photos = PhotoSet.of([record(tmp_path, "large.png", (300, 1200)), record(tmp_path, "tiny.png", (20, 90))])
    assert photos.read(0).shape == (128, LONGEST_SIDE_PX, 3)
    assert photos.read(1) is None
    assert photos.report.count(Skipped.SMALL) == 1


def test_parts_are_disjoint_complete_and_keep_their_objects(tmp_path):
    def objects(n):
        return tuple(PhotoObject(f"thing {n % 3}", Box(0.1, 0.1, 0.2 + n / 400, 0.3)) for _ in range(n % 4))

    records = [PhotoRecord(tmp_path / f"{n}.png", f"{n}.png", objects(n)) for n in range(200)]
    whole = PhotoSet.of(records)
    parts = [whole.part(held_out=held_out) for held_out in (False, True)]
    keys = [{part.key(n) for n in range(len(part))} for part in parts]
    assert not keys[0] & keys[1]
    assert keys[0] | keys[1] == {photo.key for photo in records}
    assert 2 <= len(keys[1]) <= 25
    wanted = {photo.key: [(found.name, found.box.x2) for found in photo.objects] for photo in records}
    for part in parts:
        for n in range(len(part)):
            found = [(item.name, pytest.approx(item.box.x2, abs=1e-6)) for item in part.objects_of(n)]
            assert wanted[part.key(n)] == found


def test_what_is_held_out_does_not_depend_on_the_other_photos(tmp_path):
    records = [PhotoRecord(tmp_path / f"{n}.png", f"{n}.png") for n in range(300)]
    few = PhotoSet.of(records[100:]).part(held_out=True)
    many = PhotoSet.of(records).part(held_out=True)
    assert {few.key(n) for n in range(len(few))} <= {many.key(n) for n in range(len(many))}


def test_a_set_without_photos_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no photo"):
        PhotoSet.of([])
    with pytest.raises(DataError, match="held out"):
        PhotoSet.of([PhotoRecord(tmp_path / "a", "a"), PhotoRecord(tmp_path / "b", "b")]).part(held_out=True)


def test_the_report_counts_places_and_says_the_first(caplog):
    report = PhotoReport()
    assert str(report) == "nothing skipped"
    for number in [*range(15), *range(15)]:
        report.skip(Skipped.SMALL, f"photo {number}")
    assert (report.count(Skipped.SMALL), report.total) == (15, 15)
    assert "15 x picture too small (first: photo 0)" in str(report)
    assert len(caplog.records) == 11


def test_the_packaged_photos_are_there():
    photos = PhotoSet.packaged()
    assert all(photos.read(n) is not None for n in range(len(photos)))
