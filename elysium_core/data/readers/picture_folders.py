"""OTB100, UAV123, GOT-10k and TrackingNet: a folder of pictures and a text file of boxes for each recording.

OTB100: ``<Seq>/img/0001.jpg`` and ``<Seq>/groundtruth_rect.txt``, pixels counted from 1. Two targets share one
folder where there are files ``groundtruth_rect.1.txt`` and ``.2`` (Jogging, Skating2); Human4's ``.1`` is empty.

UAV123: ``data_seq/UAV123/<folder>/000001.jpg`` and ``anno/UAV123/<name>.txt``; a NaN box means absent. Several of
the 123 entries are parts of one folder: each starts at a listed frame and is as long as its annotation.

GOT-10k: ``{train,val,test}/list.txt`` and ``<name>/`` with frames, ``groundtruth.txt`` and labels. As in the toolkit,
the target is absent where ``cover.label`` (0..8, its visible part) is 0, or ``absence.label`` is 1 if there is no
``cover.label``. Of a test recording only the first box is published.

TrackingNet: ``{TRAIN_0..TRAIN_11,TEST}/frames/<vid>/<n>.jpg`` and ``anno/<vid>.txt``. Frame names have no leading
zeros. Of a TEST video only the first box is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import Skip, read_boxes, read_flags, read_text, usable
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures, require_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, first_box_for_all, subfolders
from elysium_core.errors import ConfigError, DataError

# Numbers of the annotated frames of OTB, where they are not the whole folder; None = to the end.
_OTB_ANNOTATED: dict[str, tuple[int, int | None]] = {
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "BlurCar1": (247, None),
    "BlurCar3": (3, None),
    "BlurCar4": (18, None),
}
# Annotated frames that OTB's protocol leaves out at the start.
_OTB_OMITTED = {"Tiger1": 5}

# Folder of UAV123 -> first frame of its parts _1, _2, ...
_UAV123_PARTS: dict[str, tuple[int, ...]] = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "car16": (1, 415),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}

_GOT10K_SPLITS = ("val", "test", "train")
_TRACKINGNET_SPLIT = re.compile(r"TEST|TRAIN_(?:[0-9]|1[01])")


def read_otb(root: Path, split: str = "", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield OTB's entries; a folder with two targets gives ``Name.1`` and ``Name.2``.

    Args:
        root: The folder of the sequences.
        split: There is only one.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        DataError: ``root`` holds no annotated sequence, or a sequence is incomplete.
    """
    del split
    found = False
    for folder in subfolders(root):
        truth_files = [f for f in sorted(folder.glob("groundtruth_rect*.txt")) if read_text(f).strip()]
        found = found or bool(truth_files)
        targets = [(f, f.name.removeprefix("groundtruth_rect").removesuffix(".txt")) for f in truth_files]
        named = [(folder, f, folder.name + (target if len(targets) > 1 else "")) for f, target in targets]
        yield from usable(named, lambda entry: _otb_recording(*entry), skip)
    if not found:
        raise DataError(
            f"no subfolder of {str(root)!r} holds a groundtruth_rect.txt; give the folder of OTB's sequences"
        )


def _otb_recording(folder: Path, truth_file: Path, name: str) -> LabelledRecording:
    omitted = _OTB_OMITTED.get(folder.name, 0)
    boxes = read_boxes(truth_file, negative_is_empty=True)[omitted:]
    boxes[:, :2] -= 1
    return LabelledRecording(
        name=name,
        frames=PictureFrames(folder / "img", _otb_pictures(folder)[omitted:]),
        boxes_xywh_px=boxes,
        truth_file=truth_file,
        pixel_origin=1,
    )


def _otb_pictures(folder: Path) -> list[str]:
    pictures = list_pictures(folder / "img")
    if folder.name not in _OTB_ANNOTATED:
        return pictures
    first, last = _OTB_ANNOTATED[folder.name]
    numbered = [(int(Path(name).stem), name) for name in pictures if Path(name).stem.isdecimal()]
    return [name for number, name in numbered if number >= first and (last is None or number <= last)]


