"""The packaged model of real things, on the packaged photos, which it was never trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.data.photos.photo_folders import PACKAGED_PHOTOS
from elysium_core.data.photos.photo_recording import FPS, draw_photo_recording
from elysium_core.errors import ExpressionError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import read_image
from elysium_core.types import TrackState

WOMAN = Box(0.02, 0.01, 0.72, 0.99)
CAT = Box(0.05, 0.0, 0.82, 1.0)


@pytest.fixture(scope="module")
def real() -> Elysium:
    return Elysium.from_pretrained("real", device="cpu", vision_backend="torch")


@pytest.fixture(scope="module")
def recording():
    return draw_photo_recording(frames=40)


@pytest.mark.parametrize(
    ("photo", "words", "box"),
    [("astronaut.jpg", "the person", WOMAN), ("astronaut.jpg", "a woman", WOMAN), ("chelsea.jpg", "the cat", CAT)],
)
def test_it_finds_things_by_name(real, photo, words, box):
    found = real.ground(read_image(PACKAGED_PHOTOS / photo), words)
    assert found.is_sure()
    assert found.box.iou(box) > 0.6


@pytest.mark.parametrize(
    ("photo", "words"),
    [
        ("astronaut.jpg", "the bus"),
        ("chelsea.jpg", "the bicycle"),
        ("gravel.jpg", "the dog"),
        ("coffee.jpg", "a train"),
    ],
)
def test_it_doubts_what_is_not_there(real, photo, words):
    assert not real.ground(read_image(PACKAGED_PHOTOS / photo), words).is_sure()


def test_it_names_what_is_in_a_box(real):
    assert real.describe(read_image(PACKAGED_PHOTOS / "chelsea.jpg"), CAT).strip(" .") == "cat"
    assert real.describe(read_image(PACKAGED_PHOTOS / "astronaut.jpg"), WOMAN).strip(" .") == "person"


def test_it_knows_its_names_and_says_so(real):
    with pytest.raises(ExpressionError) as caught:
        real.clean_words("the zeppelin")
    assert caught.value.code == "EXPR_UNKNOWN"
    assert len(real.runtime.family.settings.vocabulary) == 43


@pytest.mark.parametrize("count", [1, 3])
def test_the_shipped_graph_of_frames_gives_the_tokens_of_torch(real, count):
    pytest.importorskip("onnxruntime")
    graph = Elysium.from_pretrained("real", device="cpu", vision_backend="onnx")
    images = [read_image(PACKAGED_PHOTOS / name) for name in ("astronaut.jpg", "chelsea.jpg", "coffee.jpg")[:count]]
    pairs = zip(real.runtime.family.encode(images), graph.runtime.family.encode(images), strict=True)
    for one, other in pairs:
        assert one.rows.shape == (64, 160)
        torch.testing.assert_close(one.rows, other.rows, rtol=1e-3, atol=1e-3)


def test_it_follows_a_cup_from_its_box(real, recording):
    tracker = real.tracker()
    tracker.add(box=_box(recording, 0, 0))
    overlaps, frozen = [], []
    for index, image in enumerate(recording.images):
        (update,) = tracker.step(Frame(image, stamp_ns=(index + 1) * 10**9 // FPS, index=index))
        truth = _box(recording, 0, index)
        overlaps.append(update.box.iou(truth) if update.state is TrackState.TRACKED else 0.0)
        frozen.append(_box(recording, 0, 0).iou(truth))
    assert np.mean(overlaps) > 0.6
    assert np.mean(overlaps) > np.mean(frozen) + 0.2


def test_it_finds_and_follows_a_person_by_words(real, recording):
    tracker = real.tracker()
    tracker.add("the person")
    overlaps = []
    for index, image in enumerate(recording.images):
        (update,) = tracker.step(Frame(image, stamp_ns=(index + 1) * 10**9 // FPS, index=index))
        overlaps.append(update.box.iou(_box(recording, 1, index)) if update.state is TrackState.TRACKED else 0.0)
    assert np.mean(overlaps) > 0.5


def test_what_is_painted_over_is_doubted_within_ten_frames(real, recording):
    tracker = real.tracker()
    tracker.add(box=_box(recording, 0, 0))
    states = []
    for index, image in enumerate(recording.images[:25]):
        picture = image.copy()
        if index >= 12:
            picture[:] = (176, 168, 158)
        states.append(tracker.step(Frame(picture, stamp_ns=(index + 1) * 10**9 // FPS, index=index))[0].state)
    assert TrackState.TRACKED in states[1:12]
    assert TrackState.TRACKED not in states[22:]


def _box(recording, number: int, index: int) -> Box:
    return Box(*(float(value) for value in recording.boxes[number, index]))


def test_it_finds_and_follows_both_persons_of_a_name(real):
    woman = read_image(PACKAGED_PHOTOS / "astronaut.jpg")
    pair = np.concatenate([woman, woman[:, ::-1]], axis=1)
    tracker = real.tracker_of_all("people")
    for index in range(3):
        updates = tracker.step(Frame(pair, index=index))
    sides = sorted(update.box.center[0] > 0.5 for update in updates)
    assert sides == [False, True]
    assert {update.name for update in updates} == {"person"}
    assert {update.state for update in updates} == {TrackState.TRACKED}
