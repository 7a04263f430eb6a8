"""A shot: a photo, cut-outs in front of it, and which of them is the object. Rendering it gives pixels and truth.

A shot is described in pixels of its frame. It is drawn straight into an output, a crop or a whole frame, so that
nothing is sampled twice, and every box is computed from outlines, not from pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutouts import SOLID_ALPHA, Cutout
from elysium_core.data.photos.warps import Bend, Matrix, View, bounds, corners, project, sample, scaling, translation
from elysium_core.errors import BoxError
from elysium_core.geometry import Box
from elysium_core.io.crop import Crop

_OUTLINE_POINTS = 48
_LEAST_REGION_PX = 2

Box4 = NDArray[np.float64]
"""x1, y1, x2, y2 [px]; may reach outside."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A cut-out in a frame.

    Attributes:
        cutout: What is drawn.
        matrix: Cut-out [px] to frame [px].
        bend: Nodes of a warp over its box, see :func:`draw_thin_plate`; None = none.
        is_like: It looks like the object without being it.
    """

    cutout: Cutout
    matrix: Matrix
    bend: NDArray[np.float64] | None = None
    is_like: bool = False

    def box(self) -> Box4:
        """Its box in the frame, before the bend."""
        return bounds(project(self.matrix, self.cutout.hull))

    def view(self, to_output: Matrix) -> View:
        """How the cut-out lies in an output."""
        matrix = to_output @ self.matrix
        if self.bend is None:
            return View(matrix)
        x1, y1, x2, y2 = bounds(project(matrix, corners(self.cutout.width, self.cutout.height)))
        return View(matrix, Bend(self.bend, x1, y1, x2 - x1, y2 - y1))


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """What a frame shows.

    Attributes:
        photo: Background, RGB uint8 (H, W, 3).
        photo_matrix: Photo [px] to frame [px].
        width: Width of the frame [px].
        height: Height of the frame [px].
        placed: Cut-outs, the most distant one first.
        target: Index of the object in ``placed``; None if it is a part of the photo or absent.
        outline: Outline (K, 2) of an object that is a part of the photo [px of the photo]; None otherwise.
        like_outlines: Outlines of things of the photo that look like the object without being it.
        photo_bend: Nodes of a warp of the photo over the whole output; None = none.
        beyond: RGB photo that goes on where ``photo`` ends inside the frame; None = its mirror image.
    """

    photo: NDArray[np.uint8]
    photo_matrix: Matrix
    width: int
    height: int
    placed: tuple[Placed, ...] = ()
    target: int | None = None
    outline: NDArray[np.float64] | None = None
    like_outlines: tuple[NDArray[np.float64], ...] = ()
    photo_bend: NDArray[np.float64] | None = None
    beyond: NDArray[np.uint8] | None = None

    def target_box(self) -> Box4 | None:
        """The object's box in the frame, before bends; None if it is absent."""
        if self.target is not None:
            return self.placed[self.target].box()
        return None if self.outline is None else bounds(project(self.photo_matrix, self.outline))


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A drawn shot. S: sides of the output.

    Attributes:
        pixels: RGB uint8 (H, W, 3).
        box: The object's box in the output [px], cut to the frame and the output; None if it is absent or outside.
        visible: Share of the object that is inside the frame and the output and not covered, 0..1.
        like_boxes: Boxes of look-alikes that are not covered wholly, cut likewise.
    """

    pixels: NDArray[np.uint8]
    box: Box4 | None
    visible: float
    like_boxes: list[Box4]


def ellipse(box: Box4) -> NDArray[np.float64]:
    """Outline of an object of which only the box is known: (K, 2) points of the ellipse in it.

    Turned by a small angle, an ellipse keeps its box, as most things do; the corners of a box would make it grow.
    """
    angle = np.linspace(0, 2 * np.pi, _OUTLINE_POINTS, endpoint=False)
    half = (box[2:] - box[:2]) / 2
    return np.asarray((box[:2] + box[2:]) / 2 + half * np.stack([np.cos(angle), np.sin(angle)], -1))


def without_likes(shot: Shot) -> Shot:
    """The same shot for another object, which nothing in it looks like."""
    placed = tuple(replace(item, is_like=False) for item in shot.placed)
    return replace(shot, placed=placed, like_outlines=())


def box_in_frame(box: Box4, width: int, height: int) -> Box | None:
    """The part of a box [px] that is inside a frame, as fractions of it; None if there is none."""
    x1, y1, x2, y2 = (float(value) for value in box)
    try:
        return Box.from_px(x1, y1, x2, y2, width, height, clip=True)
    except BoxError:
        return None


def into_crop(crop: Crop, side_px: int) -> Matrix:
    """Frame [px] to the pixels of a crop."""
    scale = side_px / crop.side
    return scaling(scale, scale) @ translation(-crop.x, -crop.y)


def render(shot: Shot, to_output: Matrix, width: int, height: int) -> Rendering:
    """Draw a shot.

    Args:
        shot: What to draw.
        to_output: Frame [px] to output [px]; scales and moves only.
        width: Width of the output [px].
        height: Height of the output [px].
    """
    whole = (0, 0, width, height)
    backdrop = View(to_output @ shot.photo_matrix, _whole_bend(shot.photo_bend, width, height))
    pixels = _photo(shot, backdrop, whole)
    frame = bounds(project(to_output, corners(shot.width, shot.height)))
    inside = _clipped(frame, np.array(whole, np.float64))
    inside[2:] = np.maximum(inside[:2], inside[2:])  # an output that shows nothing of the frame
    views = [placed.view(to_output) for placed in shot.placed]
    masks = [_paste(pixels, placed.cutout, view) for placed, view in zip(shot.placed, views, strict=True)]
    _fill_outside(pixels, inside, shot.photo)
    boxes = [bounds(view.forward(placed.cutout.hull)) for placed, view in zip(shot.placed, views, strict=True)]
    like = [
        (boxes[n], _uncovered(masks, n, inside))
        for n, placed in enumerate(shot.placed)
        if placed.is_like and len(masks[n])
    ]
    like += [(bounds(backdrop.forward(outline)), 1) for outline in shot.like_outlines]
    shown = [_clipped(box, inside) for box, pixels_seen in like if pixels_seen]
    box, visible = _target(shot, backdrop, boxes, views, masks, inside)
    return Rendering(pixels, box, visible, [box for box in shown if _has_area(box)])


def _whole_bend(nodes: NDArray[np.float64] | None, width: int, height: int) -> Bend | None:
    return None if nodes is None else Bend(nodes, 0, 0, width, height)


def _photo(shot: Shot, view: View, region: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    pixels = sample(shot.photo, view, region)
    if shot.beyond is None:
        return pixels
    x, y = view.sources(region)
    height, width = shot.photo.shape[:2]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    if outside.any():
        size = (region[2], region[3])
        pixels[outside] = cv2.resize(shot.beyond, size, interpolation=cv2.INTER_AREA)[outside]
    return pixels


def _paste(pixels: NDArray[np.uint8], cutout: Cutout, view: View) -> NDArray[np.bool_]:
    """Draw a cut-out in place; returns its solid pixels (H, W)."""
    height, width = pixels.shape[:2]
    solid = np.zeros((height, width), bool)
    box = bounds(project(view.matrix, corners(cutout.width, cutout.height)))
    reach = 1 + (view.bend.reach if view.bend is not None else 0)
    x1, y1 = (max(0, int(np.floor(value - reach))) for value in box[:2])
    x2, y2 = min(width, int(np.ceil(box[2] + reach))), min(height, int(np.ceil(box[3] + reach)))
    if x2 - x1 < _LEAST_REGION_PX or y2 - y1 < _LEAST_REGION_PX:
        return solid
    layer = sample(cutout.pixels, view, (x1, y1, x2, y2), cv2.BORDER_CONSTANT)
    part = pixels[y1:y2, x1:x2]
    keep = 255 - layer[..., 3:].astype(np.uint16)
    part[:] = np.minimum(layer[..., :3] + (part * keep + 127) // 255, 255)
    solid[y1:y2, x1:x2] = layer[..., 3] > SOLID_ALPHA
    return solid


def _fill_outside(pixels: NDArray[np.uint8], inside: Box4, photo: NDArray[np.uint8]) -> None:
    """Give what is outside the frame the photo's mean colour, as a crop of a frame has it."""
    x1, y1, x2, y2 = (round(float(value)) for value in inside)
    height, width = pixels.shape[:2]
    if (x1, y1, x2, y2) == (0, 0, width, height):
        return
    kept = pixels[y1:y2, x1:x2].copy()
    pixels[:] = np.round(cv2.mean(photo)[:3])
    pixels[y1:y2, x1:x2] = kept


