from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elysium_core.geometry import Box
from elysium_core.tracking.find_parts import find_in_picture, look_closer
from elysium_core.types import Grounding

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
    whole_and_quarters, closer = runtime.family.vision.pictures[:5], runtime.family.vision.pictures[5:]
    assert whole_and_quarters == [(400, 300), *[(240, 180)] * 4]
    # The part of the closer look is a square twice as long as the box, which lies near the upper edge.
    assert len(closer) == 1
    assert closer[0][0] == closer[0][1]
    assert closer[0][0] == pytest.approx(2 * 36, abs=4)


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


class TestCloserLook:
    """The model finds a box in the whole picture; what it answers in the part around it is given here."""

    FIRST = Grounding(Box(0.2, 0.4, 0.4, 0.6), 0.8)

    @pytest.fixture
    def look(self, looks, monkeypatch):
        def run(box, score):
            monkeypatch.setattr(
                "elysium_core.tracking.find_parts.find_by_words",
                lambda runtime, seen, expressions, *rest: dict.fromkeys(expressions, Grounding(box, score)),
            )
            # 100 x 100 px: the part is the square from (.1, .3) to (.5, .7).
            image = np.zeros((100, 100, 3), np.uint8)
            return look_closer(looks("parts"), image, {"1": self.FIRST}, MUG)["1"]

        return run

    def test_of_two_boxes_of_the_same_thing_the_mean_is_taken(self, look):
        found = look(Box(0.3, 0.25, 0.75, 0.75), 0.9)  # in the picture: from (.22, .4) to (.4, .6)
        assert list(found.box) == pytest.approx([0.21, 0.4, 0.4, 0.6], abs=1e-6)
        assert found.score == 0.8

    def test_the_lower_score_counts(self, look):
        assert look(Box(0.25, 0.25, 0.75, 0.75), 0.3).score == 0.3

    @pytest.mark.parametrize("box", [Box(0.7, 0.7, 0.9, 0.9), None])
    def test_another_thing_or_none_leaves_the_box_as_it_is(self, look, box):
        found = look(box, 0.1)
        assert found.box == self.FIRST.box
        assert found.score == 0.1

    def test_without_a_box_there_is_nothing_to_look_at(self, looks):
        assert look_closer(looks("parts"), np.zeros((9, 9, 3), np.uint8), {"1": Grounding(None, 0.0)}, MUG) == {}


def test_its_pictures_are_encoded_as_the_caller_wants(looks, paint):
    runtime, counts = looks("parts"), []

    def encode(images):
        counts.append(len(images))
        return runtime.encode_frames(images)

    find_in_picture(runtime, paint(SMALL, LARGE).image, MUG | {"2": "the apple"}, encode=encode)
    assert counts == [5, 2]
