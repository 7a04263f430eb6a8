"""Captioned videos with known tracks, and stand-ins for detector, tracker and parser that know the truth."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.curation.curation_rules import Detection, Trajectory
from elysium_core.curation.noun_chunks import Chunk, Word
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.synthetic.clips import TrainingClips
from elysium_core.errors import BoxError, DataError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import read_image, write_image
from elysium_core.io.sampling import even_positions

TRUTH = "truth.json"
CAPTIONS = "captions.csv"
WORLD_VARIABLE = "ELYSIUM_CURATION_WORLD"
"""Environment variable with the folder of the videos, for the stand-ins."""

ERRORS_VARIABLE = "ELYSIUM_CURATION_ERRORS"
"""Environment variable with the share of the stand-in detector's answers that are wrong; 0.15 without it."""

WAIT_VARIABLE = "ELYSIUM_CURATION_WAIT_S"
"""Environment variable with the time that the stand-in tracker waits for each video [s]; 0 without it."""

_Piece = tuple[Sequence[NDArray[np.uint8]], dict[str, NDArray[np.float64]]]
"""Frames, and for each name its boxes (frames, 4), xyxy, 0..1."""


@dataclass(frozen=True, slots=True)
class World:
    """Sizes of a generated set.

    Attributes:
        videos: Number of videos.
        frames: Frames a video.
        side_px: Side of the frames [px].
        seed: Seed of the videos.
        gap: Time between frames, see :class:`elysium_core.data.synthetic.scene.SceneConfig`.
    """

    videos: int = 200
    frames: int = 24
    side_px: int = 128
    seed: int = 0
    gap: tuple[float, float] = (0.1, 0.3)


def write_world(folder: Path, world: World) -> None:
    """Write videos as folders of PNG files, ``captions.csv`` in the columns of WebVid, and ``truth.json``.

    A caption names all objects that are visible throughout, and something abstract. The truth holds, for the hash of
    each frame, the boxes by name.
    """
    source = TrainingClips(
        frames=world.frames, seed=world.seed, gap=world.gap, side_px=world.side_px, twin_share=0, dye_share=0
    )

    def drawn() -> Iterator[_Piece]:
        for index in range(world.videos):
            clip = source.draw(index).clip
            boxes = {clip.names[n]: clip.boxes[n].astype(float) for n in clip.targets}
            yield list(clip.images), boxes

    _write(folder, drawn())


def write_recordings(folder: Path, data: Path, frames: int, most: int) -> None:
    """Write pieces of labelled recordings, one object each, in the form of :func:`write_world`.

    Args:
        folder: Where to.
        data: Recordings in the layout of ``folder`` of elysium eval.
        frames: Frames a piece, >= 3; pieces of one recording do not overlap.
        most: Most pieces, spread evenly over all.

    Raises:
        DataError: No recording has that many frames in which its object is visible.
    """
    found = [
        (recording, start)
        for recording in read_folder(data, skip=_left_out)
        for start in range(0, len(recording.boxes_xywh_px) - frames + 1, frames)
        if np.isfinite(recording.boxes_xywh_px[start : start + frames]).all()
    ]
    if not found:
        raise DataError(f"no recording in {str(data)!r} shows its object in {frames} frames on end; use fewer --frames")
    chosen = [found[position] for position in even_positions(len(found), min(most, len(found)))]

    def cut() -> Iterator[_Piece]:
        for recording, start in chosen:
            # As one word: a parser must find the name again.
            name = recording.name.replace(" ", "_").lower()
            images = [frame.image for frame in islice(recording.frames, start, start + frames)]
            height, width = images[0].shape[:2]
            rows = recording.boxes_xywh_px[start : start + frames].tolist()
            boxes = [Box.from_xywh_px(x, y, across, down, width, height) for x, y, across, down in rows]
            yield images, {name: np.array([list(box) for box in boxes])}

    _write(folder, cut())


def _left_out(error: Exception) -> None:
    sys.stderr.write(f"left out: {error}\n")


