"""Frames of one camera that wait for their result: in the paper's clips it comes with the last frame of the clip."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from elysium_core.types import Tracker
from elysium_ros.perception.targets import Target
from elysium_ros.perception.types import FrameJob, ObjectView

Followed = tuple[Target, ObjectView]
"""A target, and how it is published in one frame."""


class WaitingFrames:
    """The frames of a camera that are not published yet, in their order. Used by the inference thread only."""

    def __init__(self) -> None:
        self._jobs: deque[FrameJob] = deque()
        self._followed: defaultdict[int, list[Followed]] = defaultdict(list)

    def add(self, job: FrameJob) -> None:
        """Take the newest frame."""
        self._jobs.append(job)

    def job_of(self, frame_index: int) -> FrameJob:
        """The frame that an update is about; the newest one if that is not waiting."""
        return next((job for job in self._jobs if job.frame.index == frame_index), self._jobs[-1])

    def ready(
        self, followed: Iterable[Followed], trackers: Sequence[Tracker]
    ) -> Iterator[tuple[FrameJob, list[Followed]]]:
        """Hand out the frames that no tracker works on any more, each with what was seen in it.

        Args:
            followed: What the trackers have said since the last call.
            trackers: The trackers; one that answers in clips says from which frame on its updates are to come.
        """
        for target, view in followed:
            self._followed[view.update.frame_index].append((target, view))
        waiting = [index for each in trackers if (index := getattr(each, "oldest_waiting", None)) is not None]
        while self._jobs and (not waiting or self._jobs[0].frame.index < min(waiting)):
            job = self._jobs.popleft()
            yield job, self._followed.pop(job.frame.index, [])
        if not self._jobs:
            self._followed.clear()

    def clear(self) -> None:
        """Forget all frames; they are not published."""
        self._jobs.clear()
        self._followed.clear()
