"""Text on pictures: anti-aliased labels on a rounded rectangle, and contact sheets with captions.

OpenCV draws ASCII letters only, and expressions may be in any language: Pillow
rasterises the text, and the result is blended into the picture as an alpha mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from elysium_core.frames import Frame
from elysium_core.io.image import resized

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_ELLIPSIS = "…"
# Longest name of a target that is drawn beside a box [characters].
_LONGEST_NAME = 40
# Pillow's built-in font covers Latin script. Other text needs one of these, where installed.
_WIDE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/System/Library/Fonts/PingFang.ttc",
)
_SHEET_GAP_PX = 6
_SHEET_GROUND, _SHEET_INK = (24, 24, 24), (225, 225, 225)


@dataclass(frozen=True, slots=True)
class LabelStyle:
    """How a label looks.

    Attributes:
        ground: RGB of the rounded rectangle.
        ink: RGB of the letters.
        opacity: Opacity of the rounded rectangle, 0..1.
    """

    ground: Color
    ink: Color
    opacity: float = 1.0


def target_name(target_id: int, words: str) -> str:
    """Return the short name of a target for display: its words, cut at a blank, or its number."""
    if not words:
        return f"target {target_id}"
    if len(words) <= _LONGEST_NAME:
        return words
    return words[:_LONGEST_NAME].rsplit(" ", 1)[0] + "..."


def shorten(text: str, width: int, font_px: int) -> str:
    """Return ``text``, cut at the end with an ellipsis if it is wider than ``width``.

    Args:
        text: A single line.
        width: Room for the letters [px]; a negative width counts as 0.
        font_px: Size of the letters [px].
    """
    font = font_for(text, font_px)
    if font.getlength(text) <= width:
        return text
    fits = 0
    for count in range(1, len(text)):
        if font.getlength(text[:count].rstrip() + _ELLIPSIS) > width:
            break
        fits = count
    return text[:fits].rstrip() + _ELLIPSIS if fits else ""


def label_size(text: str, font_px: int) -> tuple[int, int]:
    """Return ``(width, height)`` [px] of the label that :func:`draw_label` draws."""
    text_mask = _text_mask(text, font_px)
    pad_x, pad_y = _padding(font_px)
    return text_mask.shape[1] + 2 * pad_x, text_mask.shape[0] + 2 * pad_y


def draw_label(image: NDArray[np.uint8], text: str, x: int, y: int, font_px: int, style: LabelStyle) -> None:
    """Draw a label into ``image``, in place; parts outside the image are not drawn.

    Args:
        image: RGB, uint8, shape (height, width, 3).
        text: A single line.
        x: Left edge of the label [px].
        y: Top edge of the label [px].
        font_px: Size of the letters [px].
        style: Colours of the label.
    """
    text_mask = _text_mask(text, font_px)
    pad_x, pad_y = _padding(font_px)
    width, height = label_size(text, font_px)
    letters = np.zeros((height, width), np.uint8)
    letters[pad_y : pad_y + text_mask.shape[0], pad_x : pad_x + text_mask.shape[1]] = text_mask
    _blend(image, _pill_mask(width, height, max(2, font_px // 3)), x, y, style.ground, style.opacity)
    _blend(image, letters, x, y, style.ink, 1.0)


def contact_sheet(frames: Sequence[Frame], captions: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Arrange frames in a grid, each with a caption in a strip below it.

    Args:
        frames: At least one; all are scaled to the size of the first.
        captions: One for each frame; its number if there are none.

    Returns:
        An RGB uint8 picture.
    """
    height, width = frames[0].height, frames[0].width
    columns = min(len(frames), math.ceil(math.sqrt(len(frames) * height / width * 1.5)))
    rows = math.ceil(len(frames) / columns)
    font_px = max(10, round(width / 28))
    strip_px = label_size("frame", font_px)[1]
    row_px, column_px = height + strip_px + _SHEET_GAP_PX, width + _SHEET_GAP_PX
    sheet = np.full((rows * row_px + _SHEET_GAP_PX, columns * column_px + _SHEET_GAP_PX, 3), _SHEET_GROUND, np.uint8)
    for position, frame in enumerate(frames):
        row, column = divmod(position, columns)
        top, left = _SHEET_GAP_PX + row * row_px, _SHEET_GAP_PX + column * column_px
        sheet[top : top + height, left : left + width] = resized(frame.image, width, height)
        style = LabelStyle(_SHEET_GROUND, _SHEET_INK)
        caption = shorten(captions[position], width - 2 * font_px, font_px) if captions else f"frame {frame.index}"
        draw_label(sheet, caption, left, top + height, font_px, style)
    return sheet