def _write(folder: Path, pieces: Iterable[_Piece]) -> None:
    truth: dict[str, dict[str, list[float]]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / CAPTIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        for index, (images, boxes) in enumerate(pieces):
            for number, image in enumerate(images):
                write_image(folder / "set" / f"{index:06d}" / f"{number:04d}.png", image)
                truth[frame_key(image)] = {name: rows[number].tolist() for name, rows in boxes.items()}
            things = " and ".join(f"a {name}" for name in boxes)
            writer.writerow([f"{index:06d}", "", "PT00H00M01S", "set", f"{things} in the summer time."])
    (folder / TRUTH).write_text(json.dumps(truth), encoding="utf-8")


@cache
def truth_of(folder: str) -> dict[str, dict[str, list[float]]]:
    """Return the boxes by name for the hash of each frame."""
    found: dict[str, dict[str, list[float]]] = json.loads((Path(folder) / TRUTH).read_text(encoding="utf-8"))
    return found


class KnowingDetector:
    """A detector that knows the truth and errs in a known share of its answers.

    An error is one of: nothing is found, a low score, a box elsewhere, the box of another object.

    Args:
        truth: See :func:`truth_of`.
        error_share: Share of the answers that are wrong, 0..1.
    """

    def __init__(self, truth: dict[str, dict[str, list[float]]], error_share: float = 0.15) -> None:
        self.name, self._truth, self._error_share = f"knowing, errs in {error_share:g}", truth, error_share

    def find(self, image: NDArray[np.uint8], expressions: Sequence[str]) -> list[list[Detection]]:
        """Return the detections of each expression."""
        key = frame_key(image)
        return [self._answer(self._truth[key], key, expression) for expression in expressions]

    def _answer(self, boxes: dict[str, list[float]], key: str, expression: str) -> list[Detection]:
        rng = np.random.default_rng(int(hashlib.sha256((key + expression).encode()).hexdigest()[:15], 16))
        box = boxes.get(expression)
        if box is None:
            return []
        right = Detection(_trembling(Box(*box), rng), 0.9)
        if rng.random() >= self._error_share:
            return [right]
        others = [Box(*other) for name, other in boxes.items() if name != expression]
        corner = rng.uniform(0, 0.6, 2)
        wrong: tuple[list[Detection], ...] = (
            [],
            [Detection(right.box, 0.5)],
            [Detection(Box(*corner, *(corner + 0.3)), 0.9)],
            [Detection(others[0], 0.9)] if others else [],
        )
        return wrong[rng.integers(len(wrong))]


class KnowingTracker:
    """A tracker that knows the truth and follows the object that its box fits best.

    Args:
        truth: See :func:`truth_of`.
        wait_s: Waits so long for each video, as for a GPU [s].
    """

    name = "knowing"

    def __init__(self, truth: dict[str, dict[str, list[float]]], wait_s: float = 0.0) -> None:
        self._truth, self._wait_s = truth, wait_s

    def follow(self, frames: Iterable[Frame], boxes: Sequence[Box]) -> list[Trajectory]:
        """Return the trajectory of each box; a box on no object stays where it is."""
        time.sleep(self._wait_s)
        seen = [self._truth[frame_key(frame.image)] for frame in frames]
        tracks = []
        for box in boxes:
            name = max(seen[0], key=lambda name: box.iou(Box(*seen[0][name])))
            fits = box.iou(Box(*seen[0][name])) > 0.3
            path = tuple(Box(*row[name]) if fits else box for row in seen)
            tracks.append(Trajectory(path, (0.95,) * len(path)))
        return tracks


class PlainParser:
    """Parses the captions of :func:`write_world` without grammar."""

    name = "plain"

    def chunks(self, caption: str) -> list[Chunk]:
        """Return what stands behind "a" and "the"."""
        found = []
        for phrase in caption.rstrip(".").replace(" in ", " and ").split(" and "):
            words = phrase.split()
            grammar = ["DET" if word in ("a", "the") else "NOUN" for word in words]
            found.append(
                Chunk(tuple(Word(w, w.lower(), p) for w, p in zip(words, grammar, strict=True)), len(words) - 1)
            )
        return found


def make_detector() -> KnowingDetector:
    """Make the detector for ``--detector plugin:bench.curation_world:make_detector``."""
    return KnowingDetector(truth_of(os.environ[WORLD_VARIABLE]), float(os.environ.get(ERRORS_VARIABLE, "0.15")))


def make_tracker() -> KnowingTracker:
    """Make the tracker for ``--tracker plugin:bench.curation_world:make_tracker``."""
    return KnowingTracker(truth_of(os.environ[WORLD_VARIABLE]), float(os.environ.get(WAIT_VARIABLE, "0")))


def make_parser() -> PlainParser:
    """Make the parser for ``--parser plugin:bench.curation_world:make_parser``."""
    return PlainParser()


def true_overlap(line: dict[str, Any], folder: Path) -> float:
    """Return the mean IoU of a kept track with the object that its words name; 0 if the set has no such object."""
    # A copy of video 7 has the id 000007-3.
    video = folder / "set" / str(line["vid"]).partition("-")[0]
    truth = truth_of(str(folder))
    overlaps = []
    for path, row in zip(sorted(video.iterdir()), line["box"], strict=True):
        box = truth[frame_key(read_image(path))].get(line["object_description"])
        overlaps.append(Box(*row).iou(Box(*box)) if box else 0.0)
    return float(np.mean(overlaps))


def frame_key(image: NDArray[np.uint8]) -> str:
    """Return the hash by which the truth of an RGB uint8 image (H, W, 3) is found."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:24]


def _trembling(box: Box, rng: np.random.Generator) -> Box:
    """Move each edge by about 2 % of the box."""
    sides = np.array([box.width, box.height, box.width, box.height])
    moved = np.clip(np.array(list(box)) + rng.normal(0, 0.02, 4) * sides, 0, 1)
    try:
        return Box(*moved)
    except BoxError:
        return box
