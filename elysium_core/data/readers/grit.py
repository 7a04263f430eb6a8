"""GRIT: captions whose noun phrases and referring expressions have boxes.

GRIT is published as parquet files without pictures. ``img2dataset`` fetches the pictures, and writes either folders of
pictures beside parquet files, or tar files for webdataset. Both are read.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotated_media import AnnotatedMedia, wrong_form
from elysium_core.data.readers.frame_sources import FrameSource, PictureFrames
from elysium_core.errors import BackendError, BoxError, DataError, ImageError, pip_line
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import decode_image

GRIT_FORM = (
    "tar files of <key>.jpg and <key>.json, or parquet files with key, caption, ref_exps and noun_chunks beside "
    "folders of <key>.jpg (GRIT, as img2dataset writes it)"
)
_COLUMNS = ("key", "caption", "ref_exps", "noun_chunks")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# Row groups of parquet files held in memory; a group has up to a million rows.
_MOST_GROUPS = 4


def open_grit(path: Path, media: Path) -> TarGrit | ParquetGrit:
    """Open GRIT in whichever form is there.

    Args:
        path: Folder of the tar or parquet files, or one such file.
        media: For parquet: folder of the pictures.

    Raises:
        DataError: There is neither.
        BackendError: The files are parquet, and pyarrow is not installed.
    """
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    if tars := [file for file in files if file.suffix == ".tar"]:
        return TarGrit(tars)
    if tables := [file for file in files if file.suffix == ".parquet"]:
        return ParquetGrit(tables, media)
    raise wrong_form(path, GRIT_FORM)


def parse_grit(item: dict[str, Any], frames: FrameSource, place: str) -> AnnotatedMedia:
    """Read one caption with its boxes.

    Referring expressions are preferred to plain noun phrases. Words with several boxes are left out, because they do
    not name one object.

    Raises:
        DataError: It has no usable phrase, or lacks a field.
    """
    caption = item.get("caption")
    if not isinstance(caption, str) or not any(key in item for key in _COLUMNS[2:]):
        raise DataError(f"{place} lacks caption, ref_exps or noun_chunks; expected {GRIT_FORM}")
    for key in _COLUMNS[2:]:
        if objects := _objects(caption, item.get(key), place):
            return AnnotatedMedia(place, frames, objects=objects)
    raise DataError(f"{place} has no phrase with exactly one box")


def _objects(caption: str, spans: Any, place: str) -> tuple[tuple[str, Box], ...]:
    found: dict[str, list[Box]] = {}
    for span in _as_list(spans, place):
        try:
            # Places in the caption are stored as floats.
            start, end, *edges = (float(value) for value in span)
            words = " ".join(caption[int(start) : int(end)].split())
            found.setdefault(words, []).append(Box(*(min(max(edge, 0.0), 1.0) for edge in edges[:4])))
        except (TypeError, ValueError, BoxError):
            found.setdefault("", [])
    return tuple((words, boxes[0]) for words, boxes in found.items() if words and len(boxes) == 1)


def _as_list(spans: Any, place: str) -> list[Any]:
    """Return the spans; some versions of img2dataset write them as text."""
    if isinstance(spans, str):
        try:
            spans = json.loads(spans)
        except ValueError as error:
            raise DataError(f"{place} has {spans:.60} where a list of spans is needed") from error
    return [] if spans is None else list(spans)


@dataclass(frozen=True, slots=True)
class TarPicture:
    """One picture inside a tar file.

    Attributes:
        archive: The tar file.
        start: Place of its first byte.
        size: Number of bytes.
    """

    archive: Path
    start: int
    size: int

    @property
    def name(self) -> str:
        """The archive."""
        return str(self.archive)

    @property
    def count(self) -> int:
        """One."""
        return 1

    def __iter__(self) -> Iterator[Frame]:
        """Yield the picture."""
        try:
            yield Frame(decode_image(read_bytes(self.archive, self.start, self.size), self.name), 0, 0)
        except ImageError as error:
            raise DataError(str(error)) from error


def _find(ends: NDArray[np.int64], index: int) -> tuple[int, int]:
    """Return the part that holds an item, and the item's number in it."""
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


