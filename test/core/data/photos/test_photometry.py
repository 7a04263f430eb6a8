from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elysium_core.data.photos.photometry import CameraSettings, draw_camera
from elysium_core.errors import ConfigError

NEUTRAL = CameraSettings(
    **dict.fromkeys(("gain", "offset", "tint", "noise"), 0.0),
    **{name: 0.0 for name in CameraSettings.__dataclass_fields__ if name.endswith("_share")},
)
PICTURE = np.random.default_rng(0).integers(40, 200, (64, 64, 3)).astype(np.uint8)


def taken(seed=0, image=PICTURE, keep_color=False, **changes):
    rng = np.random.default_rng(seed)
    return draw_camera(rng, replace(NEUTRAL, **changes), len(image), keep_color=keep_color).apply(image, rng)


def test_a_neutral_camera_changes_nothing():
    assert np.abs(taken().astype(int) - PICTURE).max() <= 1


def test_exposure_stays_in_its_range_and_reaches_both_ends():
    flat = np.full((32, 32, 3), 100, np.uint8)
    means = [taken(seed, flat, exposure_share=1.0, exposure=(0.3, 2.0)).mean() for seed in range(200)]
    assert 29 <= min(means) < 40
    assert 180 < max(means) <= 200


def test_saturation_zero_is_a_gray_picture_of_the_same_brightness():
    gray = taken(saturation_share=1.0, saturation=(0.0, 0.0))
    assert (gray.max(axis=-1) - gray.min(axis=-1)).max() <= 1
    assert gray.mean() == pytest.approx((PICTURE @ [0.299, 0.587, 0.114]).mean(), abs=1)


def test_color_is_kept_where_it_matters():
    colorful = [taken(seed, keep_color=True, saturation_share=1.0, saturation=(0.0, 0.0)) for seed in range(5)]
    assert all((image == colorful[0]).all() for image in colorful)
    assert np.ptp(colorful[0], axis=-1).max() > 50


@pytest.mark.parametrize(
    "changes",
    [
        {"blur_share": 1.0, "blur": 2.0},
        {"motion_share": 1.0, "motion_px": (8, 8)},
        {"coarse_share": 1.0, "coarse": (0.3, 0.3)},
    ],
)
def test_blur_takes_detail_and_keeps_brightness(changes):
    image = taken(**changes)
    assert image.std() < 0.75 * PICTURE.std()
    assert image.mean() == pytest.approx(PICTURE.mean(), abs=1.5)


def test_a_motion_blur_runs_along_its_direction():
    dot = np.zeros((65, 65, 3), np.uint8)
    dot[30:35, 30:35] = 255
    rng = np.random.default_rng(0)
    camera = replace(draw_camera(rng, NEUTRAL, 65), motion=(15, 0.0))
    ys, xs = np.nonzero(camera.apply(dot, rng)[..., 0] > 10)
    assert np.ptp(xs) > 2 * np.ptp(ys)


def test_noise_has_the_strength_that_was_asked_for():
    flat = np.full((64, 64, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    assert replace(draw_camera(rng, NEUTRAL, 64), noise=6.0).apply(flat, rng).std() == pytest.approx(6, rel=0.1)


def test_compression_is_visible_and_small():
    image = taken(jpeg_share=1.0, jpeg=(50, 50), image=np.repeat(np.repeat(PICTURE[:8, :8], 8, 0), 8, 1))
    difference = np.abs(image.astype(int) - np.repeat(np.repeat(PICTURE[:8, :8], 8, 0), 8, 1))
    assert 0.5 < difference.mean() < 20


def test_the_same_seed_takes_the_same_picture():
    everything = {name: 1.0 for name in CameraSettings.__dataclass_fields__ if name.endswith("_share")}
    assert (taken(4, noise=9.0, **everything) == taken(4, noise=9.0, **everything)).all()
    assert (taken(4, noise=9.0, **everything) != taken(5, noise=9.0, **everything)).any()


@pytest.mark.parametrize("wrong", [{"blur_share": 1.2}, {"exposure": (2.0, 0.3)}, {"noise": -1.0}, {"jpeg": (-5, 50)}])
def test_wrong_ranges_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CameraSettings(**wrong)
