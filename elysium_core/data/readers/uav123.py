"""UAV123: ``data_seq/UAV123/<folder>/000001.jpg``, ``anno/UAV123/<name>.txt``; NaN = absent.

Several of the 123 entries are parts of one folder; each starts at the frame listed
here and is as long as its annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elysium_core.data.readers.annotation_files import read_boxes
from elysium_core.data.readers.frame_sources import require_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import DataError

# Folder -> first frame of its parts _1, _2, ...
_PART_STARTS: dict[str, tuple[int, ...]] = {
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


def read_uav123(root: Path, split: str = "") -> Iterator[LabelledRecording]:
    """Yield UAV123's entries, in order of their names.

    Raises:
        DataError: There are no annotations, or the frames of an entry are not all there.
    """
    del split
    truth_files = sorted((root / "anno" / "UAV123").glob("*.txt"))
    if not truth_files:
        raise DataError(f"{str(root)!r} holds no anno/UAV123/*.txt; give the folder that holds anno and data_seq")
    for truth_file in truth_files:
        yield _recording(root, truth_file)


def _recording(root: Path, truth_file: Path) -> LabelledRecording:
    name = truth_file.stem
    folder_name, start = _folder_and_start(name)
    folder = root / "data_seq" / "UAV123" / folder_name
    boxes = read_boxes(truth_file, negative_is_empty=True)
    names = [f"{number:06d}.jpg" for number in range(start, start + len(boxes))]
    return LabelledRecording(name, require_pictures(folder, names), boxes, truth_file)


def _folder_and_start(name: str) -> tuple[str, int]:
    folder, _, part = name.rpartition("_")
    starts = _PART_STARTS.get(folder, ())
    if part.isdecimal() and 1 <= int(part) <= len(starts):
        return folder, starts[int(part) - 1]
    return name, 1