def read_bytes(path: Path, start: int, size: int) -> bytes:
    """Return a part of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


class TarGrit:
    """GRIT as tar files for webdataset.

    Args:
        files: The tar files.

    Raises:
        DataError: One cannot be read, or holds no captions.
    """

    def __init__(self, files: list[Path]) -> None:
        # Four numbers a sample: start and size of the JSON text, start and size of the picture.
        self._files, self._members = files, [_tar_members(file) for file in files]
        self._ends = np.cumsum([len(members) for members in self._members])
        if len(self) == 0:
            raise wrong_form(files[0], GRIT_FORM)

    def __len__(self) -> int:
        """Number of captions."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one caption; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        shard, place_there = _find(self._ends, index)
        row = self._members[shard][place_there]
        file, (start, size, picture_start, picture_size) = self._files[shard], (int(value) for value in row)
        place = f"the text at byte {start} of {str(file)!r}"
        try:
            item = json.loads(read_bytes(file, start, size))
        except ValueError as error:
            raise DataError(f"{place} is not valid JSON ({error})") from error
        if not isinstance(item, dict):
            raise DataError(f"{place} is a JSON {type(item).__name__}; expected {GRIT_FORM}")
        return parse_grit(item, TarPicture(file, picture_start, picture_size), place)


def _tar_members(path: Path) -> NDArray[np.int64]:
    texts: dict[str, tuple[int, int]] = {}
    pictures: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                stem, dot, ending = member.name.rpartition(".")
                kind = texts if ending == "json" else pictures if dot + ending.lower() in _PICTURES else None
                if kind is not None and member.isfile():
                    kind[stem] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{str(path)!r} cannot be read as a tar file ({error}); copy it again") from error
    rows = [(*texts[stem], *pictures[stem]) for stem in texts if stem in pictures]
    return np.asarray(rows, np.int64).reshape(-1, 4)


class ParquetGrit:
    """GRIT as parquet files, with the pictures in folders. Needs pyarrow.

    Args:
        files: The parquet files.
        media: Folder of the pictures: ``<key>.jpg``, also in a folder named after the parquet file.

    Raises:
        BackendError: pyarrow is not installed.
        DataError: A file has other columns.
    """

    def __init__(self, files: list[Path], media: Path) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise BackendError(f"parquet files need pyarrow, which is not installed: {pip_line('pyarrow')}") from error
        self._media, self._groups = media, []
        lengths = []
        for file in files:
            try:
                table = ParquetFile(file)
            except (OSError, ArrowException) as error:
                raise DataError(f"{str(file)!r} cannot be read as parquet ({error}); copy it again") from error
            if not {"key", "caption", "ref_exps"} <= set(table.schema_arrow.names):
                raise wrong_form(file, GRIT_FORM)
            self._groups += [(file, table, number) for number in range(table.num_row_groups)]
            lengths += [table.metadata.row_group(number).num_rows for number in range(table.num_row_groups)]
        self._ends = np.cumsum(lengths)
        self._read = lru_cache(maxsize=_MOST_GROUPS)(self._read_group)

    def __len__(self) -> int:
        """Number of captions."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one caption; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        group, row = _find(self._ends, index)
        file = self._groups[group][0]
        item = {name: values[row].as_py() for name, values in self._read(group).items()}
        place, key = f"row {index + 1} of the parquet files at {str(file)!r}", str(item["key"])
        folders = ("", file.stem, key[:5])
        for folder in folders:
            if (self._media / folder / f"{key}.jpg").is_file():
                return parse_grit(item, PictureFrames(self._media / folder, [f"{key}.jpg"]), place)
        raise DataError(f"{place} needs {key}.jpg, which is not in {str(self._media)!r}; fetch it with img2dataset")

    def _read_group(self, group: int) -> dict[str, Any]:
        _, table, number = self._groups[group]
        columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
        read = table.read_row_group(number, columns=columns)
        return {name: read.column(name) for name in columns}