def rounded_path(x1: float, y1: float, x2: float, y2: float, radius: float) -> NDArray[np.float64]:
    """Return the closed outline of a rounded rectangle, clockwise from its top left, shape (N, 2) [px]."""
    radius = max(0.0, min(radius, (x2 - x1) / 2, (y2 - y1) / 2))
    quarter = np.linspace(0, np.pi / 2, 7)
    centers = (
        (x1 + radius, y1 + radius),
        (x2 - radius, y1 + radius),
        (x2 - radius, y2 - radius),
        (x1 + radius, y2 - radius),
    )
    arcs = []
    for turn, (center_x, center_y) in enumerate(centers):
        angle = np.pi + turn * np.pi / 2 + quarter
        arcs.append(np.stack([center_x + radius * np.cos(angle), center_y + radius * np.sin(angle)], axis=1))
    return np.concatenate(arcs)


def drawable(text: str, font_px: int) -> str:
    """Return ``text`` without the letters that no font on this machine has."""
    font = font_for(text, font_px)
    if _covers(font, text):
        return text
    return "".join(letter for letter in text if _covers(font, letter)).strip()


@lru_cache(maxsize=64)
def font_for(text: str, font_px: int) -> Font:
    """Return a font of ``font_px`` that has every letter of ``text``, or the built-in one if there is none."""
    font = _built_in_font(font_px)
    if _covers(font, text):
        return font
    for path in _WIDE_FONTS:
        if Path(path).is_file():
            wide = ImageFont.truetype(path, font_px)
            if _covers(wide, text):
                return wide
    return font


@lru_cache(maxsize=16)
def _built_in_font(font_px: int) -> Font:
    return ImageFont.load_default(font_px)


def _covers(font: Font, text: str) -> bool:
    if text.isascii():
        return True
    # A font draws the same sign for every letter that it lacks.
    missing = bytes(font.getmask("\U0010fffe"))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if not letter.isspace())


@lru_cache(maxsize=256)
def _text_mask(text: str, font_px: int) -> NDArray[np.uint8]:
    font = font_for(text, font_px)
    # The font's height, not the letters': a label must not change its size when its digits change.
    left, _, right, _ = font.getbbox(text)
    width = max(1, int(np.ceil(right - min(left, 0))))
    canvas = Image.new("L", (width, round(font_px * 1.2)))
    ImageDraw.Draw(canvas).text((-min(left, 0), font_px), text, fill=255, font=font, anchor="ls")
    return np.asarray(canvas)


@lru_cache(maxsize=64)
def _pill_mask(width: int, height: int, radius: int) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    outline = rounded_path(0, 0, width - 1, height - 1, radius)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask


def _padding(font_px: int) -> tuple[int, int]:
    return max(3, round(font_px * 0.4)), max(1, round(font_px * 0.1))


def _blend(image: NDArray[np.uint8], mask: NDArray[np.uint8], x: int, y: int, color: Color, opacity: float) -> None:
    left, top = max(0, x), max(0, y)
    right, bottom = (min(image.shape[1], x + mask.shape[1]), min(image.shape[0], y + mask.shape[0]))
    if left >= right or top >= bottom:
        return
    alpha = mask[top - y : bottom - y, left - x : right - x, None].astype(np.float32) * (opacity / 255)
    below = image[top:bottom, left:right]
    below[:] = (below + (np.asarray(color, np.float32) - below) * alpha + 0.5).astype(np.uint8)
