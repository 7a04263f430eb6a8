"""One captioned video through all gates: chunks, boxes, trajectories, kept tracks (paper, section 3.2)."""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elysium_core.curation.box_followers import BoxFollower, load_follower
from elysium_core.curation.captioned_videos import CaptionedVideo
from elysium_core.curation.chunk_detectors import PLUGIN, ChunkDetector, load_detector, make_plugin
from elysium_core.curation.curated_frames import FrameFolder, sample_picture
from elysium_core.curation.curation_rules import (
    NOT_FOUND,
    PLACES,
    CurationRules,
    Detection,
    Trajectory,
    place_positions,
    rejection,
    surest,
)
from elysium_core.curation.noun_chunks import Chunk, ChunkParser, SpacyParser, distinct, is_english, why_not
from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.sampling import sample_stored
from elysium_core.io.video import open_video

KEPT, NOTHING, NO_CAPTION, NO_CHUNK, LANGUAGE, BAD_VIDEO, TOO_LONG, FAILED = (
    "kept",
    "nothing kept",
    "no caption",
    "no chunk",
    "other language",
    "bad video",
    "too long",
    "failed",
)
OUTCOMES = (KEPT, NOTHING, NO_CAPTION, NO_CHUNK, LANGUAGE, BAD_VIDEO, TOO_LONG, FAILED)
"""What can become of a video; the last one is an error of a detector or tracker."""

SPACY = "spacy"
_LONGEST_ERROR = 200


@dataclass(frozen=True, slots=True)
class ToolNames:
    """The tools of a run by their names on the command line, so that every worker can load them.

    Attributes:
        detector: See :func:`~elysium_core.curation.chunk_detectors.load_detector`.
        tracker: See :func:`~elysium_core.curation.box_followers.load_follower`.
        parser: ``spacy``, or ``plugin:module:function``.
        device: For models of torch.
    """

    detector: str
    tracker: str
    parser: str = SPACY
    device: str = "cpu"

    def load(self) -> Tools:
        """Load the tools.

        Raises:
            ElysiumError: One of them cannot be loaded.
        """
        parser: ChunkParser = make_plugin(self.parser) if self.parser.startswith(PLUGIN) else SpacyParser()
        return Tools(parser, load_detector(self.detector, self.device), load_follower(self.tracker, self.device))


@dataclass(frozen=True, slots=True)
class Tools:
    """The loaded tools of a worker.

    Attributes:
        parser: Finds noun chunks.
        detector: Finds them in frames.
        tracker: Follows the boxes.
    """

    parser: ChunkParser
    detector: ChunkDetector
    tracker: BoxFollower


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """A picture of one decision, for contact sheets.

    Attributes:
        reason: The gate that rejected, or ``kept``.
        expression: The chunk.
        jpeg: The first, middle and last frame side by side with their boxes.
    """

    reason: str
    expression: str
    jpeg: bytes


@dataclass(slots=True)
class VideoResult:
    """What became of one video.

    Attributes:
        vid: Its id.
        outcome: One of :data:`OUTCOMES`.
        detail: The error; empty if there was none.
        lines: The kept tracks in the layout of ElysiumTrack.
        counts: Noun chunks by what became of them: a reason of the rules, or ``kept``.
        seconds: Wall time by stage: parse, detect, track, write [s].
        frames: Frames that were used.
        samples: Pictures of decisions.
    """

    vid: str
    outcome: str = NOTHING
    detail: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    samples: list[SamplePicture] = field(default_factory=list)


def curate_safely(video: CaptionedVideo, tools: Tools, rules: CurationRules, out: Path) -> VideoResult:
    """Curate one video; whatever goes wrong with it becomes its outcome and stops nothing else.

    Raises:
        OSError: The output folder cannot be written: every further video would fail as well.
    """
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
    if result.outcome != KEPT:
        result.lines.clear()
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
                boxes = [detections[0].box for _, detections in found]
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
) -> list[tuple[Chunk, list[Detection]]]:
    """Return the chunks that were found in all places, each with its detections there."""
    found: list[tuple[Chunk, list[Detection]]] = [(chunk, []) for chunk in chunks]
    for place, frame in zip(PLACES, shown, strict=True):
        if not found:
            break
        answers = detector.find(frame.image, [chunk.expression for chunk, _ in found])
        left = []
        for (chunk, detections), answer in zip(found, answers, strict=True):
            best = surest(answer, rules.detection_score)
            if best is not None:
                left.append((chunk, [*detections, best]))
            else:
                boxes = [detection.box for detection in detections]
                _reject(NOT_FOUND[place], chunk, shown, boxes, result)
        found = left
    return found


def _judge(
    video: CaptionedVideo,
    found: Sequence[tuple[Chunk, list[Detection]]],
    tracks: Sequence[Trajectory],
    shown: Sequence[Frame],
    rules: CurationRules,
    folder: FrameFolder,
    result: VideoResult,
) -> None:
    """Put each trajectory through the gates; the kept ones become lines."""
    width, height = shown[0].width, shown[0].height
    for (chunk, detections), track in zip(found, tracks, strict=True):
        if len(track.boxes) != len(folder.names):
            raise VideoError(f"the tracker gave {len(track.boxes)} boxes for {len(folder.names)} frames")
        reason = rejection(track, detections, rules, width / height)
        positions = place_positions(len(track.boxes))
        boxes = [track.boxes[position] for position in positions]
        if reason is not None:
            _reject(reason, chunk, shown, boxes, result)
            continue
        result.counts[KEPT] += 1
        result.samples.append(SamplePicture(KEPT, chunk.expression, sample_picture(shown, boxes)))
        overlaps = [box.iou(hit.box) for box, hit in zip(boxes, detections, strict=True) if box is not None]
        result.lines.append(
            {
                "source": "elysium-curate",
                "id": f"{video.vid}-{len(result.lines)}",
                "vid": video.vid,
                "metadata": {
                    "caption": video.caption,
                    "detection_scores": [round(hit.score, 4) for hit in detections],
                    "least_track_score": round(min(track.scores), 4),
                    "iou": [round(overlap, 4) for overlap in overlaps[1:]],
                },
                "frames": folder.names,
                "object_class": chunk.noun,
                "box": [[round(value, 6) for value in box] for box in track.boxes if box is not None],
                "object_description": chunk.expression,
                "frame_size": [width, height],
            }
        )


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
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or str(error.filename).startswith(str(out))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_ERROR]
