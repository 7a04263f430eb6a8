"""A split for evaluation out of curated tracks: the words must name one object only, by the detector and by a person.

The detector's part is in the lines already: ``rivals`` counts its other boxes for the same words. The person's part is
a page with keys, whose decisions are saved as a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.curation.curated_frames import sample_picture
from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.curation_rules import place_positions
from elysium_core.curation.review_page import ReviewCard, review_page
from elysium_core.errors import DataError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.files import atomic_path
from elysium_core.io.image import read_image

VAL_VIDEOS = 500
"""Videos of the paper's evaluation split."""

PAGE_NAME = "review.html"
_CANDIDATES_PER_VIDEO = 1.5
_UNIQUE, _NOT_UNIQUE = "unique", "not unique"
DECISIONS = (_UNIQUE, _NOT_UNIQUE)
"""What a person can decide about a track."""


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """What was written.

    Attributes:
        val: The lines for evaluation.
        train: The lines of all other videos.
        val_lines: Number of the first.
        train_lines: Number of the second.
    """

    val: Path
    train: Path
    val_lines: int
    train_lines: int


def is_unique(line: Mapping[str, Any]) -> bool:
    """Whether the detector has found nothing else that fits the words of a track in any of the three frames."""
    rivals = line.get("metadata", {}).get("rivals")
    return isinstance(rivals, list) and bool(rivals) and not any(rivals)


def candidates(videos: Iterable[tuple[str, list[dict[str, Any]]]], count: int) -> list[dict[str, Any]]:
    """Return up to ``count`` lines of unique tracks, at most one a video, chosen by the hash of their ids.

    Later videos change the choice as little as possible. Only the chosen lines are held in memory.

    Args:
        videos: Ids of videos with their lines.
        count: Most lines, >= 1.
    """
    chosen: list[tuple[str, dict[str, Any]]] = []
    for _, lines in videos:
        ranked = sorted((_rank(line), line["id"], line) for line in lines if is_unique(line))
        if ranked:
            chosen.append((ranked[0][0], ranked[0][2]))
        if len(chosen) >= 2 * count:
            chosen = sorted(chosen, key=lambda pair: pair[0])[:count]
    return [line for _, line in sorted(chosen, key=lambda pair: pair[0])[:count]]


def write_review_page(ledger: CurationLedger, out: Path, count: int = VAL_VIDEOS) -> tuple[Path, int]:
    """Write a page on which a person decides about half as many tracks again as are needed.

    Returns:
        The page, and the number of tracks on it.

    Raises:
        DataError: There is no unique track.
        ImageError: A frame is missing.
    """
    lines = candidates(ledger.lines(), round(count * _CANDIDATES_PER_VIDEO))
    if not lines:
        raise DataError(f"{str(out)!r} has no track whose words name one object only; curate more videos")
    with atomic_path(out / PAGE_NAME) as temporary:
        temporary.write_text(review_page(_card(line, out) for line in lines), encoding="utf-8")
    return out / PAGE_NAME, len(lines)


def read_decisions(path: Path) -> dict[str, str]:
    """Return the decision for each id, as the page saves them.

    Raises:
        DataError: The file is missing or of another kind.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(value in DECISIONS for value in found.values()):
        raise DataError(f"{str(path)!r} holds no decisions; use the button of {PAGE_NAME} to save them")
    return found


def write_split(ledger: CurationLedger, out: Path, decisions: Mapping[str, str], count: int = VAL_VIDEOS) -> SplitFiles:
    """Write ``ElysiumTrack-val.json`` and ``ElysiumTrack-train.json``; no video is in both.

    Raises:
        DataError: A person has found fewer unique tracks than are needed.
    """
    offered = candidates(ledger.lines(), round(count * _CANDIDATES_PER_VIDEO))
    chosen = [line for line in offered if decisions.get(line["id"]) == _UNIQUE][:count]
    if len(chosen) < count:
        raise DataError(
            f"{len(chosen)} tracks are decided to be unique, and {count} are needed; decide more, or --count"
        )
    held_out = {line["vid"] for line in chosen}
    rest = (line for vid, lines in ledger.lines() if vid not in held_out for line in lines)
    val, train = (out / f"ElysiumTrack-{name}.json" for name in ("val", "train"))
    return SplitFiles(val, train, _write(val, iter(chosen)), _write(train, rest))


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


def _card(line: Mapping[str, Any], out: Path) -> ReviewCard:
    positions = place_positions(len(line["frames"]))
    frames = [Frame(read_image(out / line["frames"][position])) for position in positions]
    boxes = [Box(*line["box"][position]) for position in positions]
    return ReviewCard(str(line["id"]), str(line["object_description"]), sample_picture(frames, boxes, height_px=240))


def _rank(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(str(line["id"]).encode()).hexdigest()
