"""``python -m bench.crowds``: generated recordings with several objects of one name, in the layout of MOT17."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from elysium_core.cli.output import Progress, say
from elysium_core.data.photos.clip_motion import Track, draw_track
from elysium_core.data.photos.cutout_cache import CutoutCache
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.shot import Shot, render
from elysium_core.data.photos.warps import scaling
from elysium_core.data.synthetic.assets import load_backgrounds, load_sprites, trainable_names
from elysium_core.data.synthetic.compositing import apply_camera, draw_backgrounds, render_clip
from elysium_core.data.synthetic.scene import SceneConfig, draw_motion
from elysium_core.errors import DataError
from elysium_core.io.files import atomic_path

# A true box counts if this share of its object is visible; below it, the object is neither wanted nor wrong.
_COUNTS_FROM = 0.25
_DISTRACTOR = 8
_SMALL_STEPS = (0.06, 0.12)
_WIDTH, _HEIGHT = 320, 240
_SIZE = (0.2, 0.4)
_SPEED = 0.02
_MOST_TRIES = 50
_SEED = 20261128


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """A generated recording. N objects, T frames of H x W px.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        names: What each object is.
        boxes: (N, T, 4) x1 y1 x2 y2 [px]; zeros where it is outside.
        visible: (N, T) visible share, 0..1.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    visible: NDArray[np.float64]


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; elysium eval mot --data OUT reads it.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="Number of recordings.")] = 8,
    frames: Annotated[int, typer.Option("--frames", min=2, help="Frames of each.")] = 60,
    objects: Annotated[tuple[int, int], typer.Option("--objects", help="Fewest and most objects of each.")] = (2, 5),
    cutouts: Annotated[
        Path | None, typer.Option("--cutouts", help="Cut-outs of photos (docs/data.md); emoji if not given.")
    ] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Names to draw from; repeatable; with --cutouts.")
    ] = None,
) -> None:
    """Write generated crowds: in each recording, objects of one or two names move over a background."""
    if cutouts is None:
        drawn = (emoji_crowd(index, frames, objects) for index in range(clips))
    else:
        library = CutoutLibrary(CutoutCache(cutouts), []).part(held_out=True)
        drawn = (photo_crowd(index, frames, objects, library, names or ["person"]) for index in range(clips))
    with Progress("crowds", clips) as progress:
        for index, crowd in enumerate(drawn):
            write_crowd(out / f"crowd-{index:03d}", crowd)
            progress.advance()
    say(f"{clips} recordings of {frames} frames in {out}; next: elysium eval mot --data {out} -m MODEL")


def _cast(rng: np.random.Generator, names: Sequence[str], objects: tuple[int, int]) -> list[str]:
    """Names of the objects of a crowd: one or two of them, each as often as it comes."""
    chosen = rng.choice(len(names), min(len(names), int(rng.integers(1, 3))), replace=False)
    return [names[int(rng.choice(chosen))] for _ in range(int(rng.integers(objects[0], objects[1] + 1)))]


def emoji_crowd(index: int, frames: int, objects: tuple[int, int]) -> Crowd:
    """Crowd ``index`` of nano's forty names; the same every time."""
    rng = np.random.default_rng([_SEED, index])
    config = SceneConfig(side_px=256, min_side=0.16, max_side=0.3)
    cast = _cast(rng, trainable_names()[:40], objects)
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(*_SMALL_STEPS, frames - 1))])
    motion = draw_motion(rng, config, len(cast), times)
    canvas = draw_backgrounds(rng, load_backgrounds("test"), config.side_px, times, config.procedural_share)
    drawn = render_clip(canvas, [load_sprites([name])[0] for name in cast], motion)
    images = apply_camera(rng, drawn.images)
    return Crowd(images, tuple(cast), drawn.boxes.astype(np.float64) * config.side_px, drawn.visible.astype(np.float64))


def photo_crowd(
    index: int, frames: int, objects: tuple[int, int], library: CutoutLibrary, names: Sequence[str]
) -> Crowd:
    """Crowd ``index`` of cut-outs over a photo of the package, which shows none of the names.

    Raises:
        DataError: There is no cut-out of a name.
    """
    rng = np.random.default_rng([_SEED, index])
    cast = _cast(rng, names, objects)
    _, photo = PhotoSet.packaged().draw(rng)
    scale = max(_WIDTH / photo.shape[1], _HEIGHT / photo.shape[0]) * 1.1
    tracks = list(_tracks(rng, cast, frames, library))
    images, boxes, visible = [], np.zeros((len(cast), frames, 4)), np.zeros((len(cast), frames))
    for frame in range(frames):
        placed = tuple(track.at(frame) for track in tracks)
        for n in range(len(placed)):
            drawn = render(Shot(photo, scaling(scale, scale), _WIDTH, _HEIGHT, placed, n), np.eye(3), _WIDTH, _HEIGHT)
            boxes[n, frame], visible[n, frame] = (0.0 if drawn.box is None else drawn.box), drawn.visible
        images.append(drawn.pixels)
    return Crowd(np.stack(images), tuple(cast), boxes, visible)


def _tracks(rng: np.random.Generator, cast: Sequence[str], frames: int, library: CutoutLibrary) -> Iterator[Track]:
    for name in cast:
        cutout = next((found for _ in range(_MOST_TRIES) if (found := library.draw_named(rng, name))), None)
        if cutout is None:
            raise DataError(f"there is no held-out cut-out of {name!r}; choose another --name")
        size = float(np.exp(rng.uniform(*np.log(_SIZE)))) * _HEIGHT
        yield draw_track(rng, cutout, frames, (_WIDTH, _HEIGHT), size, _SPEED)


def write_crowd(folder: Path, crowd: Crowd) -> None:
    """Write a crowd in the layout of MOT17, with its names as classes."""
    pictures, truth = folder / "img1", folder / "gt"
    for path in (pictures, truth):
        path.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(crowd.images, 1):
        Image.fromarray(image).save(pictures / f"{number:06d}.jpg", quality=95)
    classes = {name: number for number, name in enumerate(dict.fromkeys(crowd.names), 1) if number != _DISTRACTOR}
    lines = []
    for n, name in enumerate(crowd.names):
        for frame, (x1, y1, x2, y2) in enumerate(crowd.boxes[n]):
            visible = crowd.visible[n, frame]
            if x2 - x1 < 1 or y2 - y1 < 1:
                continue
            kind = classes[name] if visible >= _COUNTS_FROM else _DISTRACTOR
            lines.append(
                f"{frame + 1},{n + 1},{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},1,{kind},{visible:.3f}\n"
            )
    height, width = crowd.images.shape[1:3]
    info = {"name": folder.name, "imDir": "img1", "frameRate": 30, "seqLength": len(crowd.images)}
    info |= {"imWidth": width, "imHeight": height, "imExt": ".jpg"}
    text = "[Sequence]\n" + "".join(f"{key}={value}\n" for key, value in info.items())
    text += "[Classes]\n" + "".join(f"{number}={name}\n" for name, number in classes.items())
    for path, content in ((folder / "seqinfo.ini", text), (truth / "gt.txt", "".join(lines))):
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    from bench.app import run

    run("crowds")