def _target(
    shot: Shot, backdrop: View, boxes: list[Box4], views: list[View], masks: list[NDArray[np.bool_]], inside: Box4
) -> tuple[Box4 | None, float]:
    """The object's box, cut to what is inside, and its visible share."""
    if shot.target is not None:
        box = boxes[shot.target]
        total = shot.placed[shot.target].cutout.solid_px * _magnification(views[shot.target], shot.placed[shot.target])
        seen = _uncovered(masks, shot.target, inside)
    elif shot.outline is not None:
        box = bounds(backdrop.forward(shot.outline))
        total = float(np.prod(box[2:] - box[:2]))
        seen = _inside_box(masks, box, inside)
    else:
        return None, 0.0
    cut = _clipped(box, inside)
    return (cut, min(1.0, seen / max(total, 1.0))) if _has_area(cut) else (None, 0.0)


def _magnification(view: View, placed: Placed) -> float:
    """Output pixels for each pixel of a cut-out."""
    middle = placed.cutout.hull.mean(axis=0)
    around = project(view.matrix, middle + np.array([[0, 0], [1, 0], [0, 1]], np.float64))
    (a, b), (c, d) = around[1] - around[0], around[2] - around[0]
    return float(abs(a * d - b * c))


def _uncovered(masks: list[NDArray[np.bool_]], index: int, inside: Box4) -> float:
    """Number of solid pixels of a cut-out that are inside and not covered by a nearer one."""
    seen = masks[index].copy()
    for nearer in masks[index + 1 :]:
        seen &= ~nearer
    x1, y1, x2, y2 = (round(float(value)) for value in inside)
    return float(seen[y1:y2, x1:x2].sum())


def _inside_box(masks: list[NDArray[np.bool_]], box: Box4, inside: Box4) -> float:
    """Area of a box that is inside and not covered by a cut-out [px]."""
    cut = _clipped(box, inside)
    area = float(np.prod(np.maximum(cut[2:] - cut[:2], 0)))
    x1, y1, x2, y2 = (round(float(value)) for value in cut)
    if not masks or x2 <= x1 or y2 <= y1:
        return area
    covered = np.logical_or.reduce([mask[y1:y2, x1:x2] for mask in masks])
    return area * float(1 - covered.mean())


def _clipped(box: Box4, inside: Box4) -> Box4:
    """The common part of two boxes; reversed if there is none."""
    return np.concatenate([np.maximum(box[:2], inside[:2]), np.minimum(box[2:], inside[2:])])


def _has_area(box: Box4) -> bool:
    """Whether a box shows a pixel at least."""
    return bool((box[2:] - box[:2] >= 1).all())
