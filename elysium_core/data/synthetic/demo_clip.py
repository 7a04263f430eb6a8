"""The generated recording of the demo, with true boxes, in the format of a 4:3 camera."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from elysium_core.data.synthetic.assets import load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.frames import Frame
from elysium_core.io.files import atomic_path
from elysium_core.io.render import open_writer

_SKETCH_PX = 64


@dataclass(frozen=True, slots=True)
class RecordingConfig:
    """Settings of a generated recording.

    Attributes:
        frames: Number of frames.
        fps: Frames a second.
        width: Picture width [px].
        height: Picture height [px].
        objects: Objects in the scene.
        asked: Number of them that must be visible in all frames.
        gap: Range of the time between frames [time units], see :class:`SceneConfig`.
        names: Size of the vocabulary: the first N trainable names.
    """

    frames: int = 150
    fps: int = 15
    width: int = 640
    height: int = 480
    objects: int = 3
    asked: int = 2
    gap: tuple[float, float] = (0.15, 0.3)
    names: int = 40


def draw_recording(seed: int, config: RecordingConfig) -> tuple[SyntheticClip, list[int]]:
    """Draw a recording on backgrounds that no training sees.

    Returns:
        The clip, in square frames of ``config.height`` px, and the order of its objects:
        those that are visible in all frames come first.
    """
    sketch = _generator(config, _SKETCH_PX)
    full = _generator(config, config.height)
    attempt = 0
    while True:
        # Clips are tried at a small size first; the same seed gives the same motion at full size.
        for generator in (sketch, full):
            clip = generator(seed, attempt).draw(config.frames, config.objects, config.gap)
            seen = clip.targets
            if len(seen) < config.asked:
                break
            if generator is full:
                return clip, seen + [n for n in range(config.objects) if n not in seen]
        attempt += 1


def _generator(config: RecordingConfig, side_px: int) -> Callable[[int, int], ClipGenerator]:
    """Return a function that makes the generator of one attempt, at one size."""
    scene = SceneConfig(
        side_px=side_px,
        min_side=0.22,
        max_side=0.42,
        aspects=(config.height / config.width,),
        procedural_share=0.0,
    )
    photos = load_backgrounds("test", side_px=int(1.3 * side_px))
    names = trainable_names()[: config.names]
    return lambda seed, attempt: ClipGenerator(names, photos, seed + 1000 * attempt, scene)


def write_demo_recording(folder: str | Path, seed: int = 7, config: RecordingConfig | None = None) -> None:
    """Write ``recording.mp4`` and ``truth.json`` into a folder.

    The truth has ``fps``, ``width``, ``height`` and ``objects``, each with ``name``, ``expression``
    and ``boxes``: for each frame ``[x1, y1, x2, y2]`` as fractions of the frame, or null where less
    than a tenth of the object is visible. Objects that are visible in all frames come first.
    """
    config = config or RecordingConfig()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clip, order = draw_recording(seed, config)
    with open_writer(folder / "recording.mp4", config.fps) as writer:
        for index, square in enumerate(clip.images):
            picture = cv2.resize(square, (config.width, config.height), interpolation=cv2.INTER_LINEAR)
            writer.write(Frame(np.ascontiguousarray(picture), stamp_ns=index * 10**9 // config.fps, index=index))
    truth = {
        "fps": config.fps,
        "width": config.width,
        "height": config.height,
        "objects": [_truth(clip, n) for n in order],
    }
    with atomic_path(folder / "truth.json") as path:
        path.write_text(json.dumps(truth) + "\n", encoding="utf-8")


def _truth(clip: SyntheticClip, n: int) -> dict[str, Any]:
    boxes = [
        [round(float(v), 5) for v in box] if visible >= 0.1 else None
        for box, visible in zip(clip.boxes[n], clip.visible[n], strict=True)
    ]
    return {"name": clip.names[n], "expression": f"the {clip.names[n]}", "boxes": boxes}
