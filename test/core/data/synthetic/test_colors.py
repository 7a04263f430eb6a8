from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.synthetic.assets import load_dyed_sprite, load_sprites
from elysium_core.data.synthetic.colors import COLORS, NO_COLOR, color_shares, dyed, natural_color, possible_dyes

PLAIN = {
    "red": (230, 30, 30),
    "orange": (250, 125, 10),
    "yellow": (245, 220, 20),
    "green": (40, 180, 50),
    "blue": (20, 90, 230),
    "purple": (140, 30, 200),
}


def patch_of(*rgb_columns: tuple[int, int, int]) -> np.ndarray:
    """A solid BGRA sprite with one column of pixels for each colour."""
    row = np.array([[b, g, r, 255] for r, g, b in rgb_columns], np.uint8)
    return np.repeat(row[None], 8, axis=0)


@pytest.mark.parametrize("word", PLAIN)
def test_a_plain_colour_has_its_word(word):
    assert COLORS[natural_color(color_shares(patch_of(PLAIN[word])))] == word


@pytest.mark.parametrize(
    "rgb",
    [(128, 128, 128), (255, 255, 255), (10, 10, 10), (255, 190, 200), (120, 70, 30), (250, 220, 190), (90, 90, 30)],
    ids=["grey", "white", "black", "pink", "brown", "skin", "olive"],
)
def test_other_colours_have_none(rgb):
    assert natural_color(color_shares(patch_of(rgb))) == NO_COLOR


def test_two_colours_are_no_colour_and_neither_is_a_dye():
    shares = color_shares(patch_of(PLAIN["red"], PLAIN["green"]))
    assert natural_color(shares) == NO_COLOR
    assert {COLORS[color] for color in possible_dyes(shares)} == {"orange", "yellow", "blue", "purple"}


def test_what_is_transparent_does_not_count():
    sprite = patch_of(PLAIN["red"], *[PLAIN["green"]] * 3)
    sprite[:, 1:, 3] = 0
    assert COLORS[natural_color(color_shares(sprite))] == "red"


@given(color=st.integers(0, len(COLORS) - 1), rgb=st.tuples(*[st.integers(60, 255)] * 3))
def test_dyeing_gives_the_hue_and_keeps_the_outline(color, rgb):
    sprite = patch_of(rgb)
    sprite[0, 0, 3] = 77
    after = dyed(sprite, color)
    np.testing.assert_array_equal(after[..., 3], sprite[..., 3])
    hue = int(cv2.cvtColor(after[1:2, :1, :3], cv2.COLOR_BGR2HSV)[0, 0, 0])
    wanted = int(cv2.cvtColor(patch_of(PLAIN[COLORS[color]])[:1, :1, :3], cv2.COLOR_BGR2HSV)[0, 0, 0])
    assert min(abs(hue - wanted), 180 - abs(hue - wanted)) <= 12


def test_a_sprite_is_never_dyed_in_a_colour_it_shows():
    (car,) = load_sprites(["car"])
    assert COLORS[car.color] == "red"
    assert "red" not in {COLORS[color] for color in car.dyes}
    blue = load_dyed_sprite("car", COLORS.index("blue"))
    assert COLORS[blue.color] == "blue"
    assert (blue.levels[0] != car.levels[0]).any()
    np.testing.assert_array_equal(blue.levels[0][..., 3], car.levels[0][..., 3])
