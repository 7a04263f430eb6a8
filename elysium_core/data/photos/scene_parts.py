"""Parts that scenes of stills and clips share: how things lie and move, look-alikes, and what stands in front."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.cutouts import Cutout, CutoutLibrary, recolored
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.shot import Box4, Placed, Shot
from elysium_core.data.photos.warps import (
    Matrix,
    about,
    draw_thin_plate,
    rotation,
    scaling,
    tilt,
    translation,
)

_SAME_NAME_SHARE = 0.7
_LARGEST_TILT = 0.06


class SceneKind(str, Enum):
    """Where the object of a scene is from."""

    CUTOUT = "cut-out"
    TRUE_BOX = "true box"
    REGION = "region"


class Absence(str, Enum):
    """Why the object is not in the live crop."""

    NONE = "present"
    GONE = "gone"
    LOOK_ALIKE = "look-alike"
    OTHER_SCENE = "other scene"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Two shots of one thing.

    Attributes:
        kind: Where the object is from.
        absence: Whether the second shot shows it.
        first: The shot of the anchor.
        second: The live shot.
        place: Box in the frame of the second shot around which the live crop lies [px]: where the object is, or
            would be.
        keep_color: Only its colour tells the object from something else in the second shot.
        is_near: The live crop has to lie well around ``place``.
    """

    kind: SceneKind
    absence: Absence
    first: Shot
    second: Shot
    place: Box4
    keep_color: bool = False
    is_near: bool = False


def lay(cutout: Cutout, x: float, y: float, size: float, radians: float = 0.0, stretch: float = 1.0) -> Matrix:
    """Lay a cut-out into a frame.

    Args:
        cutout: What is laid.
        x: Its middle [px].
        y: Its middle [px].
        size: Root of the area of its box, before it is turned [px].
        radians: Rotation.
        stretch: Factor of its width; its height changes inversely.
    """
    scale = size / np.sqrt(cutout.width * cutout.height)
    middle = translation(-cutout.width / 2, -cutout.height / 2)
    return translation(x, y) @ rotation(radians) @ scaling(scale * stretch, scale / stretch) @ middle


def draw_change(rng: np.random.Generator, settings: PairSettings, x: float, y: float, size: float) -> Matrix:
    """Draw what happens to a thing between two pictures: it moves, grows, turns and tilts.

    Args:
        rng: Source of randomness.
        settings: Ranges.
        x: Its middle [px of the frame].
        y: Its middle.
        size: Root of its area [px].
    """
    scale = np.exp(rng.normal(0, settings.scale))
    second = scale * np.exp(rng.normal(0, settings.stretch))
    turn = np.deg2rad(rng.normal(0, settings.turn))
    tilts = np.clip(rng.normal(0, settings.tilt, 2), -_LARGEST_TILT, _LARGEST_TILT) / size
    move = rng.normal(0, settings.motion * size, 2)
    change = about(tilt(*tilts) @ rotation(turn) @ scaling(scale, second), x, y)
    return translation(*move) @ change


def draw_bend(rng: np.random.Generator, settings: PairSettings, strength: float) -> NDArray[np.float64] | None:
    """Draw a bend for a share of all things; None for the others."""
    if rng.random() >= settings.bend_share or strength <= 0:
        return None
    return draw_thin_plate(rng, rng.uniform(0, strength))


class LikeKind(str, Enum):
    """In what way another cut-out looks like the object."""

    NAMESAKE = "another of the same name"
    RECOLORED = "the same in another colour"
    TWIN = "the same"


def draw_look_alike(
    rng: np.random.Generator, library: CutoutLibrary, cutout: Cutout, twin_share: float = 0.0
) -> tuple[Cutout, LikeKind]:
    """Draw something that looks like a cut-out.

    Args:
        rng: Source of randomness.
        library: Where others are from.
        cutout: The object.
        twin_share: Share of equal ones.
    """
    if rng.random() < twin_share:
        return cutout, LikeKind.TWIN
    if rng.random() < _SAME_NAME_SHARE:
        found = library.draw_named(rng, cutout.name, other_than=cutout)
        if found is not None:
            return found, LikeKind.NAMESAKE
    return recolored(cutout, rng), LikeKind.RECOLORED


def draw_occluder(rng: np.random.Generator, library: CutoutLibrary, settings: PairSettings, box: Box4) -> Placed:
    """Draw something in front of a box, of half its size or so."""
    cutout = library.draw(rng, settings.sprite_share)
    size = box_size(box)
    x, y = (box[:2] + box[2:]) / 2 + rng.normal(0, 0.45 * size, 2)
    return Placed(cutout, lay(cutout, x, y, size * rng.uniform(0.35, 0.8), np.deg2rad(rng.normal(0, 10))))


def box_size(box: Box4) -> float:
    """Root of the area of a box."""
    return float(np.sqrt(np.prod(box[2:] - box[:2])))
