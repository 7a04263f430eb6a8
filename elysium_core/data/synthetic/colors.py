"""Colour words: which one a sprite deserves by itself, and how a sprite is dyed to deserve another."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
"""Colour words; an object's colour is an index of this tuple, or NO_COLOR."""

NO_COLOR = -1
"""Colour of an object that no single colour word fits."""

# Hue that a dyed sprite gets, and the range of hues that deserve the word [OpenCV: degrees / 2].
_DYES = (0, 13, 27, 62, 108, 140)
_RANGES = ((-8, 8), (9, 18), (22, 33), (38, 85), (92, 122), (126, 155))
# A paler or darker pixel has no colour that a camera would show reliably.
# Pale red is pink, dark or pale orange brown, dark yellow olive: words of their own.
_LEAST_SATURATION = (160, 185, 110, 110, 110, 110)
_LEAST_VALUE = (90, 190, 190, 90, 90, 90)
_DOMINANT_SHARE, _TINGE_SHARE = 0.4, 0.15
_SOLID_ALPHA = 128


def color_shares(bgra: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of a sprite's solid pixels that deserves each colour word, shape (6,), 0..1.

    Args:
        bgra: (H, W, 4) uint8, alpha not multiplied in.
    """
    solid = bgra[..., 3] > _SOLID_ALPHA
    hue, saturation, value = (np.asarray(c, np.int16)[solid] for c in cv2.split(_hsv(bgra)))
    # Reds lie on both ends of the circle.
    hue = np.where(hue >= 172, hue - 180, hue)
    shares = np.zeros(len(COLORS))
    for color, (low, high) in enumerate(_RANGES):
        vivid = (saturation >= _LEAST_SATURATION[color]) & (value >= _LEAST_VALUE[color])
        shares[color] = (vivid & (hue >= low) & (hue <= high)).mean()
    return shares


def natural_color(shares: NDArray[np.float64]) -> int:
    """The colour word that fits a sprite as it is: its one clearly dominant colour, else NO_COLOR."""
    first, second = np.sort(shares)[[-1, -2]]
    return int(shares.argmax()) if first >= _DOMINANT_SHARE and second < _TINGE_SHARE else NO_COLOR


def possible_dyes(shares: NDArray[np.float64]) -> tuple[int, ...]:
    """Colours that a sprite does not show a trace of: dyed so, nobody could confuse it with itself undyed."""
    return tuple(int(color) for color in np.flatnonzero(shares < _TINGE_SHARE))


def dyed(bgra: NDArray[np.uint8], color: int) -> NDArray[np.uint8]:
    """A copy of a sprite in one colour: its drawing stays, in light and dark of the hue.

    Args:
        bgra: (H, W, 4) uint8, alpha not multiplied in.
        color: Index of :data:`COLORS`.
    """
    hsv = _hsv(bgra).astype(np.float32)
    hsv[..., 0] = _DYES[color]
    hsv[..., 1] = 130 + 0.5 * hsv[..., 1]
    # Black things show their dye only when lifted out of the dark.
    hsv[..., 2] = 255 * (hsv[..., 2] / 255) ** 0.6
    result = bgra.copy()
    result[..., :3] = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return result


def _hsv(bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(bgra[..., :3]), cv2.COLOR_BGR2HSV), np.uint8)
