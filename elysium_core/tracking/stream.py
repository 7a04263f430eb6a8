"""The live tracker: every frame is answered as it arrives, with memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from elysium_core.errors import BackendError
from elysium_core.families.base import Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.tracking.box_tree import Residuals, TreeBudget
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.model_tracker import ModelTracker
from elysium_core.tracking.target import Target
from elysium_core.tracking.window import Window
from elysium_core.tracking.zoom import Image, ZoomFollow, ZoomSearch
from elysium_core.types import Grounding, TrackingConfig, TrackState, TrackUpdate

# Two boxes for one target in one frame: above this they are the same place, below two opinions.
_SAME_PLACE_IOU = 0.5
_ANCHOR_FRAMES = 2
# What a drafted token has to promise, as a share of a pass. A pass of a small model on a processor costs as much as
# some 60 of its tokens; on a GPU, tokens are free until a pass is bound by arithmetic, at about 200.
_LEAST_GAIN = {"cpu": 1 / 60, "cuda": 1 / 400}
# Unless told otherwise. On a processor they have not been seen to pay (docs/benchmarks.md).
_DRAFT_TOKENS = {"cuda": 32}


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """A frame, and a target's box in it."""

    frame: Seen
    box: Box


class StreamTracker(ModelTracker):
    """Follows targets through one stream (protocol: :class:`elysium_core.types.Tracker`).

    A target given by words is found by words first. From then on it is asked for behind
    the frame in which it was last surely seen. While it is lost, and every
    ``reground_period_s``, it is looked for by its words again. With ``zoom``, all of this
    is done in parts of the frame too, and the answer with the higher score counts.

    Args:
        runtime: The model.
        config: Settings.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        # Where a target can be picked up when no window holds it.
        self._sights: dict[str, _Sight] = {}
        self._windows: list[Window] = []
        self._residuals: dict[str, Residuals] = {}
        self._newest: Frame | None = None
        self._newest_seen: Seen | None = None
        self._zoom_follow = ZoomFollow(runtime, self._encode, self._counters)
        self._zoom_search = ZoomSearch(runtime, self._encode, self._counters)

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._sights, self._windows, self._residuals = {}, [], {}
        self._newest = self._newest_seen = None
        self._zoom_follow.clear()

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; a box refers to the newest frame, before the first to that one.

        See :meth:`elysium_core.types.Tracker.add`.
        """
        target_id = super().add(expression, box)
        if box is not None and self._newest is not None:
            target = self._targets[target_id]
            target.last_box, target.sure_at_s = box, self._clock.now_s
        return target_id

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next frame on."""
        super().configure(config)
        if not config.zoom:
            self._zoom_follow.clear()

    def flush(self) -> list[TrackUpdate]:
        """Updates held back at the end of a stream: none, every frame was answered."""
        return []

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Look at one frame; see :meth:`elysium_core.types.Tracker.step`."""
        self._require_frame(frame)
        self._stats.failure = None
        now_s = self._clock.tick(frame)
        self._stats.frames += 1
        updates = [target.stop(frame) for target in self._stopped]
        self._stopped.clear()
        seen = self._observe(frame, now_s) if self._targets else {}
        if not self._targets:
            self._newest, self._newest_seen = frame, None
        for target in list(self._targets.values()):
            update = target.observe(frame, now_s, seen[target.target_id], self._config)
            updates.append(update)
            self._remember(frame, target, update)
        return updates

    def _remember(self, frame: Frame, target: Target, update: TrackUpdate) -> None:
        """Keep a sure sight of a target that has no words to be found by; drop one that is gone."""
        newest, sure = self._newest_seen, update.state is TrackState.TRACKED
        if sure and update.box is not None and target.target_id not in self._zoom_follow:
            # Zoom was switched on after it was found.
            self._open_zoom(target.target_id, frame, update.box)
        if update.state is TrackState.REMOVED:
            del self._targets[target.target_id]
            self._forget(target.target_id)
        elif sure and update.box is not None and newest is not None and not target.expression:
            self._sights[target.target_id] = _Sight(newest, update.box)

    def _forget(self, target_id: str) -> None:
        super()._forget(target_id)
        self._sights.pop(target_id, None)
        self._residuals.pop(target_id, None)
        self._zoom_follow.forget(target_id)
        self._leave_windows(target_id)

    def _observe(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        """One observation a target, whatever fails."""
        seen: dict[str, Grounding] = {}
        self._stats.encode_s, started = 0.0, time.perf_counter()
        try:
            self._place_given()
            self._newest, self._newest_seen = frame, None
            self._newest_seen = live = self._encode([frame.image])[0]
            seen = self._look(live)
            self._look_with_zoom(frame, seen)
            self._adopt(frame, live, seen, self._search(frame, live, now_s, seen))
        except BackendError as error:
            # A window may lack what failed; start afresh from words, or from where the target was last seen.
            self._windows.clear()
            self._zoom_follow.restart()
            self._stats.failure = error
            self._stats.failures += 1
            seen = {name: Grounding(None, 0.0, reason=str(error)) for name in self._targets}
        self._stats.generate_s = time.perf_counter() - started - self._stats.encode_s
        self._count_engine()
        for name in self._targets:
            observation = seen.setdefault(name, Grounding(None, 0.0, reason="there is nothing to search it by"))
            if observation.box is None:
                failures = self._stats.parse_failures
                failures[observation.reason] = failures.get(observation.reason, 0) + 1
        return seen

    def _place_given(self) -> None:
        """Boxes given since the newest frame become sights of it."""
        if not self._given or self._newest is None:
            return
        newest = self._newest_seen
        if newest is None:
            newest = self._encode([self._newest.image])[0]
        for name, box in self._given.items():
            self._sights[name] = _Sight(newest, box)
            self._open_zoom(name, self._newest, box)
        self._given = {}

    def _look(self, live: Seen) -> dict[str, Grounding]:
        """Boxes given for this frame, and what every window says about it."""
        self._pick_up()
        seen: dict[str, Grounding] = {}
        budget = self._tree_budget()
        for window in self._windows:
            guesses = {name: box for name in window.members if (box := self._targets[name].last_box) is not None}
            residuals = {
                name: self._residuals.setdefault(name, Residuals(self._runtime.family.grammar.levels))
                for name in window.members
            }
            seen |= window.look(live, guesses, residuals, budget)
        self._windows = [window for window in self._windows if window.members]
        return seen | {name: Grounding(box, 1.0) for name, box in self._given.items()}

    def _look_with_zoom(self, frame: Frame, seen: dict[str, Grounding]) -> None:
        """Take the answer with the higher score: of the windows, or of views around the last places."""
        if not self._config.zoom:
            return
        places = {name: target.last_box for name, target in self._targets.items() if name not in self._given}
        closer = self._zoom_follow.look(frame, {name: box for name, box in places.items() if box is not None})
        for name, observation in closer.items():
            if name not in seen or observation.score > seen[name].score:
                seen[name] = observation

    def _tree_budget(self) -> TreeBudget:
        """The more targets, the fewer guesses about each: a pass is then full without them."""
        watched = sum(len(window.members) for window in self._windows)
        kind, tokens = self._runtime.device.type, self._config.draft_tokens
        if tokens < 0:
            tokens = _DRAFT_TOKENS.get(kind, 0)
        return TreeBudget(tokens // max(1, watched), _LEAST_GAIN.get(kind, _LEAST_GAIN["cpu"]))

    def _pick_up(self) -> None:
        """Open windows for targets that are in none, but were seen somewhere; one for each frame they were seen in."""
        watched = {name for window in self._windows for name in window.members}
        while missing := [name for name in self._sights if name not in watched]:
            frame = self._sights[missing[0]].frame
            together = {name: self._sights[name].box for name in missing if self._sights[name].frame is frame}
            self._open_window(frame, together)
            watched |= together.keys()
            for name in together:
                # From here on words find it again better than an old sight.
                if self._targets[name].expression:
                    del self._sights[name]

    def _search(self, frame: Frame, live: Seen, now_s: float, seen: Mapping[str, Grounding]) -> dict[str, Grounding]:
        """Look by words for the targets that need it."""
        due = {}
        for name, target in self._targets.items():
            if target.expression and self._is_due(target, now_s, name in seen):
                due[name] = target.expression
                target.asked_at_s = now_s
        if not due:
            return {}
        guesses = {name: box for name in due if (box := self._targets[name].last_box) is not None}
        found = find_by_words(self._runtime, live, due, guesses, self._counters)
        return self._zoom_search.go_on(frame.image, found, due) if self._config.zoom else found

    def _is_due(self, target: Target, now_s: float, watched: bool) -> bool:
        if not watched or target.lost_at_s is not None:
            return True
        period, asked = self._config.reground_period_s, target.asked_at_s
        if asked is None:
            # Given by a box and words: the words wait for their first turn.
            target.asked_at_s = now_s
            return False
        # Turns are counted from the start of the stream: targets that are asked for in the same frame share a
        # window afterwards, whenever they were added.
        return period > 0 and now_s // period > asked // period

    def _adopt(self, frame: Frame, live: Seen, seen: dict[str, Grounding], found: Mapping[str, Grounding]) -> None:
        """Decide between following and searching, and open a new window where this frame is the better anchor."""
        anchors = dict(self._given)
        for name, by_words in found.items():
            followed = seen.get(name)
            best = by_words if followed is None or by_words.score > followed.score else followed
            seen[name] = best
            box = self._sure_box(best)
            if box is not None and (best is by_words or _same_place(followed, by_words)):
                anchors[name] = box
        for name, box in anchors.items():
            self._open_zoom(name, frame, box)
        anchors = self._restarting(seen, bool(anchors)) | anchors
        if anchors:
            self._open_window(live, anchors)
        self._given = {}

    def _restarting(self, seen: Mapping[str, Grounding], opening: bool) -> dict[str, Box]:
        """Boxes of the targets whose growing window ends with this frame.

        It ends when it is full. When any ends, or another opens, the rest join, so that
        targets that were added at different times come to share their frames.
        """
        full = {name for window in self._windows if window.full for name in window.members}
        together = (full or opening) and self._window_frames > _ANCHOR_FRAMES
        # In the order of ``seen``: the order of a set differs from run to run.
        boxes = {
            name: observation.box if name in full else self._sure_box(observation)
            for name, observation in seen.items()
            if name in full or together
        }
        return {name: box for name, box in boxes.items() if box is not None}

    def _sure_box(self, seen: Grounding) -> Box | None:
        return seen.box if seen.score >= self._config.score_threshold else None

    @property
    def _window_frames(self) -> int:
        """Frames a window may hold."""
        window = self._config.window if self._config.window != "auto" else self._runtime.family.settings.window
        return _ANCHOR_FRAMES if window == "anchor" else self._clip_length

    def _open_window(self, frame: Seen, boxes: Mapping[str, Box]) -> None:
        """Move targets into a new window that opens with a frame in which their boxes are known."""
        for name in boxes:
            self._leave_windows(name)
        words = {name: self._targets[name].expression for name in boxes}
        longest = self._config.max_new_tokens
        self._windows.append(Window(self._runtime, frame, boxes, words, self._window_frames, self._counters, longest))

    def _leave_windows(self, target_id: str) -> None:
        for window in self._windows:
            window.discard(target_id)
        self._windows = [window for window in self._windows if window.members]

    def _open_zoom(self, name: str, frame: Frame, box: Box) -> None:
        if self._config.zoom:
            self._zoom_follow.open(name, frame, box, self._targets[name].expression)

    def _encode(self, images: Sequence[Image]) -> list[Seen]:
        started = time.perf_counter()
        seen = self._runtime.encode_frames(images)
        self._stats.encode_s += time.perf_counter() - started
        self._stats.vision_encodes += len(images)
        return seen


def _same_place(followed: Grounding | None, by_words: Grounding) -> bool:
    if followed is None or followed.box is None or by_words.box is None:
        return False
    return followed.box.iou(by_words.box) >= _SAME_PLACE_IOU
