"""Cut-outs on disk: made once, continued after an interruption, the same on every run.

``cutouts.json`` says what they were made of. ``chunk-00000.rgba`` holds the pixels of a fixed number of objects one
after the other, four bytes each, and ``chunk-00000.json``, which is written after it, says where each cut-out is and
how many objects were rejected. A chunk is there as a whole or not at all.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.grabcut import CutSettings, Rejected, cut_out
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.errors import ConfigError, DataError
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path

CLAIM_NAME = "cutouts.json"
CHUNK_OBJECTS = 128
"""Objects a chunk: so many are cut again after an interruption, a few seconds of work."""

_LAYOUT = 1
# Of Caltech's pictures, whose boxes are unknown.
_MIDDLE = Box(0.06, 0.06, 0.94, 0.94)
_LEAST_AREA, _MOST_AREA = 0.02, 0.6


@dataclass(frozen=True, slots=True)
class CutJob:
    """An object that may be cut out.

    Attributes:
        photo: Index of its photo.
        name: What it is.
        box: Where it is.
        is_true_box: The box was annotated.
    """

    photo: int
    name: str
    box: Box
    is_true_box: bool


def list_jobs(photos: PhotoSet, most: int = 0) -> list[CutJob]:
    """The objects of a collection that are worth a try, in a fixed random order.

    These are annotated objects that are whole and of a fair size, and what the pictures of a category show.

    Args:
        photos: The photos.
        most: Only so many; 0 = all.
    """
    jobs = []
    table = photos.objects
    area = table.area
    fair = (area >= _LEAST_AREA) & (area <= _MOST_AREA) & ~table.is_difficult & ~table.is_truncated
    for row in np.flatnonzero(fair):
        name = photos.names[table.name[row]]
        jobs.append(CutJob(int(table.photo[row]), name, table.box_of(int(row)), is_true_box=True))
    jobs += [
        CutJob(index, photos.category(index), _MIDDLE, is_true_box=False)
        for index in range(len(photos))
        if photos.category(index) and not photos.rows_of(index)
    ]
    order = np.random.default_rng(0).permutation(len(jobs))
    return [jobs[i] for i in (order[:most] if most else order)]


def make_cutouts(
    photos: PhotoSet, folder: Path, settings: CutSettings | None = None, most: int = 0
) -> Iterator[tuple[int, int]]:
    """Cut objects out of photos into a cache folder; chunks that are there already are kept.

    Args:
        photos: The photos, those that are held out included.
        folder: The cache folder; made if it is missing.
        settings: How to cut.
        most: Try only so many objects; 0 = all.

    Yields:
        Number of objects done, and of all objects, after each chunk.

    Raises:
        ConfigError: The folder holds cut-outs of other photos or settings.
        DataError: There is nothing to cut out, or the folder cannot be written.
    """
    settings = settings or CutSettings()
    jobs = list_jobs(photos, most)
    if not jobs:
        raise DataError(
            "these photos have neither boxes nor categories, so that nothing can be cut out; "
            "add PASCAL VOC or Caltech-101, see docs/data.md"
        )
    try:
        _claim(folder, photos, jobs, settings)
        for number, first in enumerate(range(0, len(jobs), CHUNK_OBJECTS)):
            part = jobs[first : first + CHUNK_OBJECTS]
            if not _index_path(folder, number).is_file():
                _write_chunk(folder, number, photos, part, settings)
            yield first + len(part), len(jobs)
    except OSError as error:
        raise DataError(f"cannot write cut-outs to {str(folder)!r}: {error.strerror or error}") from error


def _claim(folder: Path, photos: PhotoSet, jobs: list[CutJob], settings: CutSettings) -> None:
    """Make the folder, or check that it belongs to the same work."""
    text = "\n".join(f"{photos.key(job.photo)} {job.name} {job.box.as_list()}" for job in jobs)
    claim = {
        "layout": _LAYOUT,
        "objects": len(jobs),
        "photos": f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}",
        "settings": json.loads(json.dumps(asdict(settings))),
    }
    path = folder / CLAIM_NAME
    if path.is_file():
        found = _read_json(path)
        if found != claim:
            keys = ", ".join(sorted(key for key in claim if found.get(key) != claim[key]))
            raise ConfigError(f"{str(folder)!r} holds cut-outs made with other {keys}; name another folder")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{str(folder)!r} holds other files; name a new folder for the cut-outs")
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(claim) + "\n", encoding="utf-8")


def _write_chunk(folder: Path, number: int, photos: PhotoSet, jobs: list[CutJob], settings: CutSettings) -> None:
    pixels: list[NDArray[np.uint8]] = []
    lines: list[dict[str, Any]] = []
    rejected: Counter[str] = Counter()
    start = 0
    for job in jobs:
        image = photos.read(job.photo)
        found = cut_out(image, job.box, settings, is_true_box=job.is_true_box) if image is not None else None
        if found is None or isinstance(found, Rejected):
            rejected[(found or Rejected.UNREADABLE).value] += 1
            continue
        height, width = found.shape[:2]
        key = photos.key(job.photo)
        lines.append({"name": job.name, "photo": key, "start": start, "height": height, "width": width})
        pixels.append(found.reshape(-1))
        start += found.size
    flat = np.concatenate(pixels) if pixels else np.zeros(0, np.uint8)
    with atomic_path(_pixels_path(folder, number)) as temporary:
        temporary.write_bytes(flat.tobytes())
    with atomic_path(_index_path(folder, number)) as temporary:
        temporary.write_text(json.dumps({"cutouts": lines, "rejected": rejected}) + "\n", encoding="utf-8")


def _pixels_path(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:05d}.rgba"


def _index_path(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:05d}.json"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} is missing or damaged; delete its folder and make the cut-outs again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{str(path)!r} is damaged; delete its folder and make the cut-outs again")
    return value


@dataclass(frozen=True, slots=True)
class StoredCutout:
    """Where a cut-out is.

    Attributes:
        name: What it shows.
        photo: Path of its photo relative to the photo's folder.
        chunk: Number of its chunk.
        start: Its first byte in the chunk.
        height: Its height [px].
        width: Its width [px].
    """

    name: str
    photo: str
    chunk: int
    start: int
    height: int
    width: int


class CutoutCache:
    """The cut-outs of a finished cache folder. The index is in memory, pixels are read when they are needed.

    Args:
        folder: The folder that :func:`make_cutouts` wrote.

    Raises:
        DataError: It is missing, unfinished or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / CLAIM_NAME).is_file():
            raise DataError(f"{str(folder)!r} holds no cut-outs; make them first, see docs/data.md")
        self.tried = _whole_number(_read_json(folder / CLAIM_NAME), "objects", folder / CLAIM_NAME)
        self.cutouts: list[StoredCutout] = []
        self.rejected: Counter[str] = Counter()
        for number in range(-(-self.tried // CHUNK_OBJECTS)):
            path = _index_path(folder, number)
            if not path.is_file():
                raise DataError(f"the cut-outs in {str(folder)!r} are unfinished; the same command continues them")
            self._add(number, path)

    def _add(self, number: int, path: Path) -> None:
        index = _read_json(path)
        try:
            for line in index["cutouts"]:
                place = (int(line[key]) for key in ("start", "height", "width"))
                self.cutouts.append(StoredCutout(str(line["name"]), str(line["photo"]), number, *place))
            self.rejected.update({str(reason): int(count) for reason, count in index["rejected"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{str(path)!r} is damaged; delete it and make the cut-outs again") from error

    def __len__(self) -> int:
        return len(self.cutouts)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels of a cut-out: RGBA uint8 (H, W, 4), colour not multiplied by alpha.

        Raises:
            DataError: Its chunk is missing or damaged.
        """
        stored = self.cutouts[index]
        path = _pixels_path(self._folder, stored.chunk)
        count = stored.height * stored.width * 4
        try:
            flat = np.fromfile(path, np.uint8, count, offset=stored.start)
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        if len(flat) != count:
            raise DataError(f"{str(path)!r} is too short; delete its folder and make the cut-outs again")
        return flat.reshape(stored.height, stored.width, 4)


def _whole_number(values: dict[str, Any], key: str, path: Path) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{key} = {value!r} in {str(path)!r} is no number of objects; make the cut-outs again")
    return value
