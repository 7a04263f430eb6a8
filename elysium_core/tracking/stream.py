"""The tracker for live streams: it answers every frame as it arrives, with bounded memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from elysium_core.families.base import Seen
from elysium_core.frames import Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.box_tree import Residuals, tree_budget
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.model_tracker import ModelTracker
from elysium_core.tracking.target import Target
from elysium_core.tracking.window import Window
from elysium_core.tracking.zoom_follow import ZoomFollow
from elysium_core.tracking.zoom_search import ZoomSearch
from elysium_core.types import Grounding, TrackState, TrackUpdate

# IoU above which the tracked box and the box found by words agree on the place of a target.
_SAME_PLACE_IOU = 0.5
_ANCHOR_FRAMES = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Anchor:
    """An encoded frame and the box of a target in it."""

    frame: Seen
    box: Box


class StreamTracker(ModelTracker):
    """Tracks targets in one stream (protocol: :class:`elysium_core.types.Tracker`).

    A target given by words is first found by words. Then it is tracked in a prompt of a frame
    with its last certain box and the live frame (:mod:`elysium_core.tracking.window`). While it
    is lost, and every ``reground_period_s``, it is searched for by its words again. With
    ``zoom``, tracking and search also use parts of the frame, and the answer with the higher
    score counts.

    Args:
        runtime: The model.
        config: Settings of the tracker.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        # By target id: the first frame of a new window, for targets that are in no window.
        self._anchors: dict[str, _Anchor] = {}
        self._windows: list[Window] = []
        self._residuals: dict[str, Residuals] = defaultdict(partial(Residuals, runtime.family.grammar.levels))
        self._newest: Frame | None = None
        self._newest_seen: Seen | None = None
        self._zoom_follow = ZoomFollow(runtime, self._encode, self._counters)
        self._zoom_search = ZoomSearch(runtime, self._encode, self._counters)

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._anchors, self._windows = {}, []
        self._residuals.clear()
        self._newest = self._newest_seen = None
        self._zoom_follow.clear()

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target. A box refers to the newest frame, or to the first frame if there has been none yet.

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
        """Return no updates: every frame was answered by :meth:`step`."""
        return []

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Answer one frame; see :meth:`elysium_core.types.Tracker.step`."""
        require_frame(frame)
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
            self._after_update(frame, target, update)
        return updates

    def _after_update(self, frame: Frame, target: Target, update: TrackUpdate) -> None:
        """Drop a removed target; keep this frame as the anchor of a target without words if its box is certain."""
        newest, sure = self._newest_seen, update.state is TrackState.TRACKED
        if sure and update.box is not None and target.target_id not in self._zoom_follow:
            # Zoom was switched on after the target was found.
            self._open_zoom(target.target_id, frame, update.box)
        if update.state is TrackState.REMOVED:
            del self._targets[target.target_id]
            self._forget(target.target_id)
        elif sure and update.box is not None and newest is not None and not target.expression:
            self._anchors[target.target_id] = _Anchor(newest, update.box)

    def _forget(self, target_id: str) -> None:
        super()._forget(target_id)
        self._anchors.pop(target_id, None)
        self._residuals.pop(target_id, None)
        self._zoom_follow.forget(target_id)
        self._leave_windows(target_id)

    def _observe(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        """One observation for each target; after a failure of the model, observations without a box."""
        seen = self._attempt(self._look, frame, now_s)
        if self._stats.failure is not None:
            # The windows may be incomplete. Start again from words, or from the last certain box.
            self._windows.clear()
            self._zoom_follow.restart()
        return seen

    def _look(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        self._anchor_given_boxes()
        self._newest, self._newest_seen = frame, None
        self._newest_seen = live = self._encode([frame.image])[0]
        seen = self._ask_windows(live)
        self._look_with_zoom(frame, seen)
        self._combine(frame, live, seen, self._search(frame, live, now_s, seen))
        return seen

    def _anchor_given_boxes(self) -> None:
        """Make the newest frame the anchor of the targets whose boxes were given since then."""
        if not self._given or self._newest is None:
            return
        newest = self._newest_seen
        if newest is None:
            newest = self._encode([self._newest.image])[0]
        for name, box in self._given.items():
            self._anchors[name] = _Anchor(newest, box)
            self._open_zoom(name, self._newest, box)
        self._given = {}

    def _ask_windows(self, live: Seen) -> dict[str, Grounding]:
        """Observations of a frame: the answers of all windows, and the boxes given for this frame."""
        self._open_missing_windows()
        seen: dict[str, Grounding] = {}
        watched = sum(len(window.members) for window in self._windows)
        budget = tree_budget(self._runtime.device.type, self._config.draft_tokens, watched)
        for window in self._windows:
            members = window.members
            guesses = {name: box for name in members if (box := self._targets[name].last_box) is not None}
            residuals = {name: self._residuals[name] for name in members}
            seen |= window.look(live, guesses, residuals, budget)
        self._windows = [window for window in self._windows if window.members]
        return seen | {name: Grounding(box, 1.0) for name, box in self._given.items()}

    def _look_with_zoom(self, frame: Frame, seen: dict[str, Grounding]) -> None:
        """Replace observations by answers about views around the last boxes, where those have a higher score."""
        if not self._config.zoom:
            return
        places = {name: target.last_box for name, target in self._targets.items() if name not in self._given}
        closer = self._zoom_follow.look(frame, {name: box for name, box in places.items() if box is not None})
        for name, observation in closer.items():
            if name not in seen or observation.score > seen[name].score:
                seen[name] = observation

    def _open_missing_windows(self) -> None:
        """Open windows for the targets that have an anchor but no window, one window for each anchor frame."""
        watched = {name for window in self._windows for name in window.members}
        while missing := [name for name in self._anchors if name not in watched]:
            frame = self._anchors[missing[0]].frame
            together = {name: self._anchors[name].box for name in missing if self._anchors[name].frame is frame}
            self._open_window(frame, together)
            watched |= together.keys()
            for name in together:
                # If the target is lost later, its words find it better than an old anchor.
                if self._targets[name].expression:
                    del self._anchors[name]

    def _search(self, frame: Frame, live: Seen, now_s: float, seen: Mapping[str, Grounding]) -> dict[str, Grounding]:
        """Search by words for the targets whose search is due."""
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
            # Given by a box and words: the first search is one period later.
            target.asked_at_s = now_s
            return False
        # Periods are counted from the start of the stream. So targets that were added at different times are searched
        # for in the same frame, and share a window afterwards.
        return period > 0 and now_s // period > asked // period

    def _combine(self, frame: Frame, live: Seen, seen: dict[str, Grounding], found: Mapping[str, Grounding]) -> None:
        """Combine the results of tracking and search, and open a new window where this frame is the better anchor.

        Args:
            frame: The live frame.
            live: The encoded live frame.
            seen: Observations by tracking; replaced by those of the search where these have a higher score.
            found: Results of the search.
        """
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
        anchors = self._boxes_to_restart(seen, bool(anchors)) | anchors
        if anchors:
            self._open_window(live, anchors)
        self._given = {}

    def _boxes_to_restart(self, seen: Mapping[str, Grounding], opening: bool) -> dict[str, Box]:
        """Boxes of the targets that move to a new growing window with this frame.

        A target moves when its window is full. When any window is full, or a new one opens, all
        targets with a certain box move, so that targets that were added at different times share
        frames.
        """
        full = {name for window in self._windows if window.full for name in window.members}
        together = (full or opening) and self._window_frames > _ANCHOR_FRAMES
        # Iterate over ``seen``, because the order of a set differs from run to run.
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
        """Largest number of frames in a window."""
        window = self._config.window if self._config.window != "auto" else self._runtime.family.settings.window
        return _ANCHOR_FRAMES if window == "anchor" else self._clip_length

    def _open_window(self, frame: Seen, boxes: Mapping[str, Box]) -> None:
        """Move targets to a new window whose first frame is one with known boxes."""
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


def _same_place(followed: Grounding | None, by_words: Grounding) -> bool:
    if followed is None or followed.box is None or by_words.box is None:
        return False
    return followed.box.iou(by_words.box) >= _SAME_PLACE_IOU
