"""Runs a tracker over labelled recordings, one target at a time, and writes what it answered."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import BoxError, ConfigError, DataError, ExpressionError
from elysium_core.evaluation.metrics import Floats, xyxy_to_xywh
from elysium_core.evaluation.results import TrackResult, read_result, result_path, same_rows, write_result
from elysium_core.geometry import Box
from elysium_core.types import Tracker, TrackUpdate

TASKS = ("sot", "rsot")
WORDS = ("description", "class")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_NO_UPDATE = "the tracker said nothing about this frame"

MakeTracker = Callable[[], Tracker]


@dataclass(frozen=True, slots=True)
class TrackingTask:
    """What a tracker is told at the start of a recording.

    Attributes:
        task: ``sot``: the first true box. ``rsot``: words.
        words: Which words: the sentence (``description``) or the ``class``; each stands in for the other
            where a data set lacks it.

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

    def check(self, recording: LabelledRecording) -> None:
        """Raise DataError unless the recording holds what the tracker must be told."""
        if self.task == "rsot":
            self.expression_of(recording)
        elif not np.isfinite(recording.boxes_xywh_px[0]).all():
            raise DataError(
                f"the first line of {str(recording.truth_file)!r} has no box for {recording.name!r}; "
                "task sot starts there, so cut the recording or use --task rsot"
            )


def run_recordings(
    recordings: Iterator[LabelledRecording], make_tracker: MakeTracker, task: TrackingTask, run_folder: Path
) -> Iterator[TrackResult | None]:
    """Track every recording that has no result yet, and write each result as soon as it is whole.

    Args:
        recordings: What to track.
        make_tracker: Makes a fresh tracker for each.
        task: What it is told.
        run_folder: Where the results go.

    Yields:
        One result a recording, None for one that was there before.
    """
    for recording in recordings:
        if (path := result_path(run_folder, recording.name)).is_file():
            _require_same_truth(read_result(path), recording, path)
            yield None
            continue
        result = track_recording(recording, make_tracker(), task)
        write_result(run_folder, result)
        yield result


def _require_same_truth(result: TrackResult, recording: LabelledRecording, path: Path) -> None:
    if not same_rows(result.truth_xywh_px, recording.boxes_xywh_px):
        raise DataError(
            f"{str(path)!r} was measured against other boxes than {str(recording.truth_file)!r} holds now; "
            "delete it, or choose another --out"
        )


def track_recording(recording: LabelledRecording, tracker: Tracker, task: TrackingTask) -> TrackResult:
    """Follow one target through one recording.

    Args:
        recording: What to track.
        tracker: A fresh tracker.
        task: What it is told.

    Raises:
        DataError: A frame cannot be read, or there are more or fewer frames than true boxes.
    """
    task.check(recording)
    answers = _Answers(recording.frame_count)
    seconds, frame_size, last_index, refusal = 0.0, recording.frame_size, -1, ""
    for frame in recording.frames:
        if frame.index >= recording.frame_count:
            raise _wrong_length(recording, "more")
        frame_size = frame_size or (frame.width, frame.height)
        start = time.perf_counter()
        if last_index < 0:
            refusal = _start_target(tracker, recording, task, frame_size)
        updates = [] if refusal else tracker.step(frame)
        seconds += time.perf_counter() - start
        answers.store(updates, frame_size)
        last_index = frame.index
    if frame_size is None or last_index != recording.frame_count - 1:
        raise _wrong_length(recording, "fewer")
    start = time.perf_counter()
    answers.store(tracker.flush(), frame_size)
    if refusal:
        answers.refuse(refusal)
    seconds += time.perf_counter() - start
    return TrackResult(
        name=recording.name,
        predicted_xywh_px=answers.boxes,
        truth_xywh_px=recording.boxes_xywh_px,
        absent=recording.absent,
        frame_size=frame_size,
        first_box_given=task.task == "sot",
        pixel_origin=recording.pixel_origin,
        first_box_only=recording.first_box_only,
        expression=task.expression_of(recording) if task.task == "rsot" else "",
        failures=answers.failures(),
        parse_failures=dict(tracker.stats.parse_failures),
        seconds=seconds,
    )


class _Answers:
    """Boxes by the frame they speak about; an answer may come some frames later (clip mode)."""

    def __init__(self, frame_count: int) -> None:
        self.boxes: Floats = np.full((frame_count, 4), np.nan)
        self._reasons = [_NO_UPDATE] * frame_count

    def store(self, updates: list[TrackUpdate], frame_size: tuple[int, int]) -> None:
        for update in updates:
            if 0 <= update.frame_index < len(self.boxes):
                self._reasons[update.frame_index] = update.reason or update.state.value
                if update.box is not None:
                    self.boxes[update.frame_index] = xyxy_to_xywh([update.box.to_px(*frame_size)])[0]

    def refuse(self, reason: str) -> None:
        """Give every frame the same reason for having no box."""
        self._reasons = [reason] * len(self.boxes)

    def failures(self) -> dict[str, int]:
        missing = np.flatnonzero(np.isnan(self.boxes).any(axis=1))
        # "score 0.18 is low" and "score 0.19 is low" are one reason.
        return dict(Counter(_NUMBER.sub("#", self._reasons[index]) for index in missing))


def _start_target(
    tracker: Tracker, recording: LabelledRecording, task: TrackingTask, frame_size: tuple[int, int]
) -> str:
    """Tell the tracker its target; return why it refuses the words, empty if it takes them."""
    if task.task == "rsot":
        try:
            tracker.add(expression=task.expression_of(recording))
        except ExpressionError as error:
            # A sentence that the model refuses is a failure of the model, not of the data.
            return f"the model refuses the words ({error.code})"
        return ""
    try:
        x, y, w, h = (float(value) for value in recording.boxes_xywh_px[0])
        tracker.add(box=Box.from_xywh_px(x, y, w, h, *frame_size))
        return ""
    except BoxError as error:
        raise DataError(f"the first box in {str(recording.truth_file)!r} cannot start a track: {error}") from error


def _wrong_length(recording: LabelledRecording, more: str) -> DataError:
    return DataError(
        f"{recording.frames.name!r} decodes to {more} frames than {str(recording.truth_file)!r} has boxes "
        f"({recording.frame_count}); they must be equal"
    )
