"""Pictures that the tests make themselves."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from elysium_core.data.photos.cutouts import Cutout, CutoutLibrary, make_cutout
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.photometry import CameraSettings
from elysium_core.io.image import write_image

MARK = (255, 0, 255)
"""Colour of the objects that are looked for by their pixels; no background has it."""

NEUTRAL = CameraSettings(
    gain=0.0,
    offset=0.0,
    tint=0.0,
    exposure_share=0.0,
    flat_share=0.0,
    saturation_share=0.0,
    gamma_share=0.0,
    ramp_share=0.0,
    coarse_share=0.0,
    blur_share=0.0,
    motion_share=0.0,
    noise=0.0,
    jpeg_share=0.0,
)
"""A camera that changes nothing."""

CLEAN = {"camera": NEUTRAL, "occluder_share": 0.0, "distractors": (0, 0), "distractor_share": 0.0}
"""Settings of pairs in which nothing is in the way."""


SIDES = np.array([240, 180, 240, 180])
"""Width and height [px] of the pictures, twice."""


def texture(seed: int, width: int = 240, height: int = 180) -> np.ndarray:
    """Green and gray clouds, RGB; red is never strong in them."""
    rng = np.random.default_rng(seed)
    clouds = cv2.resize(
        rng.uniform(0, 1, (9, 12, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    fine = rng.normal(0, 8, (height, width))
    gray = 90 + 60 * clouds[..., 0] + fine
    return np.clip(np.stack([gray * 0.6, gray + 40 * clouds[..., 1], gray * 0.5], -1), 0, 255).astype(np.uint8)


def with_ellipse(image: np.ndarray, box, color=MARK) -> np.ndarray:
    """Paint the ellipse in a box of fractions, without soft edges."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = np.array([*box]) * [width, height, width, height]
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2 <= 1
    image[inside] = color
    return image


def marked_box(image: np.ndarray) -> np.ndarray | None:
    """x1 y1 x2 y2 [px] of the pixels that are more of the mark's colour than of the background's."""
    pixels = image.astype(int)
    is_marked = np.minimum(pixels[..., 0], pixels[..., 2]) - pixels[..., 1] > 80
    ys, xs = np.nonzero(is_marked)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) if len(ys) else None


def disc_cutout(name: str = "disc", color=MARK, width: int = 60, height: int = 44, key: str = "") -> Cutout:
    """An ellipse of one colour with hard edges."""
    rgba = np.zeros((height, width, 4), np.uint8)
    with_ellipse(rgba, (0, 0, 1, 1), (*color, 255))
    cutout = make_cutout(name, key or f"{name}.png", rgba)
    assert cutout is not None
    return cutout


@pytest.fixture(scope="session")
def annotated_folder(tmp_path_factory) -> Path:
    """Sixty photos with ``annotations.jsonl``: a marked ellipse in each, in an exact box."""
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "images").mkdir()
    lines = []
    for number in range(60):
        rng = np.random.default_rng(number)
        middle, half = rng.uniform(0.35, 0.65, 2), rng.uniform(0.08, 0.13, 2)
        # On whole pixels, so that what is painted fills its box.
        box = np.round(np.concatenate([middle - half, middle + half]) * SIDES) / SIDES
        write_image(folder / "images" / f"{number}.png", with_ellipse(texture(number), box))
        entry = {"name": "disc", "box": [float(value) for value in box], "difficult": 0, "truncated": 0}
        lines.append(json.dumps({"image": f"images/{number}.png", "objects": [entry]}))
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory) -> Path:
    """Forty photos without boxes and without the mark."""
    folder = tmp_path_factory.mktemp("plain")
    for number in range(40):
        write_image(folder / f"{number}.png", texture(1000 + number))
    return folder


@pytest.fixture(scope="session")
def category_folder(tmp_path_factory) -> Path:
    """Two categories of twelve pictures each: something red, something blue, on clouds."""
    folder = tmp_path_factory.mktemp("categories")
    for number in range(24):
        category, color = (("ball", (220, 30, 30)), ("egg", (30, 40, 230)))[number % 2]
        rng = np.random.default_rng(number)
        half = rng.uniform(0.25, 0.35, 2)
        box = np.concatenate([0.5 - half, 0.5 + half])
        shades = texture(2000 + number, 120, 100)
        (folder / category).mkdir(exist_ok=True)
        write_image(folder / category / f"{number}.png", with_ellipse(shades, box, color))
    return folder


@pytest.fixture
def plain_photos(plain_folder, sprites_once) -> PhotoSet:
    return PhotoSet.open([plain_folder])


@pytest.fixture
def annotated_photos(annotated_folder, sprites_once) -> PhotoSet:
    return PhotoSet.open([annotated_folder])


@pytest.fixture
def disc_library() -> CutoutLibrary:
    return CutoutLibrary(sprites=[disc_cutout()])


@pytest.fixture
def clean_settings():
    """Make settings of pairs in which nothing is in the way."""
    return lambda **changes: PairSettings(**(CLEAN | changes))


@pytest.fixture(scope="session")
def drawing() -> SimpleNamespace:
    """The helpers above, for tests."""
    return SimpleNamespace(
        disc_cutout=disc_cutout, marked_box=marked_box, texture=texture, with_ellipse=with_ellipse, neutral=NEUTRAL
    )
