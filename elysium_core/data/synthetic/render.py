"""Compositing: sprites over a background, with exact boxes and who-covers-what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.assets import Sprite
from elysium_core.data.synthetic.scene import Motion

# A pixel belongs to a sprite from this alpha on; softer edges are not part of its box.
_SOLID_ALPHA = 64


@dataclass(frozen=True, slots=True, eq=False)
class RenderedClip:
    """A drawn clip. N objects, T frames, S the frame's side [px].

    Attributes:
        images: (T, S, S, 3) uint8 RGB.
        boxes: (N, T, 4) float32, x1 y1 x2 y2 as fractions of the frame, cut to it;
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
        backgrounds: (T, S, S, 3) uint8 RGB, drawn over in place.
        sprites: N sprites, the farthest first.
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
    """Scale and rotate a sprite into a square just large enough for it at its place."""
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
    # Pixel centres lie at +0.5: the frame's coordinate c is the pixel index c - 0.5.
    offset = np.array([center_x - left - 0.5, center_y - top - 0.5]) - linear @ middle
    matrix = np.column_stack([linear, offset])
    rgba = cv2.warpAffine(level, matrix, (extent, extent), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return _Layer(np.asarray(rgba, np.uint8), left, top)


def _paste(
    image: NDArray[np.uint8], owner: NDArray[np.int8], layer: _Layer, index: int
) -> tuple[float, NDArray[np.float32]]:
    """Blend one layer in place; return its solid pixels and its box [px], cut to the frame."""
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
