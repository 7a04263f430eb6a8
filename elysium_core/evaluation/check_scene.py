"""The pictures for the check of a model: a short recording of objects that it has names for, with their true boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.api import Elysium
from elysium_core.data.photos.photo_recording import draw_photo_recording
from elysium_core.data.synthetic.demo_clip import RecordingConfig, draw_recording
from elysium_core.errors import ExpressionError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import resized

_SEED = 7
_TARGETS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Frames, what is asked for in them, and where it is.

    Attributes:
        pictures: ``photos`` or ``drawings``.
        frames: The frames.
        words: What is asked for.
        truth: One list of boxes for each of ``words``; None if they name nothing that is there.
        others: Boxes of the objects that the model has no words for, in the first frame.
    """

    pictures: str
    frames: list[Frame]
    words: list[str]
    truth: list[list[Box]] | None
    others: list[Box]


def draw_scene(model: Elysium, side_px: int, pictures: int) -> Scene:
    """The recording of which the model knows more objects; photographs if it knows equally many.

    A model that knows no object of either is asked for the first names that it knows in the drawings, without a truth.

    Args:
        model: The loaded model.
        side_px: Height of the pictures [px]; they are a third wider.
        pictures: Number of pictures.
    """
    photos = _photo_scene(model, side_px, pictures)
    if len(photos.words) == _TARGETS:
        return photos
    drawings = _drawn_scene(model, side_px, pictures)
    best = max(photos, drawings, key=lambda scene: len(scene.words))
    if best.words:
        return best
    vocabulary = model.runtime.family.settings.vocabulary
    return replace(drawings, words=list(vocabulary[:_TARGETS]), truth=None, others=[])


def _photo_scene(model: Elysium, side_px: int, pictures: int) -> Scene:
    clip = draw_photo_recording(_SEED, pictures)
    images = [resized(image, side_px * 4 // 3, side_px) for image in clip.images]
    return _scene(
        model, "photos", images, {f"the {name}": boxes for name, boxes in zip(clip.names, clip.boxes, strict=True)}
    )


def _drawn_scene(model: Elysium, side_px: int, pictures: int) -> Scene:
    config = RecordingConfig(
        frames=pictures, width=side_px * 4 // 3, height=side_px, objects=_TARGETS + 1, asked=_TARGETS
    )
    clip, order = draw_recording(_SEED, config)
    tracks = {f"the {clip.names[number]}": clip.boxes[number] for number in order[:_TARGETS]}
    return _scene(model, "drawings", list(clip.images), tracks)


def _scene(
    model: Elysium, pictures: str, images: Sequence[NDArray[np.uint8]], tracks: Mapping[str, NDArray[np.float32]]
) -> Scene:
    """A scene of images with the boxes (T, 4) of named objects."""
    frames = [Frame(np.ascontiguousarray(image), index=index) for index, image in enumerate(images)]
    words, truth, others = [], [], []
    for name, boxes in tracks.items():
        track = [Box(*map(float, box.clip(0, 1))) for box in boxes]
        try:
            words.append(model.clean_words(name))
            truth.append(track)
        except ExpressionError:
            others.append(track[0])
    return Scene(pictures, frames, words, truth, others)
