"""LaSOT: ``<class>/<class>-<n>/`` with ``img/00000001.jpg``, ``groundtruth.txt``, ``nlp.txt`` and flags.

``full_occlusion.txt`` and ``out_of_view.txt`` hold one line of comma-separated flags; a target
with either flag is absent. ``absent.txt`` of the evaluation toolkit, with one flag a line, is
read too. Coordinates are used as written, as all toolkits do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import Skip, read_boxes, read_flags, read_text, usable
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, subfolders
from elysium_core.errors import ConfigError, DataError

SPLITS = ("test", "train", "all")

# Protocol II of the benchmark: four recordings of each of the 70 classes.
_TEST_NUMBERS = """
airplane 1 9 13 15, basketball 1 6 7 11, bear 2 4 6 17, bicycle 2 7 9 18, bird 2 3 15 17, boat 3 4 12 17,
book 3 10 11 19, bottle 1 12 14 18, bus 2 5 17 19, car 2 6 9 17, cat 1 3 18 20, cattle 2 7 12 13,
chameleon 3 6 11 20, coin 3 6 7 18, crab 3 6 12 18, crocodile 3 4 10 14, cup 1 4 7 17, deer 4 8 10 14,
dog 1 7 15 19, drone 2 7 13 15, electricfan 1 10 18 20, elephant 1 12 16 18, flag 2 3 5 9, fox 2 3 5 20,
frog 3 4 9 20, gametarget 1 2 7 13, gecko 1 5 16 19, giraffe 2 10 13 15, goldfish 3 7 8 10, gorilla 4 6 9 13,
guitar 3 8 10 16, hand 2 3 9 16, hat 1 2 5 18, helmet 5 11 13 19, hippo 1 7 9 20, horse 1 4 12 15,
kangaroo 2 5 11 14, kite 4 6 10 15, leopard 1 7 16 20, licenseplate 6 12 13 15, lion 1 5 12 20, lizard 1 3 6 13,
microphone 2 6 14 16, monkey 3 4 9 17, motorcycle 1 3 9 18, mouse 1 8 9 17, person 1 5 10 12, pig 2 10 13 18,
pool 3 7 12 15, rabbit 10 13 17 19, racing 10 15 16 20, robot 1 5 8 19, rubicCube 1 6 14 19, sepia 6 8 13 16,
shark 2 3 5 6, sheep 3 5 7 9, skateboard 3 8 16 19, spider 14 16 18 20, squirrel 8 11 13 19, surfboard 4 5 8 12,
swing 10 14 17 20, tank 6 9 14 16, tiger 4 6 12 18, train 1 7 11 20, truck 3 6 7 16, turtle 5 8 9 16,
umbrella 2 9 17 19, volleyball 1 13 18 19, yoyo 7 15 17 19, zebra 10 14 16 17
"""


def names_of_test_split() -> list[str]:
    """Return the names of the 280 test recordings."""
    entries = [entry.split() for entry in _TEST_NUMBERS.replace("\n", " ").split(",")]
    return [f"{words[0]}-{number}" for words in entries for number in words[1:]]


def read_lasot(root: Path, split: str = "test", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield the recordings of a split that are in ``root``, ordered by class and number.

    Args:
        root: The folder of the class folders.
        split: ``test`` (280 names), ``train`` (all others) or ``all``.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        ConfigError: There is no such split.
        DataError: ``root`` holds no recording of the split, or a recording is incomplete.
    """
    if split not in SPLITS:
        raise ConfigError(f"LaSOT has no split {split!r}; choose one of {', '.join(SPLITS)}")
    test = set(names_of_test_split())
    folders = [folder for group in subfolders(root) for folder in subfolders(group)]
    folders = [f for f in folders if (f / "groundtruth.txt").is_file() and _wanted(f.name in test, split)]
    if not folders:
        raise DataError(f"{str(root)!r} holds no recording of LaSOT's split {split!r}; give the folder of its classes")
    yield from usable(sorted(folders, key=lambda f: _by_number(f.name)), _recording, skip)


def _wanted(is_test: bool, split: str) -> bool:
    return split == "all" or is_test == (split == "test")


def _by_number(name: str) -> tuple[str, int, str]:
    group, _, number = name.rpartition("-")
    return group, int(number) if number.isdecimal() else 0, name


def _recording(folder: Path) -> LabelledRecording:
    boxes = read_boxes(folder / "groundtruth.txt", negative_is_empty=True)
    words = folder / "nlp.txt"
    return LabelledRecording(
        name=folder.name,
        frames=PictureFrames(folder / "img", list_pictures(folder / "img")),
        boxes_xywh_px=boxes,
        truth_file=folder / "groundtruth.txt",
        absent=_absent(folder, len(boxes)),
        expression=" ".join(read_text(words).split()) if words.is_file() else "",
        category=folder.name.rpartition("-")[0],
    )


def _absent(folder: Path, count: int) -> NDArray[np.bool_]:
    files = [folder / name for name in ("full_occlusion.txt", "out_of_view.txt", "absent.txt")]
    present = [file for file in files if file.is_file()]
    if not present:
        raise DataError(f"{str(folder)!r} holds neither full_occlusion.txt and out_of_view.txt nor absent.txt")
    return np.asarray(np.any([read_flags(file, count) > 0 for file in present], axis=0))
