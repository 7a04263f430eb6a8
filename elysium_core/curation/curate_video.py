"""One captioned video through all gates: chunks, boxes, trajectories, kept tracks (paper, section 3.2)."""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysium_core.curation.captioned_videos import CaptionedVideo
from elysium_core.curation.chunk_detectors import ChunkDetector
from elysium_core.curation.curated_frames import FRAME_FOLDER, FrameFolder, sample_picture
from elysium_core.curation.curation_rules import (
    NOT_FOUND,
    PLACES,
    CurationRules,
    Detection,
    Trajectory,
    count_rivals,
    place_positions,
    rejection,
    surest,
)
from elysium_core.curation.curation_tools import Tools
from elysium_core.curation.noun_chunks import Chunk, ChunkParser, distinct, is_english, why_not
from elysium_core.curation.video_result import (
    BAD_LINE,
    BAD_VIDEO,
    FAILED,
    KEPT,
    LANGUAGE,
    NO_CAPTION,
    NO_CHUNK,
    TOO_LONG,
    SamplePicture,
    VideoResult,
)
from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.sampling import sample_stored
from elysium_core.io.video import open_video

_LONGEST_ERROR = 200


@dataclass(slots=True)
class FoundChunk:
    """A chunk on its way through the places.

    Attributes:
        chunk: The words.
        detections: The surest one of each place so far.
        rivals: Number of other objects that the detector offers there.
    """

    chunk: Chunk
    detections: list[Detection] = field(default_factory=list)
    rivals: list[int] = field(default_factory=list)


def curate_safely(video: CaptionedVideo, tools: Tools, rules: CurationRules, out: Path) -> VideoResult:
    """Curate one video; whatever goes wrong with it becomes its outcome and stops nothing else.

    Raises:
        OSError: The output folder cannot be written: every further video would fail as well.
    """
    if video.problem:
        return VideoResult(video.vid, BAD_LINE, video.problem)
    result = VideoResult(video.vid)
    try:
        _curate(video, tools, rules, out, result)
    except VideoError as error:
        result.outcome, result.detail = BAD_VIDEO, _one_line(error)
    except OSError as error:
        if _is_of_output(error, out):
            raise
        result.outcome, result.detail = BAD_VIDEO, _one_line(error)
    except Exception as error:  # noqa: BLE001 - a detector or tracker may raise anything; the run goes on
        result.outcome, result.detail = FAILED, f"{type(error).__name__}: {_one_line(error)}"
    if result.outcome in (BAD_VIDEO, FAILED):
        # What was decided before the error is void.
        result.lines.clear()
        result.counts.clear()
        result.lowest_scores.clear()
        result.samples.clear()
    if result.outcome != KEPT:
        shutil.rmtree(FrameFolder(out, video.vid).final, ignore_errors=True)
    return result


def _curate(video: CaptionedVideo, tools: Tools, rules: CurationRules, out: Path, result: VideoResult) -> None:
    with _timed(result, "parse"):
        chunks = _chunks(video, tools.parser, result)
    if not chunks:
        return
    with open_video(video.path) as recording:
        used = EveryNth(recording, rules.every)
        if used.claimed and used.claimed > rules.most_frames:
            result.outcome, result.detail = TOO_LONG, f"{used.claimed} frames"
            return
        with _timed(result, "detect"):
            shown = sample_stored(used, recording.name, len(PLACES), used.claimed)
            if len(shown) < len(PLACES):
                raise VideoError(f"{recording.name!r} has {len(shown)} frames; at least {len(PLACES)} are needed")
            found = _find(chunks, shown, tools.detector, rules, result)
        if not found:
            return
        with FrameFolder(out, video.vid) as folder:
            with _timed(result, "track"):
                boxes = [entry.detections[0].box for entry in found]
                tracks = tools.tracker.follow(_at_most(folder.keep(used), rules.most_frames), boxes)
            result.frames = len(folder.names)
            _judge(video, found, tracks, shown, rules, folder, result)
            if result.lines:
                with _timed(result, "write"):
                    folder.publish()
                result.outcome = KEPT


def _chunks(video: CaptionedVideo, parser: ChunkParser, result: VideoResult) -> list[Chunk]:
    """Return the chunks that may name an object; without any, the result says why."""
    if not video.caption:
        result.outcome = NO_CAPTION
        return []
    if not is_english(video.caption):
        result.outcome = LANGUAGE
        return []
    usable = []
    for chunk in distinct(parser.chunks(video.caption)):
        reason = why_not(chunk)
        if reason is None:
            usable.append(chunk)
        else:
            result.counts[reason] += 1
    if not usable:
        result.outcome = NO_CHUNK
    return usable


