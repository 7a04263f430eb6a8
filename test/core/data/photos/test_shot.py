from __future__ import annotations

import numpy as np
import pytest

from elysium_core.data.photos.scene_parts import lay
from elysium_core.data.photos.shot import Placed, Shot, box_in_frame, ellipse, into_crop, render
from elysium_core.data.photos.warps import about, draw_thin_plate, rotation, scaling, tilt, translation
from elysium_core.io.crop import Crop

WIDTH, HEIGHT = 240, 180
WARPS = {
    "none": {},
    "turned": {"angle": 0.7},
    "stretched": {"stretch": 1.4},
    "tilted": {"tilts": (0.003, -0.002)},
    "bent": {"bend": 0.06},
    "all": {"angle": -0.4, "stretch": 0.8, "tilts": (-0.002, 0.002), "bend": 0.06},
}


def placed_disc(drawing, x=120.0, y=90.0, size=48.0, angle=0.0, stretch=1.0, tilts=(0.0, 0.0), bend=0.0, **changes):
    cutout = drawing.disc_cutout()
    matrix = about(tilt(*tilts), x, y) @ lay(cutout, x, y, size, angle, stretch)
    return Placed(cutout, matrix, draw_thin_plate(np.random.default_rng(5), bend) if bend else None, **changes)


def shot_of(drawing, *placed, **changes):
    return Shot(drawing.texture(0), np.eye(3), WIDTH, HEIGHT, placed, **changes)


def drawn(shot):
    return render(shot, np.eye(3), WIDTH, HEIGHT)


@pytest.mark.parametrize("side_px", [64, 128])
@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("place", [(120.0, 90.0), (101.3, 80.7), (20.0, 100.0), (230.0, 170.0)])
def test_the_box_of_a_cutout_is_the_extent_of_its_pixels(drawing, warp, place, side_px):
    shot = shot_of(drawing, placed_disc(drawing, *place, **WARPS[warp]), target=0)
    box = box_in_frame(shot.target_box(), WIDTH, HEIGHT)
    crop = Crop.around(box, WIDTH, HEIGHT, 2)
    rendering = render(shot, into_crop(crop, side_px), side_px, side_px)
    assert np.abs(drawing.marked_box(rendering.pixels) - rendering.box).max() <= 1.0


@pytest.mark.parametrize("warp", WARPS)
def test_the_box_of_a_part_of_a_photo_is_the_extent_of_its_pixels(drawing, warp):
    settings = {"angle": 0.0, "stretch": 1.0, "tilts": (0.0, 0.0), "bend": 0.0} | WARPS[warp]
    box = np.array([0.35, 0.3, 0.6, 0.55])
    outline = ellipse(box * [WIDTH, HEIGHT, WIDTH, HEIGHT])
    change = tilt(*settings["tilts"]) @ rotation(settings["angle"]) @ scaling(settings["stretch"], 1)
    shot = Shot(
        drawing.with_ellipse(drawing.texture(1), box),
        translation(4, -6) @ about(change, 114, 76),
        WIDTH,
        HEIGHT,
        outline=outline,
        photo_bend=draw_thin_plate(np.random.default_rng(2), settings["bend"] / 2) if settings["bend"] else None,
    )
    crop = Crop.around(box_in_frame(shot.target_box(), WIDTH, HEIGHT), WIDTH, HEIGHT, 2)
    rendering = render(shot, into_crop(crop, 128), 128, 128)
    assert np.abs(drawing.marked_box(rendering.pixels) - rendering.box).max() <= 1.0


def test_an_anchor_is_what_the_crop_of_the_whole_frame_shows(drawing):
    """Drawing straight into a crop gives what a tracker cuts out of the frame."""
    shot = shot_of(drawing, placed_disc(drawing, 40, 60), target=0)
    crop = Crop.around(box_in_frame(shot.target_box(), WIDTH, HEIGHT), WIDTH, HEIGHT, 2)
    direct = render(shot, into_crop(crop, 128), 128, 128).pixels.astype(int)
    cut = crop.cut(drawn(shot).pixels, 128).astype(int)
    assert crop.x < 0
    assert np.abs(direct - cut).mean() < 4


def test_visible_share_of_what_is_covered_by_half(drawing):
    target = placed_disc(drawing, 120, 90, 60)
    half = Placed(drawing.disc_cutout(color=(0, 0, 255)), lay(drawing.disc_cutout(), 180, 90, 120))
    alone, covered = drawn(shot_of(drawing, target, target=0)), drawn(shot_of(drawing, target, half, target=0))
    assert alone.visible == pytest.approx(1, abs=0.03)
    assert 0.3 < covered.visible < 0.8
    marked = (np.minimum(covered.pixels[..., 0], covered.pixels[..., 2]) > 150).sum()
    assert covered.visible == pytest.approx(marked / (np.pi / 4 * 60 * 60), abs=0.05)
    assert covered.box == pytest.approx(alone.box)
    assert drawn(shot_of(drawing, half, target, target=1)).visible == pytest.approx(1, abs=0.03)


def test_an_object_cut_by_the_frame_has_the_box_of_its_part_inside(drawing):
    rendering = drawn(shot_of(drawing, placed_disc(drawing, 0, 90, 60), target=0))
    assert rendering.box[0] == 0
    assert rendering.visible == pytest.approx(0.5, abs=0.04)


def test_an_object_outside_has_no_box(drawing):
    rendering = drawn(shot_of(drawing, placed_disc(drawing, -80, 90, 60), target=0))
    assert rendering.box is None
    assert rendering.visible == 0


def test_a_part_of_a_photo_is_covered_by_what_is_in_front(drawing):
    outline = ellipse(np.array([100.0, 70.0, 140.0, 110.0]))
    cover = placed_disc(drawing, 120, 90, 150)
    assert drawn(shot_of(drawing, outline=outline)).visible == pytest.approx(1)
    assert drawn(shot_of(drawing, cover, outline=outline)).visible == pytest.approx(0, abs=0.02)


def test_boxes_of_look_alikes_that_are_seen(drawing):
    seen = placed_disc(drawing, 60, 50, 40, is_like=True)
    hidden = placed_disc(drawing, 180, 130, 20, is_like=True)
    over = placed_disc(drawing, 180, 130, 60)
    outside = placed_disc(drawing, 500, 500, 40, is_like=True)
    in_photo = ellipse(np.array([150.0, 20.0, 190.0, 50.0]))
    rendering = drawn(shot_of(drawing, seen, hidden, over, outside, like_outlines=(in_photo,)))
    assert len(rendering.like_boxes) == 2
    assert rendering.like_boxes[0] == pytest.approx(seen.box(), abs=0.5)
    assert rendering.like_boxes[1] == pytest.approx([150, 20, 190, 50], abs=0.5)


def test_outside_the_frame_is_its_mean_colour_and_beyond_the_photo_another_photo(drawing):
    photo, other = drawing.texture(0), np.full((50, 50, 3), (9, 9, 200), np.uint8)
    crop = into_crop(Crop(-120.0, -90.0, 240.0, WIDTH, HEIGHT), 64)
    outside = render(Shot(photo, np.eye(3), WIDTH, HEIGHT), crop, 64, 64).pixels
    assert np.abs(outside[:20, :20].astype(float) - photo.mean((0, 1))).max() <= 1
    shifted = Shot(photo, translation(100, 0), WIDTH, HEIGHT, beyond=other)
    assert (drawn(shifted).pixels[:, :98] == (9, 9, 200)).all()
    assert (drawn(shifted).pixels[:, 104:] == photo[:, 4 : WIDTH - 100]).mean() > 0.9
