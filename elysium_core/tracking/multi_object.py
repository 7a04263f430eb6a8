"""Multi-object tracking: all objects of given names are found, followed, and get ids.

Each found object is a target of an ordinary tracker, which follows it from its box. So what a model can follow, and
how it finds again what it has lost, is the same as for a single target.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

from elysium_core.errors import BackendError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.settings import RANGES, TrackingConfig
from elysium_core.tracking.newcomers import InstanceSearch, Known, Newcomer
from elysium_core.types import Tracker, TrackerStats, TrackState, TrackUpdate

ALL_OBJECTS = TrackingConfig(max_targets=int(RANGES["max_targets"][1]), remove_after_s=2.0)
"""Settings of following all objects: many, and what is lost makes room soon."""

# Two targets of one name with boxes that overlap more than this share one object. After so many frames of it the
# younger one ends; things that pass each other share a place for a shorter time.
_SHARED_IOU = 0.7
_SHARED_FRAMES = 5


class MultiObjectTracker:
    """Follows all objects of some names through one stream (protocol: :class:`elysium_core.types.Tracker`).

    Newcomers are searched for again and again; each becomes a target with an id of its own. One that stays lost is
    removed, and gets a new id if it is found again later. ``max_targets`` limits how many are followed at a time.

    Args:
        tracker: A new tracker for one stream.
        search: Finds newcomers.
    """

    def __init__(self, tracker: Tracker, search: InstanceSearch) -> None:
        self._tracker, self._search = tracker, search
        self._names: dict[str, str] = {}
        self._first_index: dict[str, int] = {}
        self._shared: Counter[tuple[str, str]] = Counter()

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target beside those that are found; see :meth:`elysium_core.types.Tracker.add`."""
        return self._tracker.add(expression, box)

    def remove(self, target_id: str) -> None:
        """Stop a target; if it is still to be seen, it is soon found again under another id."""
        self._tracker.remove(target_id)

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Follow all targets into a frame and look for newcomers in it; see :meth:`elysium_core.types.Tracker.step`."""
        updates = [self._named(update) for update in self._tracker.step(frame)]
        places = {each.target_id: (self._names.get(each.target_id, ""), each.box) for each in updates}
        known: dict[str, Known] = {name: (words, box) for name, (words, box) in places.items() if box is not None}
        self._end_doubles(known)
        room = self.config.max_targets - len(self._tracker.target_ids)
        try:
            newcomers = self._search.look(frame, known, room)
        except BackendError as error:
            self.stats.count_failure(error)
            newcomers = []
        updates += [self._start(frame, newcomer) for newcomer in newcomers]
        for update in updates:
            if update.state is TrackState.REMOVED:
                self._names.pop(update.target_id, None)
        return updates

    def _named(self, update: TrackUpdate) -> TrackUpdate:
        name = self._names.get(update.target_id)
        if name is None:
            return update
        return replace(update, name=name, age=update.frame_index - self._first_index[update.target_id])

    def _start(self, frame: Frame, newcomer: Newcomer) -> TrackUpdate:
        name, box = newcomer.name, newcomer.box
        target_id = self._tracker.add(box=box)
        self._names[target_id], self._first_index[target_id] = name, frame.index
        return TrackUpdate(
            target_id, frame.index, box, newcomer.score, TrackState.TRACKED, frame.stamp_ns, last_box=box, name=name
        )

    def _end_doubles(self, known: dict[str, Known]) -> None:
        """Stop the younger one of two found targets that have shared one object for some frames."""
        found = [target_id for target_id in known if target_id in self._names]
        now = set()
        for older, younger in combinations(sorted(found, key=int), 2):
            (name, box), (other_name, other_box) = known[older], known[younger]
            if name == other_name and box.iou(other_box) > _SHARED_IOU:
                now.add((older, younger))
        self._shared = Counter({pair: self._shared[pair] + 1 for pair in now})
        for younger in {younger for (_, younger), frames in self._shared.items() if frames >= _SHARED_FRAMES}:
            self._tracker.remove(younger)

    def flush(self) -> list[TrackUpdate]:
        """Return the remaining updates at the end of a recording."""
        return [self._named(update) for update in self._tracker.flush()]

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        self._tracker.reset()
        self._search.restart()
        self._names, self._first_index = {}, {}
        self._shared.clear()

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next frame on."""
        self._tracker.configure(config)

    @property
    def config(self) -> TrackingConfig:
        """Current settings."""
        return self._tracker.config

    @property
    def stats(self) -> TrackerStats:
        """Counters since the tracker was made, without those of the search."""
        return self._tracker.stats

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are tracked."""
        return self._tracker.target_ids
