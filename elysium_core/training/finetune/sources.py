"""Readers of data sets in all layouts; each gives random access to its samples.

An error in an item is raised when the item is drawn.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.readers.annotated_media import AnnotatedMedia, MediaSet
from elysium_core.data.readers.annotation_files import text_field
from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS
from elysium_core.data.readers.elysiumtrack import frames_of_line, recording_of_line
from elysium_core.data.readers.frame_sources import (
    VIDEO_SUFFIXES,
    FrameSource,
    PictureFrames,
    VideoFrames,
    frame_sizes,
)
from elysium_core.data.readers.grit import open_grit
from elysium_core.data.readers.instruction_sets import CogVlm, VideoChat
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.data.readers.question_sets import CocoQa, Gqa, Visual7w
from elysium_core.data.readers.refcoco import SPLITS, GroundingSample, find_image, read_refcoco, sample_of_line
from elysium_core.data.readers.region_sets import Flickr30kEntities, VisualGenome
from elysium_core.data.readers.video_qa import READERS as VIDEO_QA
from elysium_core.data.readers.video_qa import read_video_qa
from elysium_core.errors import BoxError, DataError
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box
from elysium_core.training.finetune.finetune_recipe import SourceConfig
from elysium_core.training.finetune.line_file import LineFile
from elysium_core.training.finetune.samples import LabelledObject, Sample

_LOG = logging.getLogger(__name__)
_IMAGE_SLOT = re.compile("<image>|<video>")
_BOX_SLOT = "<box>"
# Names that data sets in LLaVA's layout give to the two sides, to text and speaker, and to the list of turns.
_ROLES = {
    **dict.fromkeys(("human", "user"), "question"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot"), "answer"),
    "system": "system",
}
_LISTS = ("conversations", "conversation", "messages")


class SampleSource(Protocol):
    """A data set."""

    def __len__(self) -> int:
        """Number of items, including unusable ones."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Read one item.

        Raises:
            DataError: It cannot be used; the message names file and line.
        """
        ...


class LineSource:
    """A data set of JSON lines.

    Args:
        config: Its settings.
        path: The file.
        parse: Makes a sample of an item; may raise KeyError, TypeError or ValueError for a bad one.
    """

    def __init__(self, config: SourceConfig, path: Path, parse: Callable[[dict[str, Any], Path, str], Sample]) -> None:
        self._lines = LineFile(path)
        self._media = Path(config.media) if config.media else path.parent
        self._parse = parse

    def __len__(self) -> int:
        """Number of lines."""
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        """Read one line; see :class:`SampleSource`."""
        place = self._lines.place(index)
        item = self._lines[index]
        try:
            return self._parse(item, self._media, place)
        except DataError as error:
            raise DataError(str(error) if place in str(error) else f"{place}: {error}") from error
        except (KeyError, TypeError, ValueError, BoxError) as error:
            raise DataError(f"{place} lacks or misspells a field ({error!r})") from error


class ListSource:
    """A data set of items that another reader gives, by number.

    Args:
        items: Its items.
        convert: Makes a sample of one.
    """

    def __init__(self, items: Sequence[Any] | MediaSet, convert: Callable[[Any], Sample]) -> None:
        self._items, self._convert = items, convert

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Read one item; see :class:`SampleSource`."""
        return self._convert(self._items[index])


def parse_conversation(item: dict[str, Any], media: Path, place: str) -> Sample:
    """Parse LLaVA's layout: ``image``, ``video`` or ``frames``, and ``conversations`` of ``from`` and ``value``.

    ``messages`` of ``role`` and ``content`` are read, too. A system text at the start is left out.
    """
    listed = next((item[name] for name in _LISTS if name in item), None)
    if not isinstance(listed, list):
        raise DataError(f"{place} has {listed!r:.60} where a list 'conversations' is needed")
    turns = [_turn(turn, place) for turn in listed]
    turns = turns[1:] if turns and turns[0][0] == "system" else turns
    turns = turns[1:] if turns and turns[0][0] == "answer" else turns
    questions, answers = turns[0::2], turns[1::2]
    if not answers or any(q[0] != "question" for q in questions) or any(a[0] != "answer" for a in answers):
        raise DataError(f"{place} needs 'conversations' in which human and gpt take turns")
    rounds = tuple((question, answer) for (_, question), (_, answer) in zip(questions, answers, strict=False))
    return Sample(place, _media(item, media, place), rounds)


def _turn(turn: Any, place: str) -> tuple[str, str]:
    """Return the side, ``question``, ``answer`` or ``system``, and the words of one turn."""
    if not isinstance(turn, dict):
        raise DataError(f"{place} has {turn!r:.60} where an object of 'from' and 'value' is needed")
    role = turn.get("from", turn.get("role"))
    side = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if side is None:
        raise DataError(f"{place} misspells the side of a turn: {role!r:.60} is neither human nor gpt")
    words = text_field(turn, "value" if "value" in turn else "content", place)
    return side, _IMAGE_SLOT.sub("", words).strip()


