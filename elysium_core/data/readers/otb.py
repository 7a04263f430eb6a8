"""OTB100: ``<Seq>/img/0001.jpg``, ``<Seq>/groundtruth_rect.txt``, pixels counted from 1.

The boxes are separated by commas, tabs or blanks, depending on the sequence. Two
targets share one folder where there are files ``groundtruth_rect.1.txt`` and ``.2``
(Jogging, Skating2); Human4's ``.1`` is empty and only ``.2`` counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from elysium_core.data.readers.annotation_files import read_boxes, read_text
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, subfolders
from elysium_core.errors import DataError

# File numbers of the annotated part, where it is not the whole folder; None = to the end.
_ANNOTATED: dict[str, tuple[int, int | None]] = {
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "BlurCar1": (247, None),
    "BlurCar3": (3, None),
    "BlurCar4": (18, None),
}
# The benchmark starts these later than their annotation.
_OMITTED_AT_START = {"Tiger1": 5}


def read_otb(root: Path, split: str = "") -> Iterator[LabelledRecording]:
    """Yield OTB's entries; a folder with two targets gives ``Name.1`` and ``Name.2``.

    Raises:
        DataError: Nothing annotated lies in ``root``, or a sequence is not whole.
    """
    del split
    found = False
    for folder in subfolders(root):
        truth_files = [f for f in sorted(folder.glob("groundtruth_rect*.txt")) if read_text(f).strip()]
        for truth_file in truth_files:
            found = True
            target = truth_file.name.removeprefix("groundtruth_rect").removesuffix(".txt")
            yield _recording(folder, truth_file, folder.name + (target if len(truth_files) > 1 else ""))
    if not found:
        raise DataError(
            f"no subfolder of {str(root)!r} holds a groundtruth_rect.txt; give the folder of OTB's sequences"
        )


def _recording(folder: Path, truth_file: Path, name: str) -> LabelledRecording:
    omitted = _OMITTED_AT_START.get(folder.name, 0)
    boxes = read_boxes(truth_file, negative_is_empty=True)[omitted:]
    boxes[:, :2] -= 1
    return LabelledRecording(
        name=name,
        frames=PictureFrames(folder / "img", _annotated_pictures(folder)[omitted:]),
        boxes_xywh_px=boxes,
        truth_file=truth_file,
        pixel_origin=1,
    )


def _annotated_pictures(folder: Path) -> list[str]:
    pictures = list_pictures(folder / "img")
    if folder.name not in _ANNOTATED:
        return pictures
    first, last = _ANNOTATED[folder.name]
    numbered = [(int(Path(name).stem), name) for name in pictures if Path(name).stem.isdecimal()]
    return [name for number, name in numbered if number >= first and (last is None or number <= last)]
