"""``python -m bench.curation``: yield and purity of curated tracks on video with known tracks, and memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import Progress, emit, say

if TYPE_CHECKING:
    from elysium_core.curation.curation_run import CurationJob, Work

_KNOWING, _PLAIN = "knowing", "plain"
_PLUGIN = "plugin:bench.curation_world:make_"
_RIGHT_IOU = 0.5
_MIB = 1 << 20
_THRESHOLDS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8)


def command(
    videos: Annotated[int, typer.Option("--videos", min=1, help="Videos; with --data at most so many.")] = 200,
    frames: Annotated[int, typer.Option("--frames", min=3, help="Frames a video.")] = 24,
    side: Annotated[int, typer.Option("--side", min=32, help=r"Side of the frames \[px].")] = 128,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Curate each video so often, under other ids.")] = 1,
    errors: Annotated[
        float, typer.Option("--errors", min=0, max=1, help="Share of the detector's answers that are wrong.")
    ] = 0.15,
    tracker: Annotated[
        str, typer.Option("--tracker", help="knowing (knows the true tracks), or a tracker of elysium curate.")
    ] = _KNOWING,
    track_score: Annotated[
        float | None, typer.Option("--track-score", help="As in elysium curate; its default if not given.")
    ] = None,
    parser: Annotated[str, typer.Option("--parser", help="plain (no grammar), or spacy.")] = _PLAIN,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Workers on Ray, one CPU core each; without it, in this process."),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help=r"The knowing tracker waits so long a video, as for a GPU [s].")
    ] = 0.0,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Cut these recordings into videos (layout of folder, docs/evaluation.md)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Curate videos with known tracks with a detector that errs in a known share of its answers.

    Purity is the share of the kept tracks that have a mean IoU above 0.5 with the true track of the
    object that their words name. Without --data the videos are generated.
    """
    from bench.curation_world import (
        ERRORS_VARIABLE,
        WAIT_VARIABLE,
        WORLD_VARIABLE,
        World,
        write_recordings,
        write_world,
    )
    from elysium_core.curation.curation_rules import CurationRules
    from elysium_core.curation.curation_run import CurationJob
    from elysium_core.curation.curation_tools import ToolNames

    with tempfile.TemporaryDirectory(prefix="elysium-bench-") as folder:
        root = Path(folder)
        if data is None:
            write_world(root / "world", World(videos, frames, side))
        else:
            write_recordings(root / "world", data, frames, videos)
        told = {WORLD_VARIABLE: str(root / "world"), ERRORS_VARIABLE: str(errors), WAIT_VARIABLE: str(wait)}
        tools = ToolNames(
            _PLUGIN + "detector",
            tracker if tracker != _KNOWING else _PLUGIN + "tracker",
            parser if parser != _PLAIN else _PLUGIN + "parser",
            "cpu",
        )
        rules = CurationRules() if track_score is None else CurationRules(track_score=track_score)
        with _environment(told):
            result = _measure(CurationJob(tools, rules, root / "out"), root / "world", repeat, workers)
    if json:
        emit(result)
        return
    for name, count in result["stages"].items():
        say(f"{name:<36} {count:>7}")
    for least, (count, purity) in result["by_track_score"].items():
        say(f"tracker's scores all above {least}: {count} tracks, purity {100 * purity:.1f} %")
    say(f"purity: {100 * result['purity']:.1f} % of {result['tracks']} tracks")
    say(f"{result['seconds_per_video']:.3g} s a video; memory {result['memory_mib']} MiB")


def _measure(job: CurationJob, world: Path, repeat: int, workers: int | None) -> dict[str, Any]:
    import psutil

    from bench.curation_world import CAPTIONS, true_overlap
    from elysium_core.curation.captioned_videos import CaptionedVideo, read_captions
    from elysium_core.curation.curation_ledger import CurationLedger
    from elysium_core.curation.curation_report import as_json
    from elysium_core.curation.curation_run import run_curation

    def entries() -> Iterator[CaptionedVideo]:
        for copy in range(repeat):
            for video in read_captions(world / CAPTIONS, world):
                yield CaptionedVideo(f"{video.vid}-{copy}", video.path, video.caption)

    total = repeat * sum(1 for _ in read_captions(world / CAPTIONS, world))
    tenth = max(1, total // 10)
    held: list[float] = []
    reached_s: list[float] = []
    with CurationLedger(job.out, write=True) as ledger, Progress("curate", total) as progress:
        with _started(job, workers) as work:
            for number, _ in enumerate(run_curation(entries(), work, ledger), 1):
                progress.advance()
                if number in (tenth, total):
                    held.append(round(psutil.Process().memory_info().rss / _MIB, 1))
                    reached_s.append(time.perf_counter())
        kept = [line for _, lines in ledger.lines() for line in lines]
        rights = [true_overlap(line, world) > _RIGHT_IOU for line in kept]
        report = as_json(ledger)
    lowest = [line["metadata"]["lowest_track_score"] for line in kept]
    return {
        "videos": total,
        "tracks": len(kept),
        "purity": _purity(rights),
        "by_track_score": {
            f"{least:.1f}": _above(least, lowest, rights) for least in _THRESHOLDS if least >= job.rules.track_score
        },
        "stages": report["stages"],
        "lowest_track_scores": report["lowest_track_scores"],
        # Loading the tools and starting Ray are not in it.
        "seconds_per_video": (reached_s[-1] - reached_s[0]) / max(1, total - tenth),
        "memory_mib": {"after a tenth": held[0], "at the end": held[-1]},
    }


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which workers inherit, for a while."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _started(job: CurationJob, workers: int | None) -> Iterator[Work]:
    from elysium_core.curation.curation_run import work_here

    if workers is None:
        yield work_here(job)
        return
    from elysium_core.curation.curation_ray import RayPool, stop_ray, work_on_ray

    try:
        yield work_on_ray(job, RayPool(workers))
    finally:
        stop_ray()


def _above(least: float, lowest: Sequence[float], rights: Sequence[bool]) -> tuple[int, float]:
    """How many tracks a stricter threshold of the tracker's score would keep, and their purity."""
    chosen = [right for score, right in zip(lowest, rights, strict=True) if score > least]
    return len(chosen), _purity(chosen)


def _purity(rights: Sequence[bool]) -> float:
    return sum(rights) / max(1, len(rights))


if __name__ == "__main__":
    from bench.app import run

    run("curation")