def parse_grounding(item: dict[str, Any], media: Path, place: str) -> Sample:
    """Parse an item with ``image``, and ``objects`` of ``expression`` and ``box`` (x1, y1, x2, y2 in 0..1)."""
    objects = tuple(LabelledObject(_expression(entry, place), Box(*entry["box"])) for entry in item["objects"])
    if not objects:
        raise DataError(f"{place} names no objects")
    return Sample(place, _picture(media, text_field(item, "image", place), place), objects=objects)


def _expression(entry: Any, place: str) -> str:
    if not isinstance(entry, dict):
        raise DataError(f"{place} has {entry!r:.60} where an object of 'expression' and 'box' is needed")
    return " ".join(text_field(entry, "expression", place).split())


def _media(item: dict[str, Any], media: Path, place: str) -> FrameSource | None:
    # A key without a value is one that is not there: "image": null stands in lines of text alone.
    item = {name: value for name, value in item.items() if value not in (None, "", [])}
    if "frames" in item:
        names = item["frames"] if isinstance(item["frames"], list) else []
        if not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{place} has {item['frames']!r:.60} where a list of file names 'frames' is needed")
        return PictureFrames(media, names)
    if "video" in item:
        path = media / text_field(_single(item, "video"), "video", place)
        if not path.is_file() or path.suffix.lower() not in VIDEO_SUFFIXES:
            raise DataError(f"{place} names the video {str(path)!r}, which is missing or not a video")
        return VideoFrames(path)
    if "image" not in item:
        return None
    return _picture(media, text_field(_single(item, "image"), "image", place), place)


