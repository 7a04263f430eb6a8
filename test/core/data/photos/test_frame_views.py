from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from elysium_core.data.photos.frame_views import OTHER_NAME, FrameView, FrameViews
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.errors import DataError
from elysium_core.io.image import write_image

NAMES = ("pink box", "sky")
PAINT = {"Pink Box": (255, 0, 255), "SKY": (0, 190, 255), "stone": (250, 240, 0)}
"""Colours of the objects; the last name is none of those known."""
SIDE_PX = 128


def write_photos(folder: Path, texture, photos: dict[str, list[tuple]]) -> PhotoSet:
    """Photos of 240 x 180 px with painted boxes: (name, x1, y1, x2, y2 [px], difficult)."""
    lines = []
    for name, objects in photos.items():
        image = texture(int(Path(name).stem))
        for kind, x1, y1, x2, y2, *_ in objects:
            image[y1:y2, x1:x2] = PAINT[kind]
        write_image(folder / name, image)
        found = [
            {"name": kind, "box": [x1 / 240, y1 / 180, x2 / 240, y2 / 180], "difficult": int(bool(hard))}
            for kind, x1, y1, x2, y2, *hard in objects
        ]
        lines.append(json.dumps({"image": name, "objects": found}))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return PhotoSet.open([folder])


@pytest.fixture(scope="module")
def boxes_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("boxes")


@pytest.fixture(scope="module")
def views(boxes_folder, drawing) -> FrameViews:
    """Of thirty photos with a pink box on the left, a blue one on the right, a yellow one in half of them."""
    photos = {}
    for number in range(30):
        rng = np.random.default_rng(number)
        (x, far), y = rng.integers(10, 50, 2), rng.integers(10, 60, 3)
        width, height = rng.integers(30, 60, 3), rng.integers(30, 60, 3)
        objects = [
            ("Pink Box", x, y[0], x + width[0], y[0] + height[0]),
            ("SKY", 130 + far, y[1], 130 + far + width[1], y[1] + height[1]),
            ("stone", 115, 140, 160, 175),
        ]
        photos[f"{number}.png"] = [(name, *map(int, box)) for name, *box in objects[: 2 + number % 2]]
    return FrameViews(write_photos(boxes_folder, drawing.texture, photos), NAMES, SIDE_PX, drawing.neutral)


def painted(view: FrameView, name: int) -> np.ndarray:
    """(S, S) bool, the pixels that are nearly of the colour of a name."""
    color = np.array(list(PAINT.values())[name])
    return np.abs(view.image.astype(int) - color).max(-1) < 60


def found_box(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box [px] of a colour's pixels in and just around a box [px]."""
    x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 4, 0)
    x2, y2 = np.ceil(box[2:]).astype(int) + 4
    ys, xs = np.nonzero(mask[y1:y2, x1:x2])
    return np.array([xs.min() + x1, ys.min() + y1, xs.max() + x1 + 1, ys.max() + y1 + 1])


def far_apart(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first[:2] > second[2:] + 6).any() or (second[:2] > first[2:] + 6).any())


def test_boxes_follow_what_is_painted(views):
    errors, counts = [], []
    for number in range(120):
        view = views.draw(5, number)
        counts.append(len(view.names))
        boxes = view.boxes * SIDE_PX
        for row, (name, box) in enumerate(zip(view.names, boxes, strict=True)):
            mask = painted(view, name)
            (x1, y1), (x2, y2) = np.ceil(box[:2] + 1).astype(int), (box[2:] - 1).astype(int)
            if x2 > x1 and y2 > y1:
                assert mask[y1:y2, x1:x2].mean() > 0.98
            same = [boxes[other] for other in np.flatnonzero(view.names == name) if other != row]
            if all(far_apart(other, box) for other in same):
                errors.append(np.abs(found_box(mask, box) - box).max())
    assert len(errors) > 200
    assert max(counts) > 4
    assert np.median(errors) < 0.6
    assert np.quantile(errors, 0.98) < 1.6


def test_an_enlarged_photo_lies_on_its_boxes(tmp_path, drawing):
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = PAINT["SKY"]
    write_image(tmp_path / "0.png", image)
    line = {"image": "0.png", "objects": [{"name": "sky", "box": [0.25, 0.25, 0.75, 0.75]}]}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(line) + "\n")
    view = FrameViews(PhotoSet.open([tmp_path]), NAMES, 256, drawing.neutral).whole(0)
    ys, xs = np.nonzero(view.image[..., 2] > 127)
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == (view.boxes[0] * 256).tolist() == [64, 64, 192, 192]


