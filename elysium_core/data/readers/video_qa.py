"""Questions about videos: MSVD-QA, MSRVTT-QA, TGIF-QA (FrameQA) and ActivityNet-QA."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from elysium_core.data.readers.annotation_files import Skip, read_json, read_text, text_field, usable
from elysium_core.data.readers.frame_sources import VIDEO_SUFFIXES
from elysium_core.errors import ConfigError, DataError

Made = TypeVar("Made")


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


def read_video_qa(root: Path, name: str, split: str = "test", skip: Skip | None = None) -> Iterator[VideoQuestion]:
    """Yield the questions of one data set.

    Args:
        root: The folder of the question files; videos may be anywhere below it.
        name: ``msvd-qa``, ``msrvtt-qa``, ``tgif-qa`` or ``activitynet-qa``.
        split: ``test``, ``val`` or ``train``.
        skip: See :func:`~elysium_core.data.readers.annotation_files.usable`.

    Raises:
        ConfigError: There is no such data set.
        DataError: A file, a field or a video is missing.
    """
    if name not in READERS:
        raise ConfigError(f"{name!r} is not one of {', '.join(READERS)}")
    return READERS[name](root, split, skip)


def _msvd(root: Path, split: str, skip: Skip | None) -> Iterator[VideoQuestion]:
    """``test_qa.json`` with video_id N = ``vidN``; a mapping file gives the name of the video file."""
    own_names = _msvd_mapping(root)
    videos = _VideoIndex(root)

    def make(place: str, item: dict[str, Any]) -> VideoQuestion:
        question_id, question, answer, number = _fields(item, ("id", "question", "answer", "video_id"), place)
        name = f"vid{number}"
        return VideoQuestion(question_id, videos.find((name, own_names.get(name, name)), place), question, answer)

    yield from usable(_items(root / f"{split}_qa.json"), _checked(make), skip)


def _msvd_mapping(root: Path) -> dict[str, str]:
    for name in ("youtube_mapping.txt", "mapping.txt"):
        for path in (root / name, *sorted(root.glob(f"*/{name}"))):
            if path.is_file():
                pairs = (line.split() for line in read_text(path).splitlines() if line.strip())
                return {words[1]: words[0] for words in pairs if len(words) == 2}
    return {}


def _msrvtt(root: Path, split: str, skip: Skip | None) -> Iterator[VideoQuestion]:
    """``test_qa.json`` with video_id N = ``videoN.mp4``; category_id is the kind."""
    videos = _VideoIndex(root)

    def make(place: str, item: dict[str, Any]) -> VideoQuestion:
        question_id, question, answer, number = _fields(item, ("id", "question", "answer", "video_id"), place)
        video = videos.find((f"video{number}",), place)
        return VideoQuestion(question_id, video, question, answer, _kind(item, "category_id"))

    yield from usable(_items(root / f"{split}_qa.json"), _checked(make), skip)


def _tgif(root: Path, split: str, skip: Skip | None) -> Iterator[VideoQuestion]:
    """``Test_frameqa_question.csv``, which is tab-separated with a header line; the videos are GIF files."""
    path = root / f"{split.capitalize()}_frameqa_question.csv"
    videos = _VideoIndex(root)
    rows = csv.DictReader(io.StringIO(read_text(path)), delimiter="\t")

    def make(numbered: tuple[int, dict[str, Any]]) -> VideoQuestion:
        number, row = numbered
        place = f"line {number} of {str(path)!r}"
        gif, question, answer = _fields(row, ("gif_name", "question", "answer"), place)
        return VideoQuestion(str(number - 1), videos.find((gif,), place), question, answer, _kind(row, "type"))

    yield from usable(enumerate(rows, 2), make, skip)


def _activitynet(root: Path, split: str, skip: Skip | None) -> Iterator[VideoQuestion]:
    """``test_q.json`` and ``test_a.json``, joined by question_id; the videos are ``v_<name>``."""
    answers_path = root / f"{split}_a.json"

    def make_answer(place: str, item: dict[str, Any]) -> tuple[str, tuple[str, str]]:
        question_id, answer = _fields(item, ("question_id", "answer"), place)
        return question_id, (answer, _kind(item, "type"))

    answers = dict(usable(_items(answers_path), _checked(make_answer), skip))
    videos = _VideoIndex(root)

    def make(place: str, item: dict[str, Any]) -> VideoQuestion:
        question_id, question, name = _fields(item, ("question_id", "question", "video_name"), place)
        if question_id not in answers:
            raise DataError(f"{place} asks {question_id!r}, which {str(answers_path)!r} does not answer")
        answer, kind = answers[question_id]
        return VideoQuestion(question_id, videos.find((f"v_{name}", name), place), question, answer, kind)

    yield from usable(_items(root / f"{split}_q.json"), _checked(make), skip)


READERS: dict[str, Callable[[Path, str, Skip | None], Iterator[VideoQuestion]]] = {
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


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and content of each item of a JSON list."""
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{str(path)!r} is a JSON {type(content).__name__} where a list of questions is needed")
    for number, item in enumerate(content, 1):
        yield f"item {number} of {str(path)!r}", item


def _checked(make: Callable[[str, dict[str, Any]], Made]) -> Callable[[tuple[str, Any]], Made]:
    """Return a function that makes something of one of :func:`_items`, if that is an object."""

    def checked(placed: tuple[str, Any]) -> Made:
        place, item = placed
        if not isinstance(item, dict):
            raise DataError(f"{place} is a JSON {type(item).__name__} where an object {{...}} is needed")
        return make(place, item)

    return checked


def _kind(item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _fields(item: dict[str, Any], names: tuple[str, ...], place: str) -> tuple[str, ...]:
    return tuple(text_field(item, name, place) for name in names)