def _single(item: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an item whose list of one name is that name, as some data sets write it."""
    value = item[name]
    return {**item, name: value[0]} if isinstance(value, list) and len(value) == 1 else item


def _picture(media: Path, name: str, place: str) -> PictureFrames:
    if not (media / name).is_file():
        raise DataError(f"{place} names the image {str(media / name)!r}, which is missing")
    return PictureFrames(media, [name])


def sample_of_recording(recording: LabelledRecording) -> Sample:
    """Return a labelled recording as a sample that follows its target.

    Raises:
        DataError: The size of its images is unknown, or only the first box is known.
    """
    place = f"{recording.name} of {str(recording.truth_file)!r}"
    if recording.first_box_only:
        raise DataError(f"{place} has only its first box; choose a training split")
    if recording.frame_size is None:
        # Pictures may change their size inside a recording; boxes are in pixels of their own picture.
        sizes = frame_sizes(recording.frames)
        recording.require_px(*(int(side) for side in sizes.max(axis=0)))
        sizes = np.broadcast_to(sizes, (recording.frame_count, 2))
    else:
        sizes = np.broadcast_to(recording.frame_size, (recording.frame_count, 2))
    rows = zip(recording.boxes_xywh_px, sizes, strict=True)
    track = tuple(_box_or_none(row, (int(size[0]), int(size[1]))) for row, size in rows)
    return Sample(place, recording.frames, track=track, expression=recording.expression)


def _box_or_none(row: NDArray[np.float64], size: tuple[int, int]) -> Box | None:
    if not np.isfinite(row).all():
        return None
    x, y, w, h = row.tolist()
    try:
        return Box.from_xywh_px(x, y, w, h, *size)
    except BoxError:  # fully outside the image, or without area: not visible
        return None


def _refcoco(config: SourceConfig) -> SampleSource:
    root, split = Path(config.path), config.split or "train"
    media = Path(config.media) if config.media else root

    def convert(sample: GroundingSample) -> Sample:
        place = f"{config.reader} {sample.sample_id} in {str(root)!r}"
        path = find_image(media, sample.image)
        try:
            box = Box.from_px(*sample.box_xyxy_px, sample.width, sample.height, clip=True)
        except BoxError as error:
            raise DataError(f"{place}: {error}") from error
        pictures = PictureFrames(path.parent, [path.name], (sample.width, sample.height))
        return Sample(place, pictures, objects=(LabelledObject(sample.expression, box),))

    lines = root / f"{config.reader}.jsonl"
    if not lines.is_file():
        return ListSource(list(read_refcoco(root, config.reader, split, _warn)), convert)
    file = LineFile(lines)
    # Bad lines stay in the list: their errors are raised when they are drawn.
    wanted = [index for index in range(len(file)) if _split_of(file, index) in (split, None)]
    return ListSource(wanted, lambda index: convert(sample_of_line(file[index], index + 1, file.place(index))))


def _split_of(file: LineFile, index: int) -> str | None:
    try:
        return str(file[index]["split"])
    except (DataError, KeyError):
        return None


def _elysiumtrack(config: SourceConfig) -> SampleSource:
    path = Path(config.path) / f"ElysiumTrack-{config.split or '1M'}.json"

    def parse(item: dict[str, Any], media: Path, place: str) -> Sample:
        rounds = _own_questions(item, place)
        if rounds and not item.get("box"):
            return Sample(place, frames_of_line(media, item, place), rounds, at_intervals=True)
        recording = recording_of_line(media, path, item, str(item.get("id", place)), place)
        return replace(sample_of_recording(recording), rounds=rounds)

    return LineSource(config.model_copy(update={"media": config.media or config.path}), path, parse)


def _own_questions(item: dict[str, Any], place: str) -> tuple[tuple[str, str], ...]:
    """Return the questions in ``vqa`` of a line of ElysiumTrack, with the boxes that each text has slots for."""
    turns = item.get("vqa")
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except ValueError as error:
            raise DataError(f"{place} has 'vqa' that is not valid JSON ({error})") from error
    if not turns:
        return ()
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{place} has {turns!r:.60} where a list 'vqa' of from, value and box is needed")
    filled = [{**turn, "value": _with_boxes(turn, place)} for turn in turns]
    return parse_conversation({"conversations": filled}, Path(), place).rounds


def _with_boxes(turn: dict[str, Any], place: str) -> str:
    words, boxes = text_field(turn, "value", place), turn.get("box") or []
    if words.count(_BOX_SLOT) != len(boxes):
        raise DataError(
            f"{place} has {words.count(_BOX_SLOT)} slots {_BOX_SLOT} in a text of 'vqa', but {len(boxes)} boxes"
        )
    parts = words.split(_BOX_SLOT)
    texts = [format_box(Box(*box)) for box in boxes]
    return "".join(part + text for part, text in zip(parts, [*texts, ""], strict=True))


def _tracking(config: SourceConfig) -> SampleSource:
    benchmark = TRACKING_BENCHMARKS[config.reader]
    recordings = list(benchmark.read(Path(config.path), config.split or benchmark.default_split, _warn))
    return ListSource(recordings, sample_of_recording)


def _warn(error: DataError) -> None:
    _LOG.warning("left out: %s", error)


def _video_qa(config: SourceConfig) -> SampleSource:
    questions = list(read_video_qa(Path(config.path), config.reader, config.split or "train", _warn))
    return ListSource(
        questions,
        lambda item: Sample(
            f"question {item.question_id} of {config.reader}", VideoFrames(item.video), ((item.question, item.answer),)
        ),
    )


def _published(
    open_set: Callable[[SourceConfig, Path, Path], MediaSet], *, at_intervals: bool = False
) -> Callable[[SourceConfig], SampleSource]:
    """Return the opener of a published set, given its settings, its path and the folder of its pictures."""

    def convert(item: AnnotatedMedia) -> Sample:
        objects = tuple(LabelledObject(words, box) for words, box in item.objects)
        return Sample(item.place, item.frames, item.rounds, objects, at_intervals=at_intervals)

    def opened(config: SourceConfig) -> SampleSource:
        path = Path(config.path)
        beside = path if path.is_dir() else path.parent
        return ListSource(open_set(config, path, Path(config.media) if config.media else beside), convert)

    return opened


READERS: dict[str, Callable[[SourceConfig], SampleSource]] = {
    "conversation": lambda config: LineSource(config, Path(config.path), parse_conversation),
    "grounding": lambda config: LineSource(config, Path(config.path), parse_grounding),
    "grit": _published(lambda _config, path, media: open_grit(path, media)),
    "cogvlm-sft": _published(lambda config, path, _media: CogVlm(path, config.split or "en")),
    "coco-qa": _published(lambda config, path, media: CocoQa(path, media, config.split or "train")),
    "gqa": _published(lambda config, path, media: Gqa(path, media, config.split or "train")),
    "visual7w": _published(lambda config, path, media: Visual7w(path, media, config.split or "train")),
    "flickr30k-entities": _published(
        lambda config, path, media: Flickr30kEntities(path, media, config.split or "train")
    ),
    "visual-genome": _published(lambda _config, path, media: VisualGenome(path, media)),
    # The paper draws frames of training videos with a random distance (section 4.2).
    "videochat": _published(lambda _config, path, media: VideoChat(path, media), at_intervals=True),
    **dict.fromkeys(SPLITS, _refcoco),
    **dict.fromkeys(TRACKING_BENCHMARKS, _tracking),
    "elysiumtrack": _elysiumtrack,
    **dict.fromkeys(VIDEO_QA, _video_qa),
}
"""Layouts by name; docs/training.md describes them."""


def open_source(config: SourceConfig) -> SampleSource:
    """Open a data set.

    Raises:
        DataError: Its annotations cannot be read or are empty.
    """
    source = READERS[config.reader](config)
    if len(source) == 0:
        raise DataError(f"{config.path!r} has no items for reader {config.reader!r}, split {config.split!r}")
    return source