def test_names_are_compared_without_case_and_blanks(views):
    view = views.whole(1)
    assert view.names.tolist() == [0, 1, OTHER_NAME]
    assert views.counts.tolist() == [30, 30]


def test_a_seed_tells_what_is_drawn(views):
    first, again, other = views.draw(7, 3), views.draw(7, 3), views.draw(8, 3)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_cameras_change_pixels_and_no_boxes(boxes_folder, views):
    usual = FrameViews(PhotoSet.open([boxes_folder]), NAMES, SIDE_PX)
    changed = 0
    for number in range(12):
        plain, taken = views.draw(2, number), usual.draw(2, number)
        assert np.array_equal(plain.boxes, taken.boxes)
        changed += not np.array_equal(plain.image, taken.image)
    assert 2 <= changed <= 10


def test_difficult_and_hardly_visible_objects_are_neither_asked_for_nor_lost(tmp_path, drawing):
    objects = [("SKY", 10, 10, 70, 70, True), ("Pink Box", 120, 90, 125, 95), ("stone", 150, 20, 200, 60)]
    views = FrameViews(write_photos(tmp_path, drawing.texture, {"0.png": objects}), NAMES, SIDE_PX, drawing.neutral)
    whole = views.whole(0)
    # The blue one is difficult, the pink one 5 px long: less than a twenty-fifth of the picture.
    assert whole.names.tolist() == [1, 0, OTHER_NAME]
    assert whole.is_usable.tolist() == [False, False, True]
    for number in range(40):
        view = views.draw(0, number)
        assert not view.is_usable[view.names == 1].any()
        assert (view.boxes >= 0).all()
        assert (view.boxes <= 1).all()
        sides = view.boxes[:, 2:] - view.boxes[:, :2]
        assert (sides.max(1)[view.is_usable] >= 0.04).all()


def test_objects_cut_by_an_edge_are_lost_by_and_by(tmp_path, drawing):
    objects = [("SKY", 60, 60, 180, 120)]
    views = FrameViews(write_photos(tmp_path, drawing.texture, {"0.png": objects}), NAMES, SIDE_PX, drawing.neutral)
    inside = views._objects(0).inside
    assert inside((0.25, 0.0, 1.0, 1.0)).is_usable.tolist() == [True]
    # Of the width, the right third remains; then a thirtieth.
    assert inside((0.25 + 0.5 * 2 / 3, 0.0, 1.0, 1.0)).is_usable.tolist() == [False]
    assert len(inside((0.25 + 0.5 * 29 / 30, 0.0, 1.0, 1.0)).names) == 0


def test_photos_without_a_known_name_are_hardly_ever_drawn(tmp_path, drawing):
    photos = {f"{number}.png": [("stone", 20, 20, 90, 90)] for number in range(10)}
    photos |= {"10.png": [("SKY", 20, 20, 90, 90)], "11.png": [("Pink Box", 20, 20, 90, 90)]}
    photos |= {"12.png": [("Pink Box", 20, 20, 90, 90)], "13.png": []}
    views = FrameViews(write_photos(tmp_path, drawing.texture, photos), NAMES, SIDE_PX)
    assert len(views) == 13
    # The rare name comes more often than each photo of the other, and the ten others together less than a third.
    assert views._chance[10] > views._chance[11] == views._chance[12]
    assert 0 < views._chance[:10].sum() < 0.3 / 3


def test_unreadable_photos_are_skipped(tmp_path, drawing):
    photos = {f"{number}.png": [("SKY", 20, 20, 90, 90)] for number in range(3)}
    views = FrameViews(write_photos(tmp_path, drawing.texture, photos), NAMES, SIDE_PX, drawing.neutral)
    (tmp_path / "1.png").write_bytes(b"no picture")
    assert views.whole(1) is None
    assert all(len(views.draw(1, number).image) == SIDE_PX for number in range(5))
    for number in (0, 2):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DataError, match="cannot be used"):
        views.draw(1, 0)


def test_photos_without_any_known_name_are_refused(boxes_folder, views):
    with pytest.raises(DataError, match="zeppelin, unicorn"):
        FrameViews(PhotoSet.open([boxes_folder]), ["zeppelin", "unicorn"], SIDE_PX)
