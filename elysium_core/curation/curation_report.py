"""What a curation kept and rejected, by reason, with contact sheets; and what the rest of a set will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.curation_rules import DISAGREES, DRIFT, NOT_FOUND, REASONS, UNSURE
from elysium_core.curation.curation_run import show_time
from elysium_core.curation.video_result import KEPT, OUTCOMES
from elysium_core.errors import DataError
from elysium_core.frames import Frame
from elysium_core.io.files import atomic_path
from elysium_core.io.image import decode_image, write_image
from elysium_core.io.labels import contact_sheet

REPORT_NAME = "report.md"
PAPER_VIDEOS, PAPER_DAYS, PAPER_GPUS = 10_700_000, 6, 24
"""Size of WebVid-10M, and what its curation took in the paper: about 6 days on 24 A100 with 80 GB."""

PAPER_SECONDS = PAPER_DAYS * 86400 * PAPER_GPUS / PAPER_VIDEOS
"""Working time of one GPU for one video in the paper [s]."""

WORD_REASONS = ("no noun", "plural", "group", "abstract", "time or place")
"""Reasons for which a chunk names no single visible object."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a whole set will cost, from the videos that have been done.

    Attributes:
        videos: Videos of the set.
        workers: Workers side by side.
        seconds: Working time of one worker for one video [s].
        tracks: Kept tracks a video.
        days: Wall time for the set [days].
    """

    videos: int
    workers: int
    seconds: float
    tracks: float
    days: float

    def as_sentence(self) -> str:
        """Say it, with the paper's figures beside it."""
        return (
            f"{self.videos} videos on {self.workers} workers: {show_time(self.days * 86400)}, about "
            f"{self.videos * self.tracks:.0f} tracks ({self.seconds:.3g} s and {self.tracks:.2f} tracks a video; the "
            f"paper's {PAPER_DAYS} days on {PAPER_GPUS} GPUs are {PAPER_SECONDS:.3g} s a video)"
        )


def estimate(ledger: CurationLedger, videos: int, workers: int) -> Estimate:
    """Work out time and yield for a set, as if its videos were like those that have been done.

    Every video is independent and only its result goes to the ledger, so time is videos * seconds / workers.

    Args:
        ledger: With at least one video.
        videos: Videos of the set.
        workers: Workers side by side, >= 1.

    Raises:
        DataError: No video has been done.
    """
    done = sum(ledger.counts("outcome").values())
    if not done:
        raise DataError("no video has been curated, so nothing can be estimated; use --dry-run 20")
    seconds = sum(ledger.times().values()) / done
    tracks = ledger.counts("chunk")[KEPT] / done
    return Estimate(videos, workers, seconds, tracks, videos * seconds / max(1, workers) / 86400)


def guess(videos: int, workers: int) -> str:
    """Say what a set would cost at the speed of the paper, before a single video has been done."""
    time = show_time(videos * PAPER_SECONDS / max(1, workers))
    return (
        f"{videos} videos on {workers} workers would take {time} at the paper's {PAPER_SECONDS:.3g} A100 seconds a "
        "video; --dry-run 20 measures it here"
    )


def advice(ledger: CurationLedger) -> str:
    """Return what to change if the tracker's scores reject every trajectory; empty if they do not."""
    lowest = ledger.counts("lowest score")
    if not lowest or ledger.counts("chunk")[UNSURE] < sum(lowest.values()):
        return ""
    best = max(lowest, key=float)
    return (
        f"all {sum(lowest.values())} trajectories were rejected by --track-score; the highest of their lowest scores "
        f"is about {best}: look at the sheet of the rejected ones, and choose a threshold that fits this tracker"
    )


def funnel(ledger: CurationLedger) -> list[tuple[str, int]]:
    """Return what is left after each stage: videos, chunks, and chunks after each gate."""
    outcomes, chunks = ledger.counts("outcome"), ledger.counts("chunk")
    rows = [("videos", sum(outcomes.values())), ("noun chunks", sum(chunks.values()))]
    left = rows[-1][1] - sum(chunks[reason] for reason in WORD_REASONS)
    rows.append(("name one visible object", left))
    names = {place: f"found in the {place} frame" for place in NOT_FOUND}
    gates = [(reason, names[place]) for place, reason in NOT_FOUND.items()]
    gates += [(UNSURE, "tracker sure in all frames"), (DRIFT, "no extreme drift")]
    gates += [(reason, f"track agrees in the {place} frame") for place, reason in DISAGREES.items()]
    for reason, name in gates:
        left -= chunks[reason]
        rows.append((name, left))
    return rows


def as_json(ledger: CurationLedger) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "settings": ledger.settings(),
        "videos": {name: ledger.counts("outcome")[name] for name in OUTCOMES},
        "chunks": {name: ledger.counts("chunk")[name] for name in (*WORD_REASONS, *REASONS, KEPT)},
        "stages": dict(funnel(ledger)),
        "lowest_track_scores": dict(sorted(ledger.counts("lowest score").items())),
        "seconds": {name: round(value, 3) for name, value in ledger.times().items()},
    }


def report_lines(ledger: CurationLedger) -> list[str]:
    """Return the report as Markdown."""
    outcomes, chunks = ledger.counts("outcome"), ledger.counts("chunk")
    lines = ["# Curation", "", "| Stage | Left |", "|---|--:|"]
    lines += [f"| {name} | {count} |" for name, count in funnel(ledger)]
    lines += ["", "| Videos | |", "|---|--:|"]
    lines += [f"| {name} | {outcomes[name]} |" for name in OUTCOMES if outcomes[name]]
    lines += ["", "| Chunks | |", "|---|--:|"]
    lines += [f"| {name} | {chunks[name]} |" for name in (KEPT, *WORD_REASONS, *REASONS) if chunks[name]]
    lines += ["", "| Lowest score of the tracker | Trajectories |", "|---|--:|"]
    lowest = sorted(ledger.counts("lowest score").items())
    lines += [f"| {low} to {float(low) + 0.1:.1f} | {count} |" for low, count in lowest]
    lines += ["", "| Time of the workers | s |", "|---|--:|"]
    lines += [f"| {name} | {value:.1f} |" for name, value in ledger.times().items()]
    settings = ", ".join(f"{name} = {value}" for name, value in ledger.settings().items())
    lines += ["", f"Settings: {settings}."]
    troubles = ledger.troubles()
    lines += ["", "## Errors", "", *(f"- {vid}: {outcome}: {detail}" for vid, outcome, detail in troubles)]
    return lines if troubles else lines[:-3]


def write_curation_report(ledger: CurationLedger, out: Path) -> list[Path]:
    """Write ``report.md`` and a contact sheet for each reason: random samples of what it kept or rejected.

    Returns:
        The files.
    """
    written = []
    lines = report_lines(ledger)
    for reason in (KEPT, *REASONS):
        samples = ledger.samples(reason)
        if samples:
            path = out / f"sheet-{reason.replace(' ', '-')}.jpg"
            write_image(path, _sheet(samples))
            written.append(path)
            lines += ["", f"## {reason.capitalize()}", "", f"![{reason}]({path.name})"]
    with atomic_path(out / REPORT_NAME) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [out / REPORT_NAME, *written]


def _sheet(samples: Sequence[tuple[str, str, bytes]]) -> NDArray[np.uint8]:
    pictures = [decode_image(jpeg, f"sample of {vid}") for vid, _, jpeg in samples]
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures]
    frames = [Frame(np.asarray(picture, np.uint8)) for picture in padded]
    return contact_sheet(frames, [f"{words} ({vid})" for vid, words, _ in samples])