def read_uav123(root: Path, split: str = "", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield UAV123's entries, in order of their names.

    Args:
        root: The folder of ``anno`` and ``data_seq``.
        split: There is only one.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        DataError: There are no annotations, or frames of an entry are missing.
    """
    del split
    truth_files = sorted((root / "anno" / "UAV123").glob("*.txt"))
    if not truth_files:
        raise DataError(f"{str(root)!r} holds no anno/UAV123/*.txt; give the folder that holds anno and data_seq")
    pictures = root / "data_seq" / "UAV123"
    yield from usable(truth_files, lambda truth_file: _uav123_recording(pictures, truth_file), skip)


def _uav123_recording(pictures: Path, truth_file: Path) -> LabelledRecording:
    folder, start = _uav123_part(truth_file.stem)
    boxes = read_boxes(truth_file, negative_is_empty=True)
    names = [f"{number:06d}.jpg" for number in range(start, start + len(boxes))]
    return LabelledRecording(truth_file.stem, require_pictures(pictures / folder, names), boxes, truth_file)


def _uav123_part(name: str) -> tuple[str, int]:
    """Return the folder of an entry and the number of its first frame."""
    folder, _, part = name.rpartition("_")
    starts = _UAV123_PARTS.get(folder, ())
    if part.isdecimal() and 1 <= int(part) <= len(starts):
        return folder, starts[int(part) - 1]
    return name, 1


def read_got10k(root: Path, split: str = "val", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield the recordings that ``<root>/<split>/list.txt`` names, in its order.

    Args:
        root: The folder of the split folders.
        split: ``val``, ``test`` or ``train``.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        ConfigError: There is no such split.
        DataError: The list or a recording is missing or incomplete.
    """
    if split not in _GOT10K_SPLITS:
        raise ConfigError(f"GOT-10k has no split {split!r}; choose one of {', '.join(_GOT10K_SPLITS)}")
    names = read_text(root / split / "list.txt").split()
    if not names:
        raise DataError(f"{str(root / split / 'list.txt')!r} names no recording")
    yield from usable([root / split / name for name in names], _got10k_recording, skip)


def _got10k_recording(folder: Path) -> LabelledRecording:
    frames = PictureFrames(folder, list_pictures(folder))
    boxes, first_only = first_box_for_all(folder / "groundtruth.txt", frames.count)
    return LabelledRecording(
        name=folder.name,
        frames=frames,
        boxes_xywh_px=boxes,
        truth_file=folder / "groundtruth.txt",
        absent=_got10k_absent(folder, len(boxes)),
        category=_got10k_meta(folder / "meta_info.ini").get("object_class", ""),
        first_box_only=first_only,
    )


def _got10k_meta(path: Path) -> dict[str, str]:
    """Read the ``key: value`` lines behind the header line; a missing file has none."""
    if not path.is_file():
        return {}
    pairs = (line.partition(":") for line in read_text(path).splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _got10k_absent(folder: Path, count: int) -> NDArray[np.bool_]:
    if (folder / "cover.label").is_file():
        return np.asarray(read_flags(folder / "cover.label", count) == 0)
    if (folder / "absence.label").is_file():
        return np.asarray(read_flags(folder / "absence.label", count) > 0)
    return np.zeros(count, dtype=bool)


def read_trackingnet(root: Path, split: str = "TEST", skip: Skip | None = None) -> Iterator[LabelledRecording]:
    """Yield the videos of one split folder, in order of their names.

    Args:
        root: The folder of ``TEST`` and ``TRAIN_*``.
        split: ``TEST`` or ``TRAIN_0`` to ``TRAIN_11``.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        ConfigError: There is no such split.
        DataError: The split is not in ``root``, or a video is incomplete.
    """
    if not _TRACKINGNET_SPLIT.fullmatch(split):
        raise ConfigError(f"TrackingNet has no split {split!r}; choose TEST or TRAIN_0 to TRAIN_11")
    truth_files = sorted((root / split / "anno").glob("*.txt"))
    if not truth_files:
        raise DataError(f"{str(root / split / 'anno')!r} holds no .txt files; give the folder that holds {split}")
    pictures = root / split / "frames"
    yield from usable(truth_files, lambda truth_file: _trackingnet_recording(pictures, truth_file), skip)


def _trackingnet_recording(pictures: Path, truth_file: Path) -> LabelledRecording:
    folder = pictures / truth_file.stem
    frames = PictureFrames(folder, list_pictures(folder))
    boxes, first_only = first_box_for_all(truth_file, frames.count)
    return LabelledRecording(truth_file.stem, frames, boxes, truth_file, first_box_only=first_only)
