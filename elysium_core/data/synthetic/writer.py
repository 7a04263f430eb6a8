"""Writing generated clips: in the layout of ElysiumTrack, or as tar shards for streaming.

A clip or shard that was interrupted leaves no file, and one that exists is not drawn again: a
run that was stopped can be continued.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.data.synthetic.clips import ClipSource, Sample
from elysium_core.data.synthetic.expressions import describe, references
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.files import atomic_path, temporary_beside

SETTINGS_NAME = "synth.json"
FRAME_FOLDER = "frames"
SHARD_CLIPS = 64
"""Clips a shard."""

_LINES_NAME = "objects.jsonl"
_SOURCE = "elysium-synthetic"
# An object with a smaller visible share is written as absent: a box of zeros.
_LEAST_VISIBLE = 0.02


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Make the folder of a data set, or check that it was drawn with the same settings.

    Args:
        folder: The data set's folder.
        settings: Everything that determines the clips, except their number.

    Raises:
        ConfigError: It holds clips drawn with other settings, or other files.
        DataError: Its settings cannot be read.
    """
    path = folder / SETTINGS_NAME
    # In the form in which they are read back: JSON has no tuples.
    wanted = json.loads(json.dumps(settings))
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{str(path)!r} is damaged; delete {str(folder)!r} and draw it again") from error
        if found != wanted:
            before = found if isinstance(found, dict) else {}
            keys = sorted(key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key))
            changed = ", ".join(f"{key} {before.get(key)!r}, not {wanted.get(key)!r}" for key in keys)
            raise ConfigError(f"{str(folder)!r} holds clips drawn with {changed}; choose another --out")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{str(folder)!r} holds other files; choose a new folder as --out")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def write_track_files(source: ClipSource, count: int, folder: Path) -> Iterator[str]:
    """Write ``ElysiumTrack-<name>.json`` and ``frames/<clip>/0000.png`` ...

    Args:
        source: Draws the clips.
        count: Number of clips.
        folder: The data set's folder.

    Yields:
        The name of each clip, once it is on disk.
    """
    names = []
    for index in range(count):
        name = source.clip_name(index)
        if not (folder / FRAME_FOLDER / name).is_dir():
            _write_clip(source.draw(index), folder / FRAME_FOLDER / name)
        names.append(name)
        yield name
    with atomic_path(folder / f"ElysiumTrack-{source.name}.json") as temporary, temporary.open("wb") as lines:
        for name in names:
            lines.write((folder / FRAME_FOLDER / name / _LINES_NAME).read_bytes())


def write_shards(source: ClipSource, count: int, folder: Path) -> Iterator[str]:
    """Write ``<name>-000000.tar`` ..., tar files that webdataset reads.

    A sample has ``<clip>.json`` (a list of the lines of ElysiumTrack) and ``<clip>.0000.png`` ...
    Arguments and results are those of :func:`write_track_files`.
    """
    for first in range(0, count, SHARD_CLIPS):
        path = folder / f"{source.name}-{first // SHARD_CLIPS:06d}.tar"
        members = range(first, min(first + SHARD_CLIPS, count))
        names = [source.clip_name(index) for index in members]
        if _holds(path, names):
            yield from names
            continue
        with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as shard:
            for index in members:
                sample = source.draw(index)
                _add(shard, f"{sample.name}.json", json.dumps(track_lines(sample)).encode())
                for number, image in enumerate(sample.clip.images):
                    _add(shard, f"{sample.name}.{number:04d}.png", encode_png(image))
                yield sample.name


def track_lines(sample: Sample) -> list[dict[str, Any]]:
    """Return the lines of a clip, one for each target that can be told apart from the other objects."""
    clip = sample.clip
    frames, height, width = clip.images.shape[:3]
    paths = [f"{FRAME_FOLDER}/{sample.name}/{number:04d}.png" for number in range(frames)]
    lines = []
    for target in sample.targets:
        words = references(clip, target)
        if not words:
            continue
        name = clip.names[target]
        twin = f"-{target}" if clip.names.count(name) > 1 else ""
        seen = clip.visible[target] >= _LEAST_VISIBLE
        boxes = np.where(seen[:, None], clip.boxes[target], 0).astype(np.float64)
        lines.append(
            {
                "source": _SOURCE,
                "id": f"{sample.name}-{name.replace(' ', '-')}{twin}",
                "vid": sample.name,
                "metadata": {
                    "objects": [describe(n, int(c)) for n, c in zip(clip.names, clip.colors, strict=True)],
                    "references": {reference.text: reference.kind for reference in words},
                    "visible": _rounded(clip.visible[target], 3),
                },
                "frames": paths,
                "object_class": name,
                "box": [_rounded(box, 6) for box in boxes],
                "object_description": words[0].text,
                "frame_size": [width, height],
            }
        )
    return lines


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an RGB picture as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise DataError(f"OpenCV cannot write a picture of shape {image.shape} as PNG")
    return data.tobytes()


def _write_clip(sample: Sample, folder: Path) -> None:
    draft = temporary_beside(folder)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for number, image in enumerate(sample.clip.images):
            (draft / f"{number:04d}.png").write_bytes(encode_png(image))
        text = "".join(json.dumps(line) + "\n" for line in track_lines(sample))
        (draft / _LINES_NAME).write_text(text, encoding="utf-8")
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _holds(path: Path, names: Sequence[str]) -> bool:
    """Return whether a shard exists with all of these clips; the last shard may have fewer of them."""
    if not path.is_file():
        return False
    with tarfile.open(path) as shard:
        members = set(shard.getnames())
    return all(f"{name}.json" in members for name in names)


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    # Only name and size, no times: the same clips give the same bytes on every machine.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
