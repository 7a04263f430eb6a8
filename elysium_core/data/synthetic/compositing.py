"""Rendering of generated clips: a background, sprites over it with their exact boxes, and the flaws of a camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.assets import Sprite
from elysium_core.data.synthetic.scene import Motion

_NOISE_SIDE = 1024
_NOISE = np.random.default_rng(0).normal(size=(_NOISE_SIDE, _NOISE_SIDE)).astype(np.float32)


def draw_backgrounds(
    rng: np.random.Generator,
    photos: Sequence[NDArray[np.uint8]],
    side_px: int,
    times: NDArray[np.float64],
    procedural_share: float,
) -> NDArray[np.uint8]:
    """Draw the background of every frame with a slow camera pan: a crop of a photo, or a procedural texture.

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
    # The pan swings between the margins, so that it never leaves the picture.
    swing = margin * np.sin(direction[None, :] * times[:, None] / margin)
    offsets = margin + np.round(swing).astype(int)
    return np.stack([wide[y : y + side_px, x : x + side_px] for x, y in offsets])


def apply_camera(rng: np.random.Generator, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add the flaws of a camera: exposure, colour cast, flicker, sensor noise and sometimes blur.

    Args:
        rng: Source of all randomness.
        images: Shape (T, S, S, 3), uint8 RGB.

    Returns:
        Shape (T, S, S, 3), uint8 RGB, a new array.
    """
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
    flicker = 1 + rng.normal(0, 0.02, (len(images), 1))
    # One lookup table for each frame and channel replaces arithmetic on every pixel.
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
        # A crop of one fixed noise field: drawing noise for every frame would take longer than all the rest.
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
    """Draw a plain colour, a gradient, noise of several scales, or stripes, in two random colours."""
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


# A pixel is part of a sprite from this alpha on; softer edges are outside its box.
_SOLID_ALPHA = 64


@dataclass(frozen=True, slots=True, eq=False)
class RenderedClip:
    """A rendered clip. N objects, T frames, S the frame's side [px].

    Attributes:
        images: (T, S, S, 3) uint8 RGB.
        boxes: (N, T, 4) float32, x1 y1 x2 y2 as fractions of the frame, clipped to it;
            zeros where no solid pixel is inside the frame.
        visible: (N, T) float32, share of the sprite's solid pixels that is inside the
            frame and not covered.
        owner: (T, S, S) int8, index of the object on top of each pixel, -1 for background.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]
    owner: NDArray[np.int8]


def render_clip(backgrounds: NDArray[np.uint8], sprites: Sequence[Sprite], motion: Motion) -> RenderedClip:
    """Draw sprites over backgrounds; later sprites cover earlier ones.

    Args:
        backgrounds: (T, S, S, 3) uint8 RGB; changed in place.
        sprites: N sprites, the most distant one first.
        motion: Their motion over T frames.
    """
    frames, side = backgrounds.shape[:2]
    boxes = np.zeros((len(sprites), frames, 4), np.float32)
    solid_pixels = np.zeros((len(sprites), frames), np.float32)
    owner = np.full((frames, side, side), -1, np.int8)
    for t in range(frames):
        for n, sprite in enumerate(sprites):
            if not motion.present[n, t]:
                continue
            layer = _warp(sprite, motion, n, t, side)
            solid_pixels[n, t], boxes[n, t] = _paste(backgrounds[t], owner[t], layer, n)
    shown = np.stack([(owner == n).sum(axis=(1, 2)) for n in range(len(sprites))]).astype(np.float32)
    visible = np.asarray(shown / np.maximum(solid_pixels, 1), np.float32)
    return RenderedClip(backgrounds, np.asarray(boxes / side, np.float32), visible, owner)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    rgba: NDArray[np.uint8]
    left: int
    top: int


def _warp(sprite: Sprite, motion: Motion, n: int, t: int, side: int) -> _Layer:
    """Scale and rotate a sprite into a square that is just large enough for it."""
    length = motion.side[n, t] * side
    level = sprite.levels[0]
    for smaller in sprite.levels[1:]:
        if smaller.shape[0] >= length:
            level = smaller
    stretch = motion.stretch[n]
    width, height = length * min(stretch, 1.0), length / max(stretch, 1.0)
    extent = int(np.ceil(np.hypot(width, height))) + 2
    center_x, center_y = motion.center[n, t] * side
    left, top = int(np.floor(center_x - extent / 2)), int(np.floor(center_y - extent / 2))
    cos, sin = np.cos(motion.angle[n, t]), np.sin(motion.angle[n, t])
    scale_x, scale_y = width / level.shape[1], height / level.shape[0]
    linear = np.array([[cos * scale_x, -sin * scale_y], [sin * scale_x, cos * scale_y]])
    linear[0] *= motion.squash
    middle = np.array([(level.shape[1] - 1) / 2, (level.shape[0] - 1) / 2])
    # Pixel centres are at +0.5: coordinate c of the frame is pixel index c - 0.5.
    offset = np.array([center_x - left - 0.5, center_y - top - 0.5]) - linear @ middle
    matrix = np.column_stack([linear, offset])
    rgba = cv2.warpAffine(level, matrix, (extent, extent), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return _Layer(np.asarray(rgba, np.uint8), left, top)


def _paste(
    image: NDArray[np.uint8], owner: NDArray[np.int8], layer: _Layer, index: int
) -> tuple[float, NDArray[np.float32]]:
    """Blend one layer in place; return its number of solid pixels and its box [px], clipped to the frame."""
    side, extent = image.shape[0], layer.rgba.shape[0]
    solid_total = float((layer.rgba[..., 3] > _SOLID_ALPHA).sum())
    x1, y1 = max(layer.left, 0), max(layer.top, 0)
    x2, y2 = min(layer.left + extent, side), min(layer.top + extent, side)
    box = np.zeros(4, np.float32)
    if x2 <= x1 or y2 <= y1:
        return solid_total, box
    part = layer.rgba[y1 - layer.top : y2 - layer.top, x1 - layer.left : x2 - layer.left]
    region = image[y1:y2, x1:x2]
    keep = 255 - part[..., 3:].astype(np.uint16)
    region[:] = np.minimum(part[..., :3] + (region * keep + 127) // 255, 255)
    solid = part[..., 3] > _SOLID_ALPHA
    owner[y1:y2, x1:x2][solid] = index
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    if len(columns):
        box[:] = (x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1)
    return solid_total, box
