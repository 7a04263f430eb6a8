"""Videos with captions, read line by line: csv, jsonl, or the csv of WebVid."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from elysium_core.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", "")
"""Endings that a video may have where the captions give only its id; the last one is a folder of pictures."""

# Names of the columns, the usual ones first. WebVid: videoid, contentUrl, duration, page_dir, name.
_PATH_KEYS = ("video", "path", "file", "filename", "video_path")
_ID_KEYS = ("videoid", "video_id", "vid", "id", "clip_id")
_CAPTION_KEYS = ("caption", "name", "text", "title", "description")
_FOLDER_KEY = "page_dir"
_LONGEST_ID = 100
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class CaptionedVideo:
    """A video that has not been opened.

    Attributes:
        vid: Its id, which is also a safe name of a folder.
        path: The file, or a folder of pictures; it may be missing.
        caption: Its caption; empty if it has none.
        problem: Why its line names no video; empty if it does.
    """

    vid: str
    path: Path
    caption: str
    problem: str = ""


def read_captions(captions: Path, videos: Path) -> Iterator[CaptionedVideo]:
    """Yield the videos of a caption file in its order; nothing but the current line is in memory.

    A line needs a caption (``caption``, ``name`` or ``text``) and a video: a path below the folder (``video``, ``path``
    or ``file``), or an id (``videoid``, ``vid`` or ``id``) with, in WebVid, the folder ``page_dir``.

    A line that names no video is yielded with its problem.

    Args:
        captions: A .csv file with a header, or .jsonl with an object a line.
        videos: The folder of the videos.

    Raises:
        DataError: The file is missing or of another kind, or its first line names no video.
    """
    is_first = True
    for number, row in _rows(captions):
        try:
            video = _video(row, videos, f"line {number} of {str(captions)!r}")
        except DataError as error:
            if is_first:
                raise
            video = CaptionedVideo(safe_id(f"line {number}"), videos, "", str(error))
        is_first = False
        yield video


def count_videos(captions: Path) -> int:
    """Return the number of lines with an entry, reading the file once.

    Raises:
        DataError: As for :func:`read_captions`.
    """
    return sum(1 for _ in _rows(captions))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    if path.suffix.lower() not in (".csv", ".jsonl", ".json"):
        raise DataError(f"captions {str(path)!r} need a file that ends in .csv or .jsonl")
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            if path.suffix.lower() == ".csv":
                csv.field_size_limit(_LONGEST_LINE)
                reader = csv.DictReader(file)
                _require_columns(reader.fieldnames or (), path)
                for row in reader:
                    yield reader.line_num, {key.strip().lower(): value for key, value in row.items() if key}
            else:
                yield from _json_rows(file)
    except OSError as error:
        raise DataError(f"cannot read the captions {str(path)!r}: {error.strerror or error}") from error
    except csv.Error as error:
        raise DataError(
            f"{str(path)!r} cannot be read as csv ({error}); write it with a header and quoted texts"
        ) from error


def _json_rows(file: Iterator[str]) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, {key.lower(): value for key, value in row.items()} if isinstance(row, dict) else None


def _require_columns(names: Any, path: Path) -> None:
    found = [str(name).strip().lower() for name in names]
    if not set(found) & set(_CAPTION_KEYS) or not set(found) & {*_PATH_KEYS, *_ID_KEYS}:
        raise DataError(
            f"{str(path)!r} has the columns {', '.join(found)[:200]!r}; it needs one of {', '.join(_CAPTION_KEYS)} and "
            f"one of {', '.join((*_PATH_KEYS, *_ID_KEYS))}"
        )


def _video(row: Mapping[str, Any] | None, videos: Path, place: str) -> CaptionedVideo:
    if row is None:
        raise DataError(f"{place} is not a JSON object; one object a line is needed")
    caption, path, vid = (_first(row, keys) for keys in (_CAPTION_KEYS, _PATH_KEYS, _ID_KEYS))
    if not path and not vid:
        raise DataError(f"{place} names no video; it needs one of {', '.join((*_PATH_KEYS, *_ID_KEYS))}")
    relative = path or str(PurePosixPath(_first(row, (_FOLDER_KEY,))) / vid)
    if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise DataError(f"{place} names the video {relative[:100]!r}; a path below the folder of the videos is needed")
    found = videos / relative if path else _with_suffix(videos / relative)
    name = vid or str(PurePosixPath(path).with_suffix(""))
    return CaptionedVideo(safe_id(name), found, " ".join(caption.split()))


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    """Return the first of some fields that holds a text or number."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return ""


def _with_suffix(path: Path) -> Path:
    for suffix in VIDEO_SUFFIXES:
        candidate = path.with_name(path.name + suffix)
        try:
            if candidate.exists():
                return candidate
        except (OSError, ValueError):  # no name of a file; opening it says so
            break
    return path.with_name(path.name + VIDEO_SUFFIXES[0])


def safe_id(vid: str) -> str:
    """Return an id as a name for a folder and a sample of a shard: itself, or if it is no such name, with a hash."""
    if len(vid) <= _LONGEST_ID and re.fullmatch(r"[A-Za-z0-9_-]+", vid):
        return vid
    short = re.sub(r"[^A-Za-z0-9_-]+", "_", vid)[:40].strip("_-")
    return f"{short or 'video'}-{hashlib.sha256(vid.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
