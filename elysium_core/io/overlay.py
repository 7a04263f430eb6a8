"""Tracks drawn over a picture.

A box is drawn only if the tracker gave one for this frame: solid if the target is
TRACKED, dashed and dimmed if it is UNCERTAIN. A lost target is a label at the place
where it was last seen, never a box.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import resized
from elysium_core.io.labels import Color, LabelStyle, draw_label, drawable, label_size, rounded_path, shorten
from elysium_core.types import TrackState, TrackUpdate

Rect = tuple[int, int, int, int]

PALETTE: tuple[Color, ...] = (
    (255, 92, 58),
    (38, 166, 255),
    (126, 217, 33),
    (232, 72, 255),
    (255, 196, 0),
    (0, 224, 190),
    (255, 64, 129),
    (140, 122, 255),
    (190, 140, 90),
    (150, 220, 255),
)
"""RGB colours of targets; target 1 has the first."""

SCALE_RANGE = (1e-6, 8.0)
"""Range of the size of the drawn picture, as a multiple of the input's size."""

# Length of a dash and the gap behind it, in dashes. The round ends of a line fill a part of the gap.
_DASH_PERIOD = 2.2
# The space of the built-in font is so narrow that small words would run into each other.
_WORD_GAP, _GAP = "  ", "   "
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (16, 17, 22)


def target_color(target_id: str) -> Color:
    """Return the RGB colour of a target, the same in every frame and every run."""
    number = int(target_id) - 1 if target_id.isdecimal() else zlib.crc32(target_id.encode("utf-8", "replace"))
    return PALETTE[number % len(PALETTE)]


def draw_tracks(image: NDArray[np.uint8], updates: Iterable[TrackUpdate], *, scale: float = 1.0) -> NDArray[np.uint8]:
    """Draw the boxes and labels of one frame.

    Args:
        image: RGB, uint8, shape (height, width, 3); it is not changed.
        updates: The tracker's updates of this frame; REMOVED targets are not drawn.
        scale: Size of the result as a multiple of the input's size, 1e-6..8. The picture
            is scaled before drawing, so that lines and letters stay readable.

    Returns:
        A new RGB uint8 picture.

    Raises:
        ImageError: ``image`` is not an RGB uint8 picture.
        ConfigError: ``scale`` is out of range.
    """
    canvas = _Canvas(_scaled_copy(image, scale))
    updates = [update for update in updates if update.state is not TrackState.REMOVED]
    for update in updates:
        if update.box is not None:
            color = target_color(update.target_id)
            certain = update.state is TrackState.TRACKED
            canvas.draw_box(update.box, color if certain else _dimmed(color), dashed=not certain)
    for update in updates:
        _draw_update_label(canvas, update)
    return canvas.image


