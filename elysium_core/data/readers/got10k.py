"""GOT-10k: ``{train,val,test}/list.txt`` and ``<name>/`` with frames, ``groundtruth.txt`` and labels.

``cover.label`` (0..8, how much of the target is seen) decides about absence, as in the
toolkit; ``absence.label`` where it is missing. ``meta_info.ini`` has a header line and
then ``key: value``; ``object_class`` is the category. Of a test recording only the
first box is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotation_files import read_flags, read_text
from elysium_core.data.readers.frame_sources import PictureFrames, list_pictures
from elysium_core.data.readers.labelled_recording import LabelledRecording, first_box_for_all
from elysium_core.errors import ConfigError, DataError

SPLITS = ("val", "test", "train")


def read_got10k(root: Path, split: str = "val") -> Iterator[LabelledRecording]:
    """Yield the recordings that ``<root>/<split>/list.txt`` names, in its order.

    Raises:
        ConfigError: There is no such split.
        DataError: The list or a recording is not there, or is not whole.
    """
    if split not in SPLITS:
        raise ConfigError(f"GOT-10k has no split {split!r}; choose one of {', '.join(SPLITS)}")
    names = read_text(root / split / "list.txt").split()
    if not names:
        raise DataError(f"{str(root / split / 'list.txt')!r} names no recording")
    for name in names:
        yield _recording(root / split / name)


def _recording(folder: Path) -> LabelledRecording:
    frames = PictureFrames(folder, list_pictures(folder))
    boxes, first_only = first_box_for_all(folder / "groundtruth.txt", frames.count)
    return LabelledRecording(
        name=folder.name,
        frames=frames,
        boxes_xywh_px=boxes,
        truth_file=folder / "groundtruth.txt",
        absent=_absent(folder, len(boxes)),
        category=read_meta(folder / "meta_info.ini").get("object_class", ""),
        first_box_only=first_only,
    )


def read_meta(path: Path) -> dict[str, str]:
    """Read ``key: value`` lines, without the header; an absent file has none."""
    if not path.is_file():
        return {}
    pairs = (line.partition(":") for line in read_text(path).splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _absent(folder: Path, count: int) -> NDArray[np.bool_]:
    if (folder / "cover.label").is_file():
        return np.asarray(read_flags(folder / "cover.label", count) == 0)
    if (folder / "absence.label").is_file():
        return np.asarray(read_flags(folder / "absence.label", count) > 0)
    return np.zeros(count, dtype=bool)
