"""A curation run: the videos that are not finished go through the tools, and each result is committed as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elysium_core.curation.captioned_videos import CaptionedVideo
from elysium_core.curation.curate_video import curate_safely
from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.curation_rules import CurationRules
from elysium_core.curation.curation_tools import ToolNames
from elysium_core.curation.video_result import VideoResult

Work = Callable[[Iterable[CaptionedVideo]], Iterator[VideoResult]]
"""Curates videos, here or elsewhere, and yields the results in any order."""


@dataclass(frozen=True, slots=True)
class CurationJob:
    """What every worker needs to know.

    Attributes:
        tools: Names of the tools.
        rules: The thresholds.
        out: The output folder; on a cluster, one that all machines share.
    """

    tools: ToolNames
    rules: CurationRules
    out: Path

    def settings(self) -> dict[str, object]:
        """Return what determines the kept tracks; a folder belongs to one set of these."""
        names = {"detector": self.tools.detector, "tracker": self.tools.tracker, "parser": self.tools.parser}
        return {**names, **self.rules.as_dict()}


def unfinished(videos: Iterable[CaptionedVideo], ledger: CurationLedger) -> Iterator[CaptionedVideo]:
    """Yield the videos that the ledger has not; a second video of one id counts as the first."""
    return (video for video in videos if not ledger.has(video.vid))


def work_here(job: CurationJob) -> Work:
    """Return a worker in this process; the tools are loaded now.

    Raises:
        ElysiumError: A tool cannot be loaded.
    """
    tools = job.tools.load()

    def work(videos: Iterable[CaptionedVideo]) -> Iterator[VideoResult]:
        return (curate_safely(video, tools, job.rules, job.out) for video in videos)

    return work


def run_curation(videos: Iterable[CaptionedVideo], work: Work, ledger: CurationLedger) -> Iterator[VideoResult]:
    """Curate the videos that are not finished.

    Yields:
        Each result once it is on disk: a run that is killed at any moment is continued from there.
    """
    for result in work(unfinished(videos, ledger)):
        ledger.add(result)
        yield result


class Pace:
    """How fast a run is, and when it will be done.

    Args:
        total: Videos to do.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done, self._kept = total, 0, 0
        self._begun_s = time.monotonic()

    def note(self, result: VideoResult) -> str:
        """Count a video; return rate, yield and time left as text."""
        self._done += 1
        self._kept += len(result.lines)
        rate = self._done / max(1e-9, time.monotonic() - self._begun_s)
        left = show_time(max(0, self._total - self._done) / rate)
        return f"{rate:.3g} videos/s, {self._kept} tracks kept ({self._kept / self._done:.2f} a video), {left} left"


def show_time(seconds: float) -> str:
    """Return a time as a person says it: ``40 s``, ``12 min``, ``3.1 h``, ``6.0 days``."""
    for length, name, digits in ((86400.0, "days", 1), (3600.0, "h", 1), (60.0, "min", 0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{digits}f} {name}"
    return f"{seconds:.0f} s"
