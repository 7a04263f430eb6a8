"""One target followed through one recording of a benchmark, and its answers beside the true boxes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.errors import BoxError, ConfigError, DataError, ExpressionError
from elysium_core.evaluation.metrics import Floats, xyxy_to_xywh
from elysium_core.evaluation.results import TrackResult
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.follow import follow_recording
from elysium_core.types import Tracker, TrackUpdate

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
