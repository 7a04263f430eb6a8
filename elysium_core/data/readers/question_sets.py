"""COCO-QA, GQA and Visual7W: questions about pictures, in the forms in which they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elysium_core.data.readers.annotated_media import AnnotatedMedia, JsonItems, wrong_form, xywh_px
from elysium_core.data.readers.annotation_files import read_json, read_text, text_field
from elysium_core.data.readers.frame_sources import PictureFrames, frame_sizes
from elysium_core.data.readers.refcoco import find_image
from elysium_core.errors import BoxError, DataError
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box

COCO_QA_FORM = "a folder of questions.txt, answers.txt and img_ids.txt with one entry a line, or its parent (COCO-QA)"
GQA_FORM = (
    "a JSON object of question ids, each with imageId, question and answer (GQA's <split>_balanced_questions.json)"
)
VISUAL7W_FORM = "a JSON object with a list 'images' of filename, split and qa_pairs (Visual7W's dataset_v7w_*.json)"
_COCO_FOLDERS = ("train2014", "val2014")


class CocoQa:
    """COCO-QA: three text files of one line a question.

    Args:
        path: The folder of a split, or the folder of ``train`` and ``test``.
        media: COCO's pictures, in ``train2014`` and ``val2014`` or in one folder.
        split: ``train`` or ``test``.

    Raises:
        DataError: The files are missing or differ in length.
    """

    def __init__(self, path: Path, media: Path, split: str) -> None:
        folder = path / split if (path / split).is_dir() else path
        files = [folder / name for name in ("questions.txt", "answers.txt", "img_ids.txt")]
        if not all(file.is_file() for file in files):
            raise wrong_form(path, COCO_QA_FORM)
        columns = [read_text(file).splitlines() for file in files]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(f"{len(column)} in {file.name}" for column, file in zip(columns, files, strict=True))
            raise DataError(f"the files in {str(folder)!r} have different numbers of lines: {lengths}; copy them again")
        self._rows = list(zip(*columns, strict=True))
        self._folder, self._media = folder, media

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._rows)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one question; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        place = f"line {index + 1} of {str(self._folder / 'questions.txt')!r}"
        question, answer, image_id = (text.strip() for text in self._rows[index])
        if not question or not answer or not image_id.isdigit():
            raise DataError(f"{place} has question {question!r}, answer {answer!r}, image {image_id!r}; repair it")
        names = [f"COCO_{folder}_{int(image_id):012d}.jpg" for folder in _COCO_FOLDERS]
        picture = _first_picture(self._media, names, place)
        return AnnotatedMedia(place, picture, ((_as_question(question), answer),))


def _as_question(text: str) -> str:
    """Return a question of COCO-QA, which has blanks before its marks, as a sentence."""
    words = text.replace(" ?", "?").replace(" 's", "'s").replace(" ,", ",")
    return words[:1].upper() + words[1:]


def _first_picture(media: Path, names: list[str], place: str) -> PictureFrames:
    for name in names:
        try:
            found = find_image(media, name)
        except DataError:
            continue
        return PictureFrames(found.parent, [found.name])
    raise DataError(
        f"{place} needs the picture {' or '.join(names)}, which is not in {str(media)!r}; unpack COCO there"
    )


class Gqa:
    """GQA: one JSON object of all questions.

    Args:
        path: The file, or the folder of ``<split>_balanced_questions.json``.
        media: Folder of the pictures, ``<imageId>.jpg``.
        split: ``train``, ``val`` ...

    Raises:
        DataError: The file is missing or has another form.
    """

    def __init__(self, path: Path, media: Path, split: str) -> None:
        file = path / f"{split}_balanced_questions.json" if path.is_dir() else path
        if not file.is_file():
            raise wrong_form(path, GQA_FORM)
        self._items, self._media = JsonItems(file, GQA_FORM), media
        first = self._items[0]
        if not {"imageId", "question", "answer"} <= first.keys():
            raise wrong_form(file, GQA_FORM)

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._items)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one question; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        place, item = self._items.place(index), self._items[index]
        picture = _picture(self._media, f"{text_field(item, 'imageId', place)}.jpg", place)
        return AnnotatedMedia(
            place, picture, ((text_field(item, "question", place), text_field(item, "answer", place)),)
        )


class Visual7w:
    """Visual7W: *telling* questions, answered in words, and *pointing* questions, answered by a box.

    Args:
        path: ``dataset_v7w_telling.json`` or ``dataset_v7w_pointing.json``.
        media: Folder of the pictures.
        split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: The file is missing or has another form.
    """

    def __init__(self, path: Path, media: Path, split: str) -> None:
        content = read_json(path)
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list) or not images or not all(_is_visual7w_image(image) for image in images):
            raise wrong_form(path, VISUAL7W_FORM)
        self._path, self._media = path, media
        self._boxes = {box["box_id"]: box for box in content.get("boxes", ()) if isinstance(box, dict)}
        self._pairs = [
            (image["filename"], pair) for image in images if image["split"] == split for pair in image["qa_pairs"]
        ]

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._pairs)

    def __getitem__(self, index: int) -> AnnotatedMedia:
        """Read one question; see :class:`~elysium_core.data.readers.annotated_media.MediaSet`."""
        name, pair = self._pairs[index]
        place = f"question {pair.get('qa_id')} of {str(self._path)!r}"
        picture = _picture(self._media, name, place)
        question, answer = text_field(pair, "question", place), pair.get("answer")
        if self._boxes:
            answer = format_box(self._pointed(answer, picture, place))
        return AnnotatedMedia(
            place, picture, ((question, str(answer) if self._boxes else text_field(pair, "answer", place)),)
        )

    def _pointed(self, answer: Any, picture: PictureFrames, place: str) -> Box:
        """Return the box that answers a pointing question."""
        box = self._boxes.get(answer)
        if box is None:
            raise DataError(f"{place} is answered by box {answer!r}, which is not in 'boxes'; copy the file again")
        width, height = (int(side) for side in frame_sizes(picture)[0])
        try:
            return Box.from_xywh_px(*xywh_px(box), width, height)
        except (KeyError, TypeError, ValueError, BoxError) as error:
            raise DataError(f"{place} has the box {box!r:.80} ({error}); it needs x, y, width, height in px") from error


def _is_visual7w_image(image: Any) -> bool:
    return (
        isinstance(image, dict)
        and isinstance(image.get("filename"), str)
        and isinstance(image.get("qa_pairs"), list)
        and "split" in image
        and all(isinstance(pair, dict) for pair in image["qa_pairs"])
    )


def _picture(media: Path, name: str, place: str) -> PictureFrames:
    if not (media / name).is_file():
        raise DataError(f"{place} names the image {str(media / name)!r}, which is missing")
    return PictureFrames(media, [name])
