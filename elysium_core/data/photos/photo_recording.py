"""The recording of the demo: photographs in motion before a hand-held camera, with true boxes.

Prints of the packaged photos hang on a wall and swing, each in its own way, while the camera pans and zooms. Of some
prints the outline of one thing is known, so its box is known in every frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.photo_folders import PACKAGED_PHOTOS
from elysium_core.data.photos.photometry import Camera, CameraSettings, draw_camera
from elysium_core.frames import Frame
from elysium_core.io.files import atomic_path
from elysium_core.io.image import read_image
from elysium_core.io.render import open_writer

FRAMES, FPS = 150, 15
WIDTH, HEIGHT = 640, 480

_WALL_COLOR = (176, 168, 158)
_CAMERA = CameraSettings(
    exposure_share=0.0,
    flat_share=0.0,
    saturation_share=0.0,
    gamma_share=0.0,
    coarse_share=0.0,
    blur_share=0.0,
    motion_share=0.0,
    noise=4.0,
    jpeg_share=0.0,
)
_LEAST_VISIBLE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Print:
    """A photo on the wall.

    Attributes:
        photo: File name among the packaged photos.
        place: Middle on the wall [px of a frame at zoom 1].
        width: Its width on the wall [px].
        swing: How far it swings to the sides and up and down [px].
        turn: How far it turns [degrees].
        seconds: Periods of the three motions [s].
        name: What is looked for in it; empty = nothing.
        outline: (K, 2) points around that thing, in fractions of the photo.
    """

    photo: str
    place: tuple[float, float]
    width: float
    swing: tuple[float, float]
    turn: float
    seconds: tuple[float, float, float]
    name: str = ""
    outline: tuple[tuple[float, float], ...] = ()


PRINTS = (
    Print("rocket.jpg", (560.0, 70.0), 190.0, (14.0, 8.0), 3.0, (7.0, 5.0, 6.0)),
    Print("brick.jpg", (60.0, 420.0), 150.0, (10.0, 10.0), 4.0, (6.0, 7.0, 5.0)),
    Print(
        "coffee.jpg",
        (180.0, 150.0),
        300.0,
        (70.0, 26.0),
        5.0,
        (7.0, 4.6, 6.1),
        "cup",
        ((0.29, 0.14), (0.36, 0.06), (0.5, 0.03), (0.62, 0.07), (0.69, 0.16), (0.69, 0.45), (0.62, 0.7), (0.5, 0.78),
         (0.38, 0.74), (0.31, 0.55)),
    ),
    Print(
        "astronaut.jpg",
        (440.0, 310.0),
        270.0,
        (60.0, 30.0),
        4.0,
        (6.3, 5.2, 7.4),
        "person",
        ((0.45, 0.01), (0.53, 0.12), (0.6, 0.32), (0.7, 0.55), (0.72, 0.7), (0.6, 0.98), (0.02, 0.98), (0.03, 0.6),
         (0.12, 0.45), (0.3, 0.25), (0.3, 0.08)),
    ),
)  # fmt: skip
"""What hangs on the wall, the lowest one first. The cup is given by its box, the person by words."""


@dataclass(frozen=True, slots=True, eq=False)
class PhotoRecording:
    """A recording and its truth. T frames, M things.

    Attributes:
        images: (T, HEIGHT, WIDTH, 3) uint8 RGB.
        boxes: (M, T, 4) float32, x1, y1, x2, y2 in 0..1.
        visible: (M, T) float32, share of each thing that is inside the frame and not covered, 0..1.
        names: Of the things.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]
    names: tuple[str, ...]


def draw_photo_recording(seed: int = 7, frames: int = FRAMES, prints: Sequence[Print] = PRINTS) -> PhotoRecording:
    """Draw the recording.

    Args:
        seed: Of the phases of all motions and of the noise; the same seed gives the same recording.
        frames: T.
        prints: What hangs on the wall.
    """
    rng = np.random.default_rng(seed)
    photos = [read_image(PACKAGED_PHOTOS / item.photo) for item in prints]
    phases = rng.uniform(0, 2 * np.pi, (len(prints) + 1, 3))
    camera = draw_camera(rng, _CAMERA, HEIGHT)
    images, boxes, visible = [], [], []
    for frame in range(frames):
        seconds = frame / FPS
        view = _view(seconds, phases[-1])
        matrices = [
            view @ _hung(item, photo, seconds, phase)
            for item, photo, phase in zip(prints, photos, phases, strict=False)
        ]
        images.append(_picture(photos, matrices, camera, rng))
        truth = [_truth(prints, photos, matrices, n) for n, item in enumerate(prints) if item.name]
        boxes.append([box for box, _ in truth])
        visible.append([share for _, share in truth])
    names = tuple(item.name for item in prints if item.name)
    return PhotoRecording(
        np.stack(images),
        np.asarray(boxes, np.float32).transpose(1, 0, 2),
        np.asarray(visible, np.float32).T,
        names,
    )


