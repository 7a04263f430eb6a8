"""Single object tracking benchmark: SOT (the first box is given) and RSOT (words are given)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from elysium_core.data.readers.annotation_files import usable
from elysium_core.data.readers.catalog import TRACKING_BENCHMARKS, get_tracking_benchmark
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import BoxError, ConfigError, DataError, ExpressionError
from elysium_core.evaluation.benchmark import Benchmark, EvalRequest
from elysium_core.evaluation.metrics import Floats, xyxy_to_xywh
from elysium_core.evaluation.protocols import default_protocol, get_protocol
from elysium_core.evaluation.report import Report
from elysium_core.evaluation.results import (
    RESULT_FOLDER,
    TrackResult,
    read_result,
    result_path,
    same_rows,
    write_result,
)
from elysium_core.evaluation.run_folder import Manifest, Ranks, left_out_log, require_some
from elysium_core.evaluation.tracking_report import TRACKING, comparison_report, tracking_report
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.follow import follow_recording
from elysium_core.types import PerceptionModel, Tracker, TrackUpdate

TASKS = ("sot", "rsot")
WORDS = ("description", "class")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_NO_UPDATE = "the tracker gave no answer for this frame"


@dataclass(frozen=True, slots=True)
class TrackingTask:
    """The input of a tracker at the start of a recording.

    Attributes:
        task: ``sot``: the first true box. ``rsot``: words.
        words: Kind of words: the sentence (``description``) or the ``class``. If a data set lacks one,
            the other is used.

    Raises:
        ConfigError: A name is unknown.
    """

    task: str = "sot"
    words: str = "description"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"task {self.task!r} is not one of {', '.join(TASKS)}")
        if self.words not in WORDS:
            raise ConfigError(f"words {self.words!r} are not one of {', '.join(WORDS)}")

    def expression_of(self, recording: LabelledRecording) -> str:
        """Return the words that name the target.

        Raises:
            DataError: The data set has none.
        """
        texts = (recording.expression, recording.category)
        words = next((text for text in (texts if self.words == "description" else texts[::-1]) if text), "")
        if not words:
            raise DataError(
                f"{recording.name!r} has no words that name its target, which task rsot needs; "
                "use --task sot, or add an expression.txt"
            )
        return words

    def checked(self, recording: LabelledRecording) -> LabelledRecording:
        """Return the recording; raise DataError if it lacks the first box or the words that the task needs."""
        if self.task == "rsot":
            self.expression_of(recording)
        elif not np.isfinite(recording.boxes_xywh_px[0]).all():
            raise DataError(
                f"the first line of {str(recording.truth_file)!r} has no box for {recording.name!r}; "
                "task sot starts there, so cut the recording or use --task rsot"
            )
        return recording


class SingleObjectTracking(Benchmark):
    """SOT and RSOT on one data set, with one result file per recording."""

    kind = TRACKING
    names = tuple(TRACKING_BENCHMARKS)
    tasks = TASKS

    def __init__(self, request: EvalRequest) -> None:
        super().__init__(request)
        self.task = TrackingTask(request.task, request.words)
        self._config = TrackingConfig(
            mode=request.mode,
            clip_length=request.clip_length,
            # One target that is never removed, because a recording is scored to its end.
            max_targets=1,
            remove_after_s=0.0,
            score_threshold=_score_threshold(request),
            zoom=request.zoom,
        )
        for name in request.protocols:
            get_protocol(name)

    @property
    def split(self) -> str:
        """The requested split, or the default of the data set; empty if it has no splits."""
        return self.request.split or get_tracking_benchmark(self.request.benchmark).default_split

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each recording and its number of frames."""
        yield from ((recording.name, recording.frame_count) for recording in self._recordings())

    def settings(self, model: PerceptionModel) -> dict[str, Any]:
        """Return the task, the settings of the tracker and the protocols."""
        config = self._resolved(model)
        return {
            "task": self.task.task,
            "words": self.task.words,
            "mode": config.mode,
            "score_threshold": config.score_threshold,
            "clip_length": config.clip_length,
            "protocols": self.request.protocols or (default_protocol(self.request.benchmark),),
        }

    def run(self, model: PerceptionModel, folder: Path, ranks: Ranks) -> Iterator[str]:
        """Track every recording that has no result yet; yield its name."""
        config = self._resolved(model)
        with left_out_log(folder, ranks.rank) as left_out:
            for recording in ranks.share(self._recordings()):
                if (path := result_path(folder, recording.name)).is_file():
                    _require_same_truth(read_result(path), recording, path)
                else:
                    tracker = model.tracker(mode=config.mode, config=config)
                    try:
                        write_result(folder, track_recording(recording, tracker, self.task))
                    except DataError as error:
                        left_out.append(recording.name, {"reason": str(error)})
                yield recording.name
            require_some(left_out, any((folder / RESULT_FOLDER).glob("*.json")))

    @staticmethod
    def report(folder: Path, protocols: Sequence[str] = (), /) -> Report:
        """Score a run and the baselines, and draw the plots."""
        return tracking_report(folder, protocols)

    @staticmethod
    def compare(folders: Sequence[Path], out: Path, protocols: Sequence[str] = (), /) -> Report:
        """Score several runs and the baselines, and draw the plots."""
        return comparison_report(folders, out, protocols)

    @staticmethod
    def answered(folder: Path, manifest: Manifest) -> Collection[str]:
        """Return the recordings that have a result file."""
        return {name for name in manifest.entries if result_path(folder, name).is_file()}

    def _recordings(self) -> Iterable[LabelledRecording]:
        data_set = get_tracking_benchmark(self.request.benchmark)
        recordings = usable(data_set.read(self.data, self.split, self.skip), self.task.checked, self.skip)
        return islice(recordings, self.request.limit)

    def _resolved(self, model: PerceptionModel) -> TrackingConfig:
        return self._config.resolved(model.info.clip_length)