def _find(
    chunks: Sequence[Chunk],
    shown: Sequence[Frame],
    detector: ChunkDetector,
    rules: CurationRules,
    result: VideoResult,
) -> list[FoundChunk]:
    """Return the chunks that were found in all places, each with its detections there."""
    found = [FoundChunk(chunk) for chunk in chunks]
    for place, frame in zip(PLACES, shown, strict=True):
        if not found:
            break
        answers = detector.find(frame.image, [entry.chunk.expression for entry in found])
        left = []
        for entry, answer in zip(found, answers, strict=True):
            best = surest(answer, rules.detection_score)
            if best is None:
                boxes = [detection.box for detection in entry.detections]
                _reject(NOT_FOUND[place], entry.chunk, shown, boxes, result)
                continue
            entry.detections.append(best)
            entry.rivals.append(count_rivals(answer, best))
            left.append(entry)
        found = left
    return found


def _judge(
    video: CaptionedVideo,
    found: Sequence[FoundChunk],
    tracks: Sequence[Trajectory],
    shown: Sequence[Frame],
    rules: CurationRules,
    folder: FrameFolder,
    result: VideoResult,
) -> None:
    """Put each trajectory through the gates; the kept ones become lines."""
    width, height = shown[0].width, shown[0].height
    for entry, track in zip(found, tracks, strict=True):
        if len(track.boxes) != len(folder.names):
            raise VideoError(f"the tracker gave {len(track.boxes)} boxes for {len(folder.names)} frames")
        result.lowest_scores[f"{math.floor(10 * min(track.scores)) / 10:.1f}"] += 1
        reason = rejection(track, entry.detections, rules, width / height)
        boxes = [track.boxes[position] for position in place_positions(len(track.boxes))]
        if reason is not None:
            _reject(reason, entry.chunk, shown, boxes, result)
            continue
        result.counts[KEPT] += 1
        result.samples.append(SamplePicture(KEPT, entry.chunk.expression, sample_picture(shown, boxes)))
        result.lines.append(_line(video, entry, track, folder.names, (width, height), len(result.lines)))


def _line(
    video: CaptionedVideo,
    entry: FoundChunk,
    track: Trajectory,
    frames: list[str],
    size: tuple[int, int],
    number: int,
) -> dict[str, Any]:
    """Return a kept track in the layout of ElysiumTrack."""
    boxes = [box for box in track.boxes if box is not None]
    places = [boxes[position] for position in place_positions(len(boxes))]
    overlaps = [box.iou(hit.box) for box, hit in zip(places, entry.detections, strict=True)]
    return {
        "source": "elysium-curate",
        "id": f"{video.vid}-{number}",
        "vid": video.vid,
        "metadata": {
            "caption": video.caption,
            "detection_scores": [round(hit.score, 4) for hit in entry.detections],
            "rivals": entry.rivals,
            "lowest_track_score": round(min(track.scores), 4),
            "iou": [round(overlap, 4) for overlap in overlaps[1:]],
        },
        "frames": frames,
        "object_class": entry.chunk.noun,
        "box": [[round(value, 6) for value in box] for box in boxes],
        "object_description": entry.chunk.expression,
        "frame_size": list(size),
    }


def _reject(reason: str, chunk: Chunk, shown: Sequence[Frame], boxes: Sequence[Any], result: VideoResult) -> None:
    result.counts[reason] += 1
    result.samples.append(SamplePicture(reason, chunk.expression, sample_picture(shown, boxes)))


class EveryNth:
    """Every n-th frame of a recording, numbered from 0 without gaps; each iteration starts at the first frame.

    Args:
        recording: The source.
        every: n, >= 1.

    Attributes:
        claimed: Number of frames according to the source, None if it states none.
    """

    def __init__(self, recording: Recording, every: int = 1) -> None:
        self._recording, self._every = recording, every
        total = recording.frame_count
        self.claimed = None if not total else (total + every - 1) // every

    def __iter__(self) -> Iterator[Frame]:
        read = 0
        for frame in self._recording:
            if frame.index % self._every == 0:
                yield Frame(frame.image, frame.stamp_ns, read)
                read += 1


def _at_most(frames: Iterator[Frame], most: int) -> Iterator[Frame]:
    for number, frame in enumerate(frames):
        if number >= most:
            raise VideoError(f"the video has more than {most} frames, although its header states fewer")
        yield frame


@contextmanager
def _timed(result: VideoResult, stage: str) -> Iterator[None]:
    begun_s = time.perf_counter()
    try:
        yield
    finally:
        result.seconds[stage] = result.seconds.get(stage, 0.0) + time.perf_counter() - begun_s


def _is_of_output(error: OSError, out: Path) -> bool:
    """Whether an error is of the output folder, so that every further video would fail as well."""
    is_there = str(error.filename).startswith(str(out / FRAME_FOLDER))
    return is_there or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_ERROR]
