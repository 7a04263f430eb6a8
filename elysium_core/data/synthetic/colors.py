"""Colour words of sprites, and dyeing a sprite in another colour."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
"""Colour words; an object's colour is an index into this tuple, or NO_COLOR."""

NO_COLOR = -1
"""Colour of an object that no single colour word fits."""

# Hue of a dyed sprite, and the range of hues that the word stands for [degrees / 2, as OpenCV counts].
_DYES = (0, 13, 27, 62, 108, 140)
_RANGES = ((-8, 8), (9, 18), (22, 33), (38, 85), (92, 122), (126, 155))
# Paler or darker pixels have another colour word (pale red is pink, dark or pale orange is brown, dark yellow is
# olive), or none that a camera would show reliably.
_LEAST_SATURATION = (160, 185, 110, 110, 110, 110)
_LEAST_VALUE = (90, 190, 190, 90, 90, 90)
_DOMINANT_SHARE, _TINGE_SHARE = 0.4, 0.15
_SOLID_ALPHA = 128


def color_shares(bgra: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of a sprite's solid pixels that has each colour, shape (6,), 0..1.

    Args:
        bgra: (H, W, 4) uint8; colour is not multiplied by alpha.
    """
    solid = bgra[..., 3] > _SOLID_ALPHA
    hue, saturation, value = (np.asarray(c, np.int16)[solid] for c in cv2.split(_hsv(bgra)))
    # Red hues are at both ends of the range.
    hue = np.where(hue >= 172, hue - 180, hue)
    shares = np.zeros(len(COLORS))
    for color, (low, high) in enumerate(_RANGES):
        vivid = (saturation >= _LEAST_SATURATION[color]) & (value >= _LEAST_VALUE[color])
        shares[color] = (vivid & (hue >= low) & (hue <= high)).mean()
    return shares


def natural_color(shares: NDArray[np.float64]) -> int:
    """Return the colour of an undyed sprite: its clearly dominant colour, or NO_COLOR."""
    first, second = np.sort(shares)[[-1, -2]]
    return int(shares.argmax()) if first >= _DOMINANT_SHARE and second < _TINGE_SHARE else NO_COLOR


def possible_dyes(shares: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the colours that a sprite hardly shows: dyed in one of them, it differs clearly from the undyed sprite."""
    return tuple(int(color) for color in np.flatnonzero(shares < _TINGE_SHARE))


def dyed(bgra: NDArray[np.uint8], color: int) -> NDArray[np.uint8]:
    """Return a copy of a sprite in light and dark shades of one hue.

    Args:
        bgra: (H, W, 4) uint8; colour is not multiplied by alpha.
        color: Index into :data:`COLORS`.
    """
    hsv = _hsv(bgra).astype(np.float32)
    hsv[..., 0] = _DYES[color]
    hsv[..., 1] = 130 + 0.5 * hsv[..., 1]
    # Black parts show a dye only when they are made lighter.
    hsv[..., 2] = 255 * (hsv[..., 2] / 255) ** 0.6
    result = bgra.copy()
    result[..., :3] = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return result


def _hsv(bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(bgra[..., :3]), cv2.COLOR_BGR2HSV), np.uint8)
