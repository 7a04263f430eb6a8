from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import ConfigError, ImageError
from elysium_core.geometry import Box
from elysium_core.io.labels import drawable, label_size, shorten
from elysium_core.io.overlay import PALETTE, draw_boxes, draw_tracks, target_color
from elysium_core.types import TrackState, TrackUpdate

GRAY = np.full((240, 320, 3), 128, np.uint8)
BOX = Box(0.25, 0.4, 0.75, 0.9)
GRID = st.integers(0, 50).map(lambda n: n / 50)


def update(state=TrackState.TRACKED, box=BOX, target_id="1", expression="", last_box=None, score=0.9) -> TrackUpdate:
    return TrackUpdate(target_id, 0, box, score, state, expression=expression, last_box=last_box)


def edge_colors(image: np.ndarray, box: Box = BOX) -> np.ndarray:
    """The pixels along the lower edge of a box, where no label is, without its rounded corners."""
    height, width = image.shape[:2]
    x1, _, x2, y2 = (round(v) for v in box.to_px(width, height))
    return image[y2, x1 + 15 : x2 - 15].astype(int)


def is_colored(pixels: np.ndarray, color) -> np.ndarray:
    return np.abs(pixels - np.asarray(color)).max(axis=-1) < 40


def test_the_input_is_not_touched_and_the_result_is_new():
    image = GRAY.copy()
    drawn = draw_tracks(image, [update()])
    assert np.array_equal(image, GRAY)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert not np.shares_memory(drawn, image)
    assert not np.shares_memory(draw_tracks(image, []), image)


def test_a_tracked_box_is_solid_in_the_colour_of_its_target():
    for target_id in ("1", "2"):
        edge = edge_colors(draw_tracks(GRAY, [update(target_id=target_id)]))
        assert is_colored(edge, target_color(target_id)).all()


def test_an_uncertain_box_is_dashed_and_dimmed():
    edge = edge_colors(draw_tracks(GRAY, [update(TrackState.UNCERTAIN)]))
    background = is_colored(edge, (128, 128, 128))
    assert 0.2 < background.mean() < 0.8
    assert not is_colored(edge, PALETTE[0]).any()


def test_a_lost_target_is_words_and_never_a_box():
    drawn = draw_tracks(GRAY, [update(TrackState.LOST, box=None, last_box=BOX, expression="the mug")])
    assert is_colored(edge_colors(drawn), (128, 128, 128)).all()
    changed = np.argwhere((drawn != GRAY).any(axis=2))
    center = changed.mean(axis=0) / drawn.shape[:2]
    assert center == pytest.approx([BOX.center[1], BOX.center[0]], abs=0.03)


def test_a_target_that_was_never_seen_is_named_in_the_corner():
    drawn = draw_tracks(GRAY, [update(TrackState.LOST, box=None, target_id=str(n)) for n in (1, 2, 3)])
    rows, columns = np.nonzero((drawn != GRAY).any(axis=2))
    assert rows.min() > 120
    assert columns.max() < 200


def test_a_removed_target_is_not_drawn():
    assert np.array_equal(draw_tracks(GRAY, [update(TrackState.REMOVED, box=None, last_box=BOX)]), GRAY)


def test_labels_do_not_cover_each_other():
    apart = draw_tracks(
        GRAY, [update(target_id="1", expression="the mug"), update(target_id="2", expression="the mug")]
    )
    for number in ("1", "2"):
        width, height = label_size(f"{number}  the mug  90%", 11)
        filled = is_colored(apart.astype(int), target_color(number)).sum()
        assert filled > 0.5 * width * height


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_the_picture_is_scaled_before_it_is_drawn_on(scale):
    drawn = draw_tracks(GRAY, [update()], scale=scale)
    assert drawn.shape == (240 * scale, 320 * scale, 3)
    assert is_colored(edge_colors(drawn), PALETTE[0]).mean() > 0.9


@pytest.mark.parametrize("scale", [0, -1, 9, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ConfigError, match="scale"):
        draw_tracks(GRAY, [], scale=scale)


@pytest.mark.parametrize("image", [GRAY[:, :, 0], GRAY.astype(float), GRAY[:0], None])
def test_what_is_no_picture_is_refused(image):
    for draw in (draw_tracks, draw_boxes):
        with pytest.raises(ImageError):
            draw(image, [])


def test_views_of_other_arrays_are_drawn_on():
    flipped = GRAY[::-1, ::-1, ::-1]
    assert np.array_equal(draw_tracks(flipped, [update()]), draw_tracks(GRAY, [update()]))


def test_known_boxes_are_thin_and_white():
    drawn = draw_boxes(GRAY, [None, BOX], label="truth")
    assert is_colored(edge_colors(drawn), (255, 255, 255)).mean() > 0.9
    assert (drawn != GRAY).any(axis=2).sum() < (draw_tracks(GRAY, [update()]) != GRAY).any(axis=2).sum()
    assert np.array_equal(draw_boxes(GRAY, [None]), GRAY)


def test_a_colour_belongs_to_an_id():
    assert target_color("1") == PALETTE[0]
    assert len({target_color(str(number)) for number in range(1, len(PALETTE) + 1)}) == len(PALETTE)
    for odd in ("", "cup", "\ud800", "²", "٣", "-1", "0", "9" * 400):
        assert target_color(odd) in PALETTE


@given(st.data())
def test_anything_can_be_drawn(data):
    width, height = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    updates = []
    for _ in range(data.draw(st.integers(0, 4))):
        x1, x2 = sorted(data.draw(st.lists(GRID, min_size=2, max_size=2, unique=True)))
        y1, y2 = sorted(data.draw(st.lists(GRID, min_size=2, max_size=2, unique=True)))
        state = data.draw(st.sampled_from(TrackState))
        box = Box(x1, y1, x2, y2)
        has_box = state in (TrackState.TRACKED, TrackState.UNCERTAIN)
        updates.append(
            update(
                state,
                box if has_box else None,
                data.draw(st.text(max_size=4)),
                data.draw(st.text(max_size=30, alphabet=st.characters())),
                data.draw(st.sampled_from([None, box])),
                data.draw(st.floats(0, 1)),
            )
        )
    drawn = draw_tracks(np.zeros((height, width, 3), np.uint8), updates)
    assert drawn.shape == (height, width, 3)


@given(
    st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["C", "Z"]), max_size=40), st.integers(-50, 400)
)
def test_shortened_text_fits(text, width):
    short = shorten(text, width, 12)
    assert text.startswith(short.removesuffix("…"))
    assert short in ("", text) or short.endswith("…")
    if short:
        assert label_size(short, 12)[0] - label_size("", 12)[0] <= width + 2


def test_long_text_is_cut_once():
    assert shorten("the person in dark clothes", 1000, 12) == "the person in dark clothes"
    assert shorten("the person in dark clothes", 80, 12).startswith("the p")
    assert shorten("the person", 5, 12) == ""


def test_letters_without_a_glyph_are_left_out():
    assert drawable("the mug \U0010fffd", 12) == "the mug"
    assert drawable("café", 12) == "café"