def _score_threshold(request: EvalRequest) -> float:
    if request.score_threshold is not None:
        return request.score_threshold
    return TrackingConfig().score_threshold if request.mode == "stream" else 0.0


def _require_same_truth(result: TrackResult, recording: LabelledRecording, path: Path) -> None:
    if not same_rows(result.truth_xywh_px, recording.boxes_xywh_px):
        raise DataError(
            f"{str(path)!r} was made with other true boxes than {str(recording.truth_file)!r} holds now; "
            "delete it, or choose another --out"
        )


def track_recording(recording: LabelledRecording, tracker: Tracker, task: TrackingTask) -> TrackResult:
    """Follow one target through one recording.

    Args:
        recording: What to track.
        tracker: A new tracker without targets.
        task: Task and kind of words.

    Raises:
        DataError: A frame cannot be read, or there are more or fewer frames than true boxes.
    """
    task.checked(recording)
    answers = _Answers(recording)
    seconds = 0.0

    def start(frame: Frame) -> None:
        size = answers.note_size(frame)
        recording.require_px(*size)
        _start_target(tracker, recording, task, size)

    try:
        for step in follow_recording(tracker, _frames(recording), start):
            if step.frame is not None:
                answers.note_size(step.frame)
            answers.store(step.updates)
            seconds += step.seconds
    except ExpressionError as error:
        # A sentence that the model refuses is a failure of the model, not of the data.
        answers.refuse(f"the model refuses the words ({error.code})")
        for frame in _frames(recording):
            answers.note_size(frame)
    sizes = answers.sizes
    return TrackResult(
        name=recording.name,
        predicted_xywh_px=answers.boxes,
        truth_xywh_px=recording.boxes_xywh_px,
        absent=recording.absent,
        frame_size=(int(sizes[0, 0]), int(sizes[0, 1])),
        frame_sizes=sizes if (sizes != sizes[0]).any() else None,
        first_box_given=task.task == "sot",
        pixel_origin=recording.pixel_origin,
        first_box_only=recording.first_box_only,
        expression=task.expression_of(recording) if task.task == "rsot" else answers.described,
        failures=answers.failures(),
        parse_failures=dict(tracker.stats.parse_failures),
        seconds=seconds,
    )


class _Answers:
    """Boxes by frame. In clip mode the answer for a frame may come some frames later.

    Pictures may change their size inside a recording; boxes are in pixels of their own picture.

    Attributes:
        boxes: Shape (N, 4), x, y, w, h [px].
        sizes: Width and height of each frame, shape (N, 2) [px].
        described: The model's own words by which it follows a given box; empty if it follows the box itself.
    """

    def __init__(self, recording: LabelledRecording) -> None:
        frame_count = recording.frame_count
        self.boxes: Floats = np.full((frame_count, 4), np.nan)
        self.sizes: Floats = np.ones((frame_count, 2))
        self.described = ""
        self._annotated = recording.frame_size
        self._reasons = [_NO_UPDATE] * frame_count

    def note_size(self, frame: Frame) -> tuple[int, int]:
        """Note and return the size that the boxes of a frame refer to."""
        size = self._annotated or (frame.width, frame.height)
        self.sizes[frame.index] = size
        return size

    def store(self, updates: Sequence[TrackUpdate]) -> None:
        for update in updates:
            if 0 <= update.frame_index < len(self.boxes):
                self._reasons[update.frame_index] = update.reason or update.state.value
                self.described = update.described or self.described
                if update.box is not None:
                    width, height = (int(side) for side in self.sizes[update.frame_index])
                    self.boxes[update.frame_index] = xyxy_to_xywh([update.box.to_px(width, height)])[0]

    def refuse(self, reason: str) -> None:
        """Record one reason for all frames without a box."""
        self._reasons = [reason] * len(self.boxes)

    def failures(self) -> dict[str, int]:
        missing = np.flatnonzero(np.isnan(self.boxes).any(axis=1))
        # Numbers are removed, so that "score 0.18 is low" and "score 0.19 is low" count as one reason.
        return dict(Counter(_NUMBER.sub("#", self._reasons[index]) for index in missing))


def _frames(recording: LabelledRecording) -> Iterator[Frame]:
    """Yield the frames of a recording; raise DataError if their number differs from that of the true boxes."""
    last_index = -1
    for frame in recording.frames:
        if frame.index >= recording.frame_count:
            raise _wrong_length(recording, "more")
        last_index = frame.index
        yield frame
    if last_index != recording.frame_count - 1:
        raise _wrong_length(recording, "fewer")


def _start_target(
    tracker: Tracker, recording: LabelledRecording, task: TrackingTask, frame_size: tuple[int, int]
) -> None:
    if task.task == "rsot":
        tracker.add(expression=task.expression_of(recording))
        return
    try:
        x, y, w, h = (float(value) for value in recording.boxes_xywh_px[0])
        tracker.add(box=Box.from_xywh_px(x, y, w, h, *frame_size))
    except BoxError as error:
        raise DataError(f"the first box in {str(recording.truth_file)!r} cannot start a track: {error}") from error


def _wrong_length(recording: LabelledRecording, more: str) -> DataError:
    return DataError(
        f"{recording.frames.name!r} decodes to {more} frames than {str(recording.truth_file)!r} has boxes "
        f"({recording.frame_count}); they must be equal"
    )
