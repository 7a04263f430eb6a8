from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.synthetic.clips import SyntheticClip
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR
from elysium_core.data.synthetic.expressions import ANY_OBJECT, choose, describe, description, references

RED, BLUE = COLORS.index("red"), COLORS.index("blue")
LEFT, MIDDLE, RIGHT = (0.1, 0.4, 0.3, 0.6), (0.4, 0.4, 0.6, 0.6), (0.7, 0.4, 0.9, 0.6)


def scene(*objects: tuple[str, int, tuple[float, ...]]) -> SyntheticClip:
    """One frame with objects (name, colour, box)."""
    names = tuple(name for name, _, _ in objects)
    return SyntheticClip(
        images=np.zeros((1, 32, 32, 3), np.uint8),
        names=names,
        name_index=np.arange(len(names)),
        boxes=np.array([[box] for _, _, box in objects], np.float32),
        visible=np.ones((len(names), 1), np.float32),
        owner=np.zeros((1, 32, 32), np.int8),
        colors=np.array([color for _, color, _ in objects], np.int64),
    )


def texts(clip: SyntheticClip, target: int) -> set[str]:
    return {reference.text for reference in references(clip, target)}


def test_one_object_needs_no_more_than_its_name():
    assert texts(scene(("car", NO_COLOR, LEFT)), 0) == {"the car"}


def test_twins_are_told_apart_by_colour_and_place():
    clip = scene(("car", RED, LEFT), ("car", BLUE, RIGHT))
    expected = {"the red car", "the red object", "the car on the left", "the object on the left"}
    assert texts(clip, 0) == expected
    assert "the car" not in texts(clip, 1)


def test_a_colour_that_two_share_means_neither():
    clip = scene(("car", RED, LEFT), ("boot", RED, RIGHT))
    assert "the red car" in texts(clip, 0)
    assert "the red object" not in texts(clip, 0)


def test_of_three_in_a_row_the_middle_one_has_no_place():
    clip = scene(*((name, NO_COLOR, box) for name, box in (("car", LEFT), ("car", MIDDLE), ("car", RIGHT))))
    assert texts(clip, 1) == set()
    assert texts(clip, 0) == {"the car on the left", "the object on the left"}


def test_sizes_count_when_they_clearly_differ():
    small = scene(("car", NO_COLOR, (0.4, 0.4, 0.5, 0.5)), ("car", NO_COLOR, (0.35, 0.35, 0.65, 0.65)))
    assert {"the small car", "the small object"} <= texts(small, 0)
    assert "the large car" in texts(small, 1)
    alike = scene(("car", NO_COLOR, (0.4, 0.4, 0.6, 0.6)), ("car", NO_COLOR, (0.4, 0.4, 0.62, 0.62)))
    assert texts(alike, 0) == set()


def test_what_is_half_hidden_has_no_size_or_place():
    clip = scene(("car", RED, LEFT), ("car", BLUE, RIGHT))
    hidden = replace(clip, visible=np.array([[1.0], [0.4]], np.float32))
    assert texts(hidden, 0) == {"the red car", "the red object"}


def test_an_object_out_of_the_picture_is_nobodys_rival():
    clip = scene(("car", NO_COLOR, LEFT), ("car", NO_COLOR, (0.0, 0.0, 0.0, 0.0)))
    assert "the car" in texts(clip, 0)


def test_descriptions_name_the_colour_if_there_is_one():
    clip = scene(("car", RED, LEFT), ("teddy bear", NO_COLOR, RIGHT))
    assert [description(clip, n) for n in (0, 1)] == ["the red car", "the teddy bear"]
    assert describe("mug", BLUE) == "the blue mug"


@given(
    boxes=st.lists(st.tuples(*[st.floats(0.05, 0.6)] * 2, *[st.floats(0.05, 0.35)] * 2), min_size=1, max_size=4),
    colors=st.lists(st.integers(-1, 5), min_size=4, max_size=4),
    names=st.lists(st.sampled_from(["car", "boot"]), min_size=4, max_size=4),
)
def test_no_words_mean_two_objects(boxes, colors, names):
    objects = [(names[i], colors[i], (x, y, x + w, y + h)) for i, (x, y, w, h) in enumerate(boxes)]
    clip = scene(*objects)
    said = [text for target in range(len(boxes)) for text in texts(clip, target)]
    assert len(said) == len(set(said))


class TestChoose:
    def test_the_plain_name_as_often_as_asked(self):
        found = references(scene(("car", RED, LEFT), ("boot", BLUE, RIGHT)), 0)
        rng = np.random.default_rng(0)
        drawn = [choose(rng, found, 0.6) for _ in range(500)]
        assert sum(reference.kind == "name" for reference in drawn) / 500 == pytest.approx(0.6, abs=0.07)
        assert {reference.kind for reference in drawn} == {"name", "color", "place"}
        assert {reference.noun for reference in drawn} == {"car", ANY_OBJECT}

    def test_always_plain_where_it_will_do(self):
        found = references(scene(("car", RED, LEFT)), 0)
        assert all(choose(np.random.default_rng(i), found, 1.0).text == "the car" for i in range(20))

    def test_nothing_to_choose_from(self):
        with pytest.raises(ValueError, match="told apart"):
            choose(np.random.default_rng(0), [], 0.5)