def draw_boxes(
    image: NDArray[np.uint8], boxes: Iterable[Box | None], *, label: str = "", scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw known boxes, such as ground truth, thin and white.

    Args:
        image: RGB, uint8, shape (height, width, 3); it is not changed.
        boxes: Boxes of this frame; None is skipped.
        label: Small text beside each box; empty = none.
        scale: As for :func:`draw_tracks`.

    Returns:
        A new RGB uint8 picture.

    Raises:
        ImageError: ``image`` is not an RGB uint8 picture.
        ConfigError: ``scale`` is out of range.
    """
    canvas = _Canvas(_scaled_copy(image, scale))
    for box in boxes:
        if box is None:
            continue
        canvas.draw_box(box, _WHITE, thickness=1)
        if label:
            canvas.place_label(label, box, LabelStyle(_BLACK, _WHITE, 0.6), below=True)
    return canvas.image


@dataclass(slots=True)
class _Canvas:
    """A picture that is drawn on, and the rectangles that its labels cover so far."""

    image: NDArray[np.uint8]
    taken: list[Rect] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[0]

    @property
    def _extent(self) -> float:
        return float(np.sqrt(self.image.shape[0] * self.image.shape[1]))

    @property
    def font_px(self) -> int:
        return max(9, round(7 + self._extent * 0.0185))

    @property
    def line_px(self) -> int:
        return max(1, round(1.1 + self._extent / 400))

    def draw_box(self, box: Box, color: Color, *, dashed: bool = False, thickness: int | None = None) -> None:
        thickness = thickness or self.line_px
        x1, y1, x2, y2 = _inside(box, self.size, thickness)
        path = rounded_path(x1, y1, x2, y2, radius=min(3.0 * thickness, 0.2 * (x2 - x1), 0.2 * (y2 - y1)))
        # A darker edge keeps the line visible on a background of the same colour.
        for line_color, line_px in ((_darkened(color), thickness + 2), (color, thickness)):
            self._stroke(path, line_color, line_px, dash_px=5 * thickness + 2 if dashed else 0)

    def place_label(self, text: str, box: Box, style: LabelStyle, *, below: bool = False) -> None:
        """Draw ``text`` beside ``box``, where it covers no other label."""
        width, height = label_size(text, self.font_px)
        x1, y1, _, y2 = (round(v) for v in box.to_px(*self.size))
        gap = self.line_px
        tops = [y1 - height - gap, y2 + gap, y1 + 2 * gap, y2 - height - 2 * gap]
        if below:
            tops = [tops[1], tops[0], *tops[2:]]
        self._draw_first_free(text, [(x1 - gap // 2, top) for top in tops], (width, height), style)

    def place_centered_label(self, text: str, box: Box, style: LabelStyle) -> None:
        """Draw ``text`` over the middle of ``box``."""
        width, height = label_size(text, self.font_px)
        x, y = (round(box.center[0] * self.size[0] - width / 2), round(box.center[1] * self.size[1] - height / 2))
        tops = [(x, y + step * (height + 2)) for step in (0, 1, -1, 2, -2)]
        self._draw_first_free(text, tops, (width, height), style)

    def place_legend(self, text: str, style: LabelStyle) -> None:
        """Draw ``text`` in the lower left corner, above earlier legends."""
        width, height = label_size(text, self.font_px)
        margin = self.font_px // 2
        rows = range(self.size[1] - height - margin, 0, -(height + 2))
        self._draw_first_free(text, [(margin, y) for y in rows], (width, height), style)

    def _draw_first_free(
        self, text: str, corners: list[tuple[int, int]], label_wh: tuple[int, int], style: LabelStyle
    ) -> None:
        rects = [self._pushed_inside(corner, label_wh) for corner in corners] or [self._pushed_inside((0, 0), label_wh)]
        unmoved = [rect for rect, corner in zip(rects, corners, strict=False) if rect[1] == corner[1]]
        free = [rect for rect in (*unmoved, *rects) if not any(_overlap(rect, other) for other in self.taken)]
        rect = (free or unmoved or rects)[0]
        self.taken.append(rect)
        draw_label(self.image, text, rect[0], rect[1], self.font_px, style)

    def _pushed_inside(self, corner: tuple[int, int], label_wh: tuple[int, int]) -> Rect:
        x = max(0, min(corner[0], self.size[0] - label_wh[0]))
        y = max(0, min(corner[1], self.size[1] - label_wh[1]))
        return x, y, x + label_wh[0], y + label_wh[1]

    def _stroke(self, path: NDArray[np.float64], color: Color, line_px: int, dash_px: int) -> None:
        pieces = _dashes(path, dash_px) if dash_px else [path]
        fixed_point = [np.round(piece * 16).astype(np.int32).reshape(-1, 1, 2) for piece in pieces]
        cv2.polylines(self.image, fixed_point, not dash_px, color, line_px, cv2.LINE_AA, shift=4)


def _draw_update_label(canvas: _Canvas, update: TrackUpdate) -> None:
    color = target_color(update.target_id)
    if update.box is not None:
        certain = update.state is TrackState.TRACKED
        ground = color if certain else _dimmed(color)
        text = _label_text(canvas, update, f"{update.score:.0%}" if certain else f"{update.score:.0%}?")
        canvas.place_label(text, update.box, LabelStyle(ground, _ink_on(ground), 1.0 if certain else 0.85))
        return
    style = LabelStyle(_BLACK, _mixed(color, _WHITE, 0.25), 0.75)
    text = _label_text(canvas, update, "lost" if update.last_box else "searching")
    if update.last_box is not None:
        canvas.place_centered_label(text, update.last_box, style)
    else:
        canvas.place_legend(text, style)


def _label_text(canvas: _Canvas, update: TrackUpdate, ending: str) -> str:
    room = 0.4 * canvas.size[0]
    if update.box is not None:
        room = max(room, update.box.width * canvas.size[0])
    fixed_width, _ = label_size(f"{update.target_id}{2 * _GAP}{ending}", canvas.font_px)
    words = drawable(_WORD_GAP.join((update.expression or update.name).split()), canvas.font_px)
    parts = (update.target_id, shorten(words, int(room) - fixed_width, canvas.font_px), ending)
    return _GAP.join(part for part in parts if part)


def _scaled_copy(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    Frame(image)
    if not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
        raise ConfigError(f"scale {scale:g} is not in {SCALE_RANGE[0]:g}..{SCALE_RANGE[1]:g}")
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    return np.array(resized(image, width, height), order="C")


def _inside(box: Box, size: tuple[int, int], thickness: int) -> tuple[float, float, float, float]:
    # Half of a line on the frame's edge would be cut off, so the line is moved in; a thinner box is not.
    x1, y1, x2, y2 = box.to_px(*size)
    inset = thickness / 2
    x1, y1 = max(x1, inset), max(y1, inset)
    return (x1, y1, max(x1 + 1, min(x2, size[0] - 1 - inset)), max(y1 + 1, min(y2, size[1] - 1 - inset)))


def _dashes(path: NDArray[np.float64], dash_px: float) -> list[NDArray[np.float64]]:
    closed = np.concatenate([path, path[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    count = max(4, round(lengths[-1] / (_DASH_PERIOD * dash_px)))
    period = lengths[-1] / count
    pieces = []
    for start in np.arange(count) * period:
        stop = start + period / _DASH_PERIOD
        inner = closed[(lengths > start) & (lengths < stop)]
        ends = [[np.interp(at, lengths, closed[:, axis]) for axis in (0, 1)] for at in (start, stop)]
        pieces.append(np.concatenate([[ends[0]], inner, [ends[1]]]))
    return pieces


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mixed(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _dimmed(color: Color) -> Color:
    return _mixed(color, (120, 120, 126), 0.45)


def _darkened(color: Color) -> Color:
    return _mixed(color, _BLACK, 0.7)


def _ink_on(ground: Color) -> Color:
    luminance = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2]
    return _BLACK if luminance > 130 else _WHITE
