"""CogVLM-SFT-311K (pictures) and VideoChat-11K (video): conversations, in the forms in which they are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from elysium_core.data.readers.annotated_media import AnnotatedMedia, JsonItems, wrong_form
from elysium_core.data.readers.annotation_files import read_json, text_field
from elysium_core.data.readers.frame_sources import VIDEO_SUFFIXES, PictureFrames, VideoFrames
from elysium_core.errors import DataError

COGVLM_FORM = "folders of images/ and labels_<language>/ with one JSON file a picture (CogVLM-SFT-311K)"
VIDEOCHAT_FORM = (
    "a JSON list of objects with 'video' and a list 'QA' of q and a (VideoChat's videochat_instruct_11k.json)"
)
# CogVLM's descriptions have no question of their own.
_DESCRIBE = (
    "Describe the image.",
    "What does the image show?",
    "Tell me in detail what can be seen here.",
    "Give a full description of the picture.",
)
_SLOT = re.compile("<image>|<video>")


class CogVlm:
    """CogVLM-SFT-311K: one JSON file a picture, with ``captions`` or ``conversations`` of ``role`` and ``content``.

    Args:
        path: The data set, or one of its three folders.
        language: ``en`` or ``zh``; label folders without a language are read as well.

    Raises:
        DataError: There is no such label file.
    """

    def __init__(self, path: Path, language: str) -> None:
        folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())] if path.is_dir() else []
        labels = [folder / f"labels_{language}" for folder in folders] + [folder / "labels" for folder in folders]
        self._files = [file for folder in labels if folder.is_dir() for file in sorted(folder.glob("*.json"))]
        if not self._files:
            raise wrong_form(path, COGVLM_FORM)

    def __len__(self) -> int:
        """Number of label files."""
        return len(self._files)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one label file; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        file = self._files[index]
        place, content = str(file), read_json(file)
        images = file.parent.parent / "images"
        name = next(
            (f"{file.stem}{end}" for end in (".jpg", ".png", ".jpeg") if (images / f"{file.stem}{end}").is_file()), ""
        )
        if not name:
            raise DataError(f"{place!r} belongs to {str(images / file.stem)!r}.jpg, which is missing")
        return AnnotatedMedia(place, PictureFrames(images, [name]), _rounds(content, place, index))


def _rounds(content: Any, place: str, index: int) -> tuple[tuple[str, str], ...]:
    said = {key: content[key] for key in ("conversations", "captions") if isinstance(content, dict) and key in content}
    turns = next(iter(said.values()), None)
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{place!r} lacks a list 'conversations' or 'captions'; expected {COGVLM_FORM}")
    texts = [_SLOT.sub("", text_field(turn, "content", place)).strip() for turn in turns]
    if "conversations" not in said:
        return ((_DESCRIBE[index % len(_DESCRIBE)], texts[0]),)
    if [turn.get("role") for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise DataError(f"{place!r} needs 'conversations' in which user and assistant take turns")
    return tuple(zip(texts[0::2], texts[1::2], strict=True))


class VideoChat:
    """VideoChat-11K: one JSON list of conversations about videos of WebVid.

    Args:
        path: The file.
        media: Folder of the videos, in WebVid's subfolders or without them.

    Raises:
        DataError: The file is missing or has another form.
    """

    def __init__(self, path: Path, media: Path) -> None:
        self._items, self._media = JsonItems(path, VIDEOCHAT_FORM), media
        if not {"video", "QA"} <= self._items[0].keys():
            raise wrong_form(path, VIDEOCHAT_FORM)

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self._items)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one conversation; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        place, item = self._items.place(index), self._items[index]
        pairs = item.get("QA")
        if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
            raise DataError(f"{place} has {pairs!r:.60} where a list 'QA' of q and a is needed")
        rounds = tuple((text_field(pair, "q", place), text_field(pair, "a", place)) for pair in pairs)
        return AnnotatedMedia(place, VideoFrames(self._video(text_field(item, "video", place), place)), rounds)

    def _video(self, name: str, place: str) -> Path:
        for path in (self._media / name, self._media / Path(name).name):
            if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
                return path
        raise DataError(f"{place} names the video {str(self._media / name)!r}, which is missing or not a video")
