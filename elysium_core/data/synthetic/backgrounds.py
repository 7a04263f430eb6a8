"""Backgrounds of generated clips: a panned crop of a photo, or a procedural texture; and the camera's flaws."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_NOISE_SIDE = 1024
_NOISE = np.random.default_rng(0).normal(size=(_NOISE_SIDE, _NOISE_SIDE)).astype(np.float32)


def draw_backgrounds(
    rng: np.random.Generator,
    photos: Sequence[NDArray[np.uint8]],
    side_px: int,
    times: NDArray[np.float64],
    procedural_share: float,
) -> NDArray[np.uint8]:
    """Draw the background of every frame, with a slow camera pan.

    Args:
        rng: Source of all randomness.
        photos: RGB uint8 pictures; may be empty.
        side_px: Frame side S [px].
        times: Shape (T,), time of each frame [time units].
        procedural_share: Share of clips without a photo, 0..1.

    Returns:
        Shape (T, S, S, 3), uint8 RGB, freshly allocated.
    """
    margin = side_px // 8
    large = side_px + 2 * margin
    if photos and rng.random() >= procedural_share:
        wide = _photo_crop(rng, photos[int(rng.integers(len(photos)))], large)
    else:
        wide = _procedural(rng, large)
    direction = rng.normal(0, 0.02 * side_px, 2)
    # A pan never leaves the picture: it swings between the margins.
    swing = margin * np.sin(direction[None, :] * times[:, None] / margin)
    offsets = margin + np.round(swing).astype(int)
    return np.stack([wide[y : y + side_px, x : x + side_px] for x, y in offsets])


def apply_camera(rng: np.random.Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add what a camera adds: exposure, colour cast, flicker, sometimes blur, sensor noise.

    Args:
        rng: Source of all randomness.
        images: Shape (T, S, S, 3), uint8 RGB.

    Returns:
        Shape (T, S, S, 3), uint8 RGB, a new array.
    """
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
    flicker = 1 + rng.normal(0, 0.02, (len(images), 1))
    # One table per frame and channel replaces arithmetic on every pixel.
    levels = np.arange(256)[None, :, None]
    tables = np.clip(levels * (gain[None] * flicker)[:, None, :] + rng.normal(0, 6), 0, 255).astype(np.uint8)
    blur = rng.random() < 0.15
    sigma = rng.uniform(0, 6)
    result = np.empty_like(images)
    for t, image in enumerate(images):
        frame = cv2.LUT(image, tables[t][:, None, :])
        result[t] = cv2.GaussianBlur(frame, (3, 3), 0) if blur else frame
    side = images.shape[1]
    for t in range(len(result)):
        # A window of one fixed field: drawing normals for every frame would cost more than all the rest.
        dy, dx = rng.integers(0, _NOISE_SIDE - side, 2)
        noise = (_NOISE[dy : dy + side, dx : dx + side] * sigma).astype(np.int16)
        result[t] = np.clip(result[t] + noise[..., None], 0, 255).astype(np.uint8)
    return result


def _photo_crop(rng: np.random.Generator, photo: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    crop = int(min(height, width) * rng.uniform(0.5, 1.0))
    top, left = int(rng.integers(0, height - crop + 1)), int(rng.integers(0, width - crop + 1))
    wide = cv2.resize(photo[top : top + crop, left : left + crop], (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide[:, ::-1] if rng.random() < 0.5 else wide, np.uint8)


def _procedural(rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    """Draw a plain colour, a gradient, noise in octaves, or stripes, in two random colours."""
    first, second = rng.uniform(0, 255, (2, 3))
    kind = rng.integers(4)
    if kind == 0:
        weight = np.zeros((side_px, side_px), np.float32)
    elif kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:side_px, 0:side_px] / side_px - 0.5
        weight = np.clip(0.5 + x * np.cos(angle) + y * np.sin(angle), 0, 1)
    elif kind == 2:
        weight = _octaves(rng, side_px)
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.4)
        y, x = np.mgrid[0:side_px, 0:side_px] / side_px
        weight = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period))
    mixed = first + (second - first) * np.asarray(weight, np.float32)[..., None]
    return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def _octaves(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    total = np.zeros((side_px, side_px), np.float32)
    for cells in (3, 6, 12, 24):
        coarse = rng.random((cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_CUBIC) * (3.0 / cells)
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)
