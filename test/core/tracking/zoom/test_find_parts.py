from __future__ import annotations

from dataclasses import replace

import pytest

from elysium_core.geometry import Box
from elysium_core.tracking.find_parts import find_in_picture

SMALL, LARGE = (330, 20, 366, 50), (40, 60, 200, 220)
MUG, APPLE = {"1": "the mug"}, {"1": "the apple"}


@pytest.fixture
def looks(eyes):
    """``looks(mode)``: a runtime whose model finds expressions in the whole frame, or also in its parts."""

    def make(mode):
        runtime = eyes()
        runtime.family.settings = replace(runtime.family.settings, find=mode)
        return runtime

    return make


def truth(rectangle, room):
    return Box.from_px(*rectangle, room.width, room.height)


def test_what_is_small_is_found_in_a_quarter(looks, paint, room):
    frame = paint(SMALL, LARGE)
    found = find_in_picture(looks("frame"), frame.image, MUG)["1"]
    assert found.box.iou(truth(SMALL, room)) == 0
    runtime = looks("parts")
    found = find_in_picture(runtime, frame.image, MUG)["1"]
    assert found.box.iou(truth(SMALL, room)) > 0.8
    assert runtime.family.vision.pictures == [(400, 300), *[(240, 180)] * 4]


def test_a_quarter_is_believed_less_than_the_whole(looks, paint):
    runtime = looks("parts")
    small = find_in_picture(runtime, paint(SMALL, LARGE).image, MUG)["1"].score
    large = find_in_picture(runtime, paint(SMALL, LARGE).image, APPLE)["1"].score
    assert 0.5 < small < large


def test_what_a_quarter_cuts_off_is_taken_from_the_whole(looks, paint, room):
    found = find_in_picture(looks("parts"), paint(SMALL, LARGE).image, APPLE)["1"]
    assert found.box.iou(truth(LARGE, room)) > 0.9


def test_where_nothing_is_the_whole_answers(looks, paint):
    frame = paint(None, LARGE)
    answers = [find_in_picture(looks(mode), frame.image, MUG)["1"] for mode in ("frame", "parts")]
    assert answers[0] == answers[1]


def test_its_pictures_are_encoded_as_the_caller_wants(looks, paint):
    runtime, counts = looks("parts"), []

    def encode(images):
        counts.append(len(images))
        return runtime.encode_frames(images)

    find_in_picture(runtime, paint(SMALL, LARGE).image, MUG | {"2": "the apple"}, encode=encode)
    assert counts == [5]
