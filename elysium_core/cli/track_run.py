"""One run of ``elysium track``: reads frames, writes track lines and annotated frames, and can be resumed."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from elysium_core.cli.output import Progress, emit
from elysium_core.cli.track_outputs import TrackOutputs
from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.overlay import draw_tracks
from elysium_core.io.recording import Recording
from elysium_core.io.stop_request import StopRequest
from elysium_core.tracking.follow import follow_recording
from elysium_core.types import Tracker, TrackState, TrackUpdate

# In clip mode the boxes of a frame come when its clip is complete. A frame that waits longer has no target left.
_LONGEST_WAIT = 64
_NO_OUTPUTS = TrackOutputs()


@dataclass(frozen=True, slots=True)
class Targets:
    """What the user asked to follow.

    Attributes:
        expressions: The words of each target, empty if it is given by a box only.
        boxes: The box of each target in the first frame, None if it is given by words only.
    """

    expressions: Sequence[str]
    boxes: Sequence[Box | None]

    @property
    def ids(self) -> list[str]:
        """The id of each target in the output: ``"1"``, ``"2"`` ..."""
        return [str(number) for number in range(1, len(self.expressions) + 1)]


class TrackRun:
    """Tracks targets through a recording.

    Args:
        recording: Source of the frames.
        tracker: A new tracker without targets.
        targets: What to track.
        done: Updates of an earlier run; its frames are not tracked again.
        outputs: Where the results go.
        emit_json: Also write the track lines to stdout.
        limit: Maximum number of frames to read, None for all.

    Attributes:
        problem: Why the recording ended early, None if it did not.
        failure: Error of the last frame that the model failed on; empty if there is none.
    """

    def __init__(
        self,
        recording: Recording,
        tracker: Tracker,
        targets: Targets,
        *,
        done: Sequence[TrackUpdate] = (),
        outputs: TrackOutputs = _NO_OUTPUTS,
        emit_json: bool = False,
        limit: int | None = None,
    ) -> None:
        self.recording = recording
        self.problem: VideoError | None = None
        self.failure = ""
        self._tracker, self._targets = tracker, targets
        self._lines, self._drawing, self._bag = outputs.lines, outputs.drawing, outputs.bag
        self._emit_json, self._limit = emit_json, limit
        self._done: dict[int, list[TrackUpdate]] = defaultdict(list)
        self._last_box: dict[str, Box] = {}
        self._target_of: dict[str, str] = {}
        self._words = dict(zip(targets.ids, targets.expressions, strict=True))
        self._states: dict[str, Counter[TrackState]] = {target_id: Counter() for target_id in targets.ids}
        self._score_sum: dict[str, float] = defaultdict(float)
        self._boxes: Counter[str] = Counter()
        self._described: dict[str, str] = {}
        for update in done:
            self._done[update.frame_index].append(self._completed(update))
        self._resume_at = max(self._done, default=-1)
        self._waiting: deque[Frame] = deque()
        self._answers: dict[int, list[TrackUpdate]] = defaultdict(list)
        self._answered = -1

    def run(self, progress: Progress, stop: StopRequest) -> None:
        """Read, track and write until the recording ends, the limit is reached or ``stop`` is set."""
        # At the resume point the tracker only starts its targets: the updates of that frame are in the file already.
        first = max(0, self._resume_at)
        for step in follow_recording(self._tracker, self._frames(stop), self._start_targets, first):
            if step.frame is not None and step.frame.index <= self._resume_at:
                self._deliver(self._done.get(step.frame.index, []), is_new=False)
            self._deliver([self._completed(update, self._target_of) for update in step.updates])
            self._note_failure()
            if step.frame is not None:
                self._draw_ready(step.frame)
                newest = self._answers.get(self._answered, ())
                progress.advance(", ".join(f"{update.target_id} {update.state.value}" for update in newest))
        self._draw(len(self._waiting))

    @property
    def failures(self) -> int:
        """Number of frames that the model failed on."""
        return self._tracker.stats.failures

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Yield code and sentence of what was wrong with the recording or the model."""
        yield from self.recording.problems()
        if self.failures:
            yield "MODEL_FAILED", f"the model failed on {self.failures} frames; the last error: {self.failure}"

    def summary(self) -> Iterator[str]:
        """Yield one line per target: the number of frames in each state, and the mean score."""
        for target_id, states in self._states.items():
            expression = self._words[target_id]
            boxes = self._boxes[target_id]
            mean = f"{self._score_sum[target_id] / boxes:.2f}" if boxes else "-"
            yield (
                f"{target_id}  {expression or self._what(target_id)}: {sum(states.values())} frames, "
                f"{states[TrackState.TRACKED]} tracked, {states[TrackState.UNCERTAIN]} uncertain, "
                f"{states[TrackState.LOST]} lost, mean score {mean}"
            )

    def _what(self, target_id: str) -> str:
        words = self._described.get(target_id)
        return f"box, followed by the words {words!r}" if words else "box"

    def _frames(self, stop: StopRequest) -> Iterator[Frame]:
        # The error is kept for later, so that the files are complete also when a camera is unplugged.
        try:
            for number, frame in enumerate(self.recording, start=1):
                yield frame
                if number == self._limit or stop.is_set:
                    return
        except VideoError as error:
            self.problem = error

    def _draw_ready(self, frame: Frame) -> None:
        """Draw the frames whose updates have come, and those that have waited too long."""
        if self._drawing is not None or self._bag is not None:
            self._waiting.append(frame)
        if self._tracker.config.mode == "stream":
            self._answered = frame.index
        ready = sum(waiting.index <= self._answered for waiting in self._waiting)
        self._draw(max(ready, len(self._waiting) - _LONGEST_WAIT))

    def _note_failure(self) -> None:
        if self._tracker.stats.failure is not None:
            self.failure = str(self._tracker.stats.failure)

    def _deliver(self, updates: Sequence[TrackUpdate], *, is_new: bool = True) -> None:
        """Count and write updates, and keep them for the drawing of their frames."""
        for update in updates:
            if is_new and update.frame_index <= self._resume_at:
                continue
            self._count(update)
            self._answers[update.frame_index].append(update)
            self._answered = max(self._answered, update.frame_index)
            if is_new:
                self._write(update)
        for frame_index in [index for index in self._answers if index < self._answered - _LONGEST_WAIT]:
            del self._answers[frame_index]

    def _draw(self, count: int) -> None:
        """Draw the oldest waiting frames."""
        for _ in range(count):
            frame = self._waiting.popleft()
            updates = self._answers.get(frame.index, ())
            if self._bag is not None:
                self._bag.write(frame, updates)
            if self._drawing is not None:
                scale = self._drawing.scale_for(frame.width)
                drawn = draw_tracks(frame.image, updates, scale=scale)
                self._drawing.write(Frame(drawn, frame.stamp_ns, frame.index))

    def _start_targets(self, _frame: Frame) -> None:
        removed = {u.target_id for updates in self._done.values() for u in updates if u.state is TrackState.REMOVED}
        for target_id in self._targets.ids:
            if target_id not in removed:
                expression, box = self._start_of(target_id)
                self._target_of[self._tracker.add(expression=expression, box=box)] = target_id

    def _start_of(self, target_id: str) -> tuple[str, Box | None]:
        """Return words and box to start a target with; when resuming, the box at the resume point."""
        position = int(target_id) - 1
        expression, box = self._targets.expressions[position], self._targets.boxes[position]
        if self._resume_at < 0:
            return expression, box
        then = next(update for update in self._done[self._resume_at] if update.target_id == target_id)
        if then.box is not None:
            return expression, then.box
        # A lost target is searched by its words. Without words it starts from its last known box.
        return expression, None if expression else then.last_box or box

    def _completed(self, update: TrackUpdate, target_of: dict[str, str] | None = None) -> TrackUpdate:
        """Return ``update`` with the id, words and last box of this run; the file of an earlier run lacks them."""
        # A target that the tracker found by itself has the tracker's id.
        target_id = target_of.get(update.target_id, update.target_id) if target_of else update.target_id
        self._words.setdefault(target_id, update.name)
        if update.box is not None:
            self._last_box[target_id] = update.box
        return replace(
            update,
            target_id=target_id,
            expression="" if update.name else self._words[target_id],
            last_box=update.last_box or self._last_box.get(target_id),
        )

    def _write(self, update: TrackUpdate) -> None:
        width, height = self.recording.width, self.recording.height
        if self._lines is not None:
            self._lines.write(update, width, height)
        if self._emit_json:
            emit(update.as_json(width, height))

    def _count(self, update: TrackUpdate) -> None:
        self._states.setdefault(update.target_id, Counter())[update.state] += 1
        self._boxes[update.target_id] += update.box is not None
        self._score_sum[update.target_id] += update.score
        if update.described:
            self._described[update.target_id] = update.described
