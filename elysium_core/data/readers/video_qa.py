"""Questions about videos: MSVD-QA, MSRVTT-QA, TGIF-QA (FrameQA) and ActivityNet-QA."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.data.readers.annotation_files import read_json, read_text
from elysium_core.data.readers.frame_sources import VIDEO_SUFFIXES
from elysium_core.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class VideoQuestion:
    """One question about one video.

    Attributes:
        question_id: Unique in its data set.
        video: The video file.
        question: The question.
        answer: The correct answer.
        kind: The data set's type of question; empty if it has none.
    """

    question_id: str
    video: Path
    question: str
    answer: str
    kind: str = ""


def read_video_qa(root: Path, name: str, split: str = "test") -> Iterator[VideoQuestion]:
    """Yield the questions of one data set.

    Args:
        root: The folder of the question files; videos may be anywhere below it.
        name: ``msvd-qa``, ``msrvtt-qa``, ``tgif-qa`` or ``activitynet-qa``.
        split: ``test``, ``val`` or ``train``.

    Raises:
        ConfigError: There is no such data set.
        DataError: A file, a field or a video is missing.
    """
    if name not in READERS:
        raise ConfigError(f"{name!r} is not one of {', '.join(READERS)}")
    return READERS[name](root, split)


def _msvd(root: Path, split: str) -> Iterator[VideoQuestion]:
    """``test_qa.json`` with video_id N = ``vidN``; a mapping file gives the name of the video file."""
    own_names = _msvd_mapping(root)
    videos = _VideoIndex(root)
    path = root / f"{split}_qa.json"
    for place, item in _items(path):
        question_id, question, answer, number = _fields(item, ("id", "question", "answer", "video_id"), place)
        name = f"vid{number}"
        yield VideoQuestion(question_id, videos.find((name, own_names.get(name, name)), place), question, answer)


def _msvd_mapping(root: Path) -> dict[str, str]:
    for name in ("youtube_mapping.txt", "mapping.txt"):
        for path in (root / name, *sorted(root.glob(f"*/{name}"))):
            if path.is_file():
                pairs = (line.split() for line in read_text(path).splitlines() if line.strip())
                return {words[1]: words[0] for words in pairs if len(words) == 2}
    return {}


def _msrvtt(root: Path, split: str) -> Iterator[VideoQuestion]:
    """``test_qa.json`` with video_id N = ``videoN.mp4``; category_id is the kind."""
    videos = _VideoIndex(root)
    for place, item in _items(root / f"{split}_qa.json"):
        question_id, question, answer, number = _fields(item, ("id", "question", "answer", "video_id"), place)
        video = videos.find((f"video{number}",), place)
        yield VideoQuestion(question_id, video, question, answer, str(item.get("category_id", "")))


def _tgif(root: Path, split: str) -> Iterator[VideoQuestion]:
    """``Test_frameqa_question.csv``, which is tab-separated with a header line; the videos are GIF files."""
    path = root / f"{split.capitalize()}_frameqa_question.csv"
    videos = _VideoIndex(root)
    rows = csv.DictReader(io.StringIO(read_text(path)), delimiter="\t")
    for number, row in enumerate(rows, 2):
        place = f"line {number} of {str(path)!r}"
        gif, question, answer = _fields(row, ("gif_name", "question", "answer"), place)
        yield VideoQuestion(str(number - 1), videos.find((gif,), place), question, answer, str(row.get("type") or ""))


def _activitynet(root: Path, split: str) -> Iterator[VideoQuestion]:
    """``test_q.json`` and ``test_a.json``, joined by question_id; the videos are ``v_<name>``."""
    answers_path = root / f"{split}_a.json"
    answers = {}
    for place, item in _items(answers_path):
        question_id, answer = _fields(item, ("question_id", "answer"), place)
        answers[question_id] = (answer, str(item.get("type", "")))
    videos = _VideoIndex(root)
    for place, item in _items(root / f"{split}_q.json"):
        question_id, question, name = _fields(item, ("question_id", "question", "video_name"), place)
        if question_id not in answers:
            raise DataError(f"{place} asks {question_id!r}, which {str(answers_path)!r} does not answer")
        answer, kind = answers[question_id]
        yield VideoQuestion(question_id, videos.find((f"v_{name}", name), place), question, answer, kind)


READERS: dict[str, Callable[[Path, str], Iterator[VideoQuestion]]] = {
    "msvd-qa": _msvd,
    "msrvtt-qa": _msrvtt,
    "tgif-qa": _tgif,
    "activitynet-qa": _activitynet,
}
"""Reader of each data set, by name."""


class _VideoIndex:
    """All videos below a folder by their name without ending; the folder is searched once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_stem = {path.stem: path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES}

    def find(self, stems: tuple[str, ...], place: str) -> Path:
        for stem in stems:
            if stem in self._by_stem:
                return self._by_stem[stem]
        raise DataError(f"{place} asks about video {stems[0]!r}, which is not below {str(self._root)!r}")


def _items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{str(path)!r} is a JSON {type(content).__name__} where a list of questions is needed")
    for number, item in enumerate(content, 1):
        place = f"item {number} of {str(path)!r}"
        if not isinstance(item, dict):
            raise DataError(f"{place} is a JSON {type(item).__name__} where an object {{...}} is needed")
        yield place, item


def _fields(item: dict[str, Any], names: tuple[str, ...], place: str) -> tuple[str, ...]:
    missing = [name for name in names if not isinstance(item.get(name), (str, int)) or item.get(name) == ""]
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)}")
    return tuple(str(item[name]) for name in names)
