"""Sprites and backgrounds of the generated clips.

Backgrounds for ``test`` are shipped with the package, so that the frozen test set can be drawn
anywhere. Backgrounds for ``train`` are read from folders of photos at training time
(docs/data.md lists packages and licences). No photo is in both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.colors import NO_COLOR, color_shares, dyed, natural_color, possible_dyes
from elysium_core.errors import DataError

_ASSETS = Path(__file__).parent / "assets"
# A crop is at least half of this and is shrunk by less than 2, as bilinear sampling needs.
BACKGROUND_SIDE_PX = 256
# A photo with less contrast than this is a plain colour; procedural backgrounds have those.
_MIN_CONTRAST = 8.0
# Sprites of the atlas that are never trained on.
_HELD_OUT = slice(40, 87)
_LOG = logging.getLogger(__name__)

SYSTEM_PHOTO_FOLDERS = (Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers"))
"""Folders of Debian's wallpaper packages."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A named picture with transparency.

    Attributes:
        name: Its name, without article.
        levels: RGBA uint8 with colour multiplied by alpha, each with half the side of the
            one before: shrinking by more than 2 in one warp would alias.
        color: Index of its colour word in :data:`COLORS`, or NO_COLOR.
        dyes: Colours it may be dyed in without looking like the undyed sprite.
    """

    name: str
    levels: tuple[NDArray[np.uint8], ...]
    color: int = NO_COLOR
    dyes: tuple[int, ...] = ()


@lru_cache(maxsize=1)
def sprite_names() -> tuple[str, ...]:
    """Names of all sprites in atlas order."""
    return tuple(json.loads((_ASSETS / "atlas.json").read_text(encoding="utf-8"))["names"])


def trainable_names() -> tuple[str, ...]:
    """Names that may be trained on, in a fixed order; a recipe takes the first N of them."""
    names = sprite_names()
    return names[: _HELD_OUT.start] + names[_HELD_OUT.stop :]


def held_out_names() -> tuple[str, ...]:
    """Names that are never trained on."""
    return sprite_names()[_HELD_OUT]


def load_sprites(names: Sequence[str]) -> list[Sprite]:
    """Cut the named sprites out of the atlas.

    Raises:
        DataError: A name is not in the atlas.
    """
    sprites = []
    for name, bgra in zip(names, _cells(names), strict=True):
        shares = color_shares(bgra)
        sprites.append(Sprite(name, _levels(bgra), natural_color(shares), possible_dyes(shares)))
    return sprites


def load_dyed_sprite(name: str, color: int) -> Sprite:
    """Cut one sprite out of the atlas and dye it in a colour, an index of :data:`COLORS`.

    Raises:
        DataError: The name is not in the atlas.
    """
    return Sprite(name, _levels(dyed(_cells([name])[0], color)), color)


@lru_cache(maxsize=1)
def _atlas() -> NDArray[np.uint8]:
    atlas = cv2.imread(str(_ASSETS / "atlas.png"), cv2.IMREAD_UNCHANGED)
    if atlas is None:
        raise DataError(f"the sprite atlas {_ASSETS / 'atlas.png'} is missing or damaged; install the package again")
    return np.asarray(atlas, np.uint8)


def _cells(names: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Cells of the atlas, BGRA uint8."""
    layout = json.loads((_ASSETS / "atlas.json").read_text(encoding="utf-8"))
    positions = {name: position for position, name in enumerate(layout["names"])}
    unknown = [name for name in names if name not in positions]
    if unknown:
        raise DataError(f"no sprite is called {', '.join(map(repr, unknown))}; there are {len(positions)} in the atlas")
    cell, columns = layout["cell_px"], layout["columns"]
    corners = [(row * cell, column * cell) for row, column in (divmod(positions[name], columns) for name in names)]
    return [_atlas()[top : top + cell, left : left + cell] for top, left in corners]


def _levels(bgra: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    rgba = np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    levels = [rgba]
    while levels[-1].shape[0] > 24:
        side = levels[-1].shape[0] // 2
        shrunk = cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(shrunk, np.float32))
    return tuple(level.round().astype(np.uint8) for level in levels)


def load_backgrounds(
    split: str, folders: Iterable[Path] = SYSTEM_PHOTO_FOLDERS, side_px: int = BACKGROUND_SIDE_PX
) -> list[NDArray[np.uint8]]:
    """Load background photos, RGB uint8.

    Args:
        split: ``test`` for the photos of the package, ``train`` for those in ``folders``.
        folders: Searched recursively for JPEG, PNG and WebP files (``train`` only).
        side_px: Their shorter side [px].

    Returns:
        The photos in a fixed order. For ``train`` the list may be empty; a warning then
        names the packages to install.

    Raises:
        DataError: The split is unknown, or a shipped photo is damaged.
    """
    if split == "test":
        return [_shipped_photo(path, side_px) for path in sorted((_ASSETS / "backgrounds").glob("*.jpg"))]
    if split != "train":
        raise DataError(f"background split {split!r} is not one of train, test")
    folders = list(folders)
    # One file for each photo: themes have the same photo in many sizes and orientations.
    chosen: dict[Path, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"} and "screenshot" not in path.name:
                chosen.setdefault(path.parent if "contents" in path.parts else path, path)
    photos = [photo for path in sorted(chosen.values()) if (photo := _photo(path, side_px)) is not None]
    if folders and not photos:
        _LOG.warning(
            "no background photos in %s: procedural backgrounds only; on Debian install gnome-backgrounds, "
            "mate-backgrounds and plasma-workspace-wallpapers",
            ", ".join(str(folder) for folder in folders),
        )
    return photos


def _shipped_photo(path: Path, side_px: int) -> NDArray[np.uint8]:
    photo = _photo(path, side_px)
    if photo is None:
        raise DataError(f"the background {path} is damaged; install the package again")
    return photo


def _photo(path: Path, side_px: int) -> NDArray[np.uint8] | None:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_REDUCED_COLOR_2)
    if bgr is None or bgr.std() < _MIN_CONTRAST:
        return None
    scale = side_px / min(bgr.shape[:2])
    size = (round(bgr.shape[1] * scale), round(bgr.shape[0] * scale))
    resized = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.ascontiguousarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))
