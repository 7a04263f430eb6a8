"""TrackingNet: ``{TRAIN_0..TRAIN_11,TEST}/frames/<vid>/<n>.jpg`` and ``anno/<vid>.txt``.

Frame names are not padded with zeros, so they are sorted as numbers: 2.jpg before
10.jpg. Of a TEST video only the first box is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, first_box_for_all
from elysium_core.errors import ConfigError, DataError

_SPLIT = re.compile(r"TEST|TRAIN_(?:[0-9]|1[01])")


def read_trackingnet(root: Path, split: str = "TEST") -> Iterator[LabelledRecording]:
    """Yield the videos of one split folder, in order of their names.

    Args:
        root: The folder of ``TEST`` and ``TRAIN_*``.
        split: ``TEST`` or ``TRAIN_0`` to ``TRAIN_11``.

    Raises:
        ConfigError: There is no such split.
        DataError: The split is not in ``root``, or a video is not whole.
    """
    if not _SPLIT.fullmatch(split):
        raise ConfigError(f"TrackingNet has no split {split!r}; choose TEST or TRAIN_0 to TRAIN_11")
    truth_files = sorted((root / split / "anno").glob("*.txt"))
    if not truth_files:
        raise DataError(f"{str(root / split / 'anno')!r} holds no .txt files; give the folder that holds {split}")
    for truth_file in truth_files:
        folder = root / split / "frames" / truth_file.stem
        frames = PictureFrames(folder, list_pictures(folder))
        boxes, first_only = first_box_for_all(truth_file, frames.count)
        yield LabelledRecording(truth_file.stem, frames, boxes, truth_file, first_box_only=first_only)