def _view(seconds: float, phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wall to frame: a slow zoom, a pan, and the shake of a hand."""
    zoom = 1.0 + 0.12 * np.sin(2 * np.pi * seconds / 9 + phase[0])
    pan = 26 * np.sin(2 * np.pi * seconds / 8 + phase[1])
    shake = 1.5 * np.sin(2 * np.pi * seconds * 1.3 + phase[2])
    return np.array([[zoom, 0, WIDTH / 2 * (1 - zoom) + pan], [0, zoom, HEIGHT / 2 * (1 - zoom) + shake], [0, 0, 1.0]])


def _hung(item: Print, photo: NDArray[np.uint8], seconds: float, phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Photo [px] to wall."""
    waves = np.sin(2 * np.pi * seconds / np.array(item.seconds) + phase)
    x, y = item.place[0] + item.swing[0] * waves[0], item.place[1] + item.swing[1] * waves[1]
    scale, angle = item.width / photo.shape[1], np.deg2rad(item.turn * waves[2])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = turn @ np.array([photo.shape[1] / 2, photo.shape[0] / 2])
    return np.array([[*turn[0], x - middle[0]], [*turn[1], y - middle[1]], [0, 0, 1.0]])


def _picture(
    photos: Sequence[NDArray[np.uint8]],
    matrices: Sequence[NDArray[np.float64]],
    camera: Camera,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    picture = np.full((HEIGHT, WIDTH, 3), _WALL_COLOR, np.uint8)
    for photo, matrix in zip(photos, matrices, strict=True):
        drawn = cv2.warpAffine(photo, matrix[:2], (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        mask = cv2.warpAffine(np.full(photo.shape[:2], 255, np.uint8), matrix[:2], (WIDTH, HEIGHT))
        share = mask[..., None].astype(np.float32) / 255
        picture = np.asarray(picture * (1 - share) + drawn * share, np.uint8)
    return camera.apply(picture, rng)


def _truth(
    prints: Sequence[Print],
    photos: Sequence[NDArray[np.uint8]],
    matrices: Sequence[NDArray[np.float64]],
    number: int,
) -> tuple[NDArray[np.float64], float]:
    """Box of the thing in a print, and which share of it can be seen."""
    height, width = photos[number].shape[:2]
    points = _moved(matrices[number], np.array(prints[number].outline) * [width, height])
    # One picture with room around the frame tells how much lies outside it or under other prints.
    room = np.array([WIDTH, HEIGHT])
    shape = np.zeros((3 * HEIGHT, 3 * WIDTH), np.uint8)
    cv2.fillPoly(shape, [np.round(points + room).astype(np.int32)], 1)
    whole = max(1, int(shape.sum()))
    for other in range(number + 1, len(prints)):
        height, width = photos[other].shape[:2]
        edges = _moved(matrices[other], np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
        cv2.fillPoly(shape, [np.round(edges + room).astype(np.int32)], 0)
    seen = int(shape[HEIGHT : 2 * HEIGHT, WIDTH : 2 * WIDTH].sum())
    box = np.concatenate([points.min(0), points.max(0)]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    return box.clip(0, 1), seen / whole


def _moved(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])


def write_photo_recording(folder: str | Path, seed: int = 7) -> None:
    """Write ``recording.mp4`` and ``truth.json`` into a folder.

    The truth has ``fps``, ``width``, ``height`` and ``objects``, each with ``name``, ``expression`` (empty for one that
    is given by its box) and ``boxes``: for each frame ``[x1, y1, x2, y2]`` as fractions of the frame, or null where
    less than a tenth of the thing is visible.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recording = draw_photo_recording(seed)
    with open_writer(folder / "recording.mp4", FPS) as writer:
        for index, image in enumerate(recording.images):
            writer.write(Frame(np.ascontiguousarray(image), stamp_ns=index * 10**9 // FPS, index=index))
    objects = [_entry(recording, number) for number in range(len(recording.names))]
    truth = {"fps": FPS, "width": WIDTH, "height": HEIGHT, "objects": objects}
    with atomic_path(folder / "truth.json") as path:
        path.write_text(json.dumps(truth) + "\n", encoding="utf-8")


def _entry(recording: PhotoRecording, number: int) -> dict[str, Any]:
    boxes = [
        [round(float(value), 5) for value in box] if visible >= _LEAST_VISIBLE else None
        for box, visible in zip(recording.boxes[number], recording.visible[number], strict=True)
    ]
    name = recording.names[number]
    return {"name": name, "expression": "" if number == 0 else f"the {name}", "boxes": boxes}
