"""``python -m bench.curation``: yield and purity of curated tracks on video with known tracks, and memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import Progress, emit, say

_KNOWING, _PLAIN = "knowing", "plain"
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
    from bench.curation_world import World, write_recordings, write_world

    with tempfile.TemporaryDirectory(prefix="elysium-bench-") as folder:
        root = Path(folder)
        if data is None:
            write_world(root / "world", World(videos, frames, side))
        else:
            write_recordings(root / "world", data, frames, videos)
        result = _measure(root, repeat, errors, tracker, track_score, parser)
    if json:
        emit(result)
        return
    for name, count in result["stages"].items():
        say(f"{name:<36} {count:>7}")
    for least, (count, purity) in result["by_track_score"].items():
        say(f"tracker's scores all above {least}: {count} tracks, purity {100 * purity:.1f} %")
    say(f"purity: {100 * result['purity']:.1f} % of {result['tracks']} tracks")
    say(f"{result['seconds_per_video']:.3g} s a video; memory {result['memory_mib']} MiB")


def _measure(
    root: Path, repeat: int, errors: float, tracker: str, track_score: float | None, parser: str
) -> dict[str, Any]:
    import psutil

    from bench.curation_world import (
        CAPTIONS,
        KnowingDetector,
        KnowingTracker,
        PlainParser,
        true_overlap,
        truth_of,
    )
    from elysium_core.curation.box_followers import load_follower
    from elysium_core.curation.captioned_videos import CaptionedVideo, read_captions
    from elysium_core.curation.curate_video import curate_safely
    from elysium_core.curation.curation_ledger import CurationLedger
    from elysium_core.curation.curation_report import as_json
    from elysium_core.curation.curation_rules import CurationRules
    from elysium_core.curation.curation_run import run_curation
    from elysium_core.curation.curation_tools import Tools
    from elysium_core.curation.noun_chunks import SpacyParser

    world, out = root / "world", root / "out"
    truth = truth_of(str(world))
    tools = Tools(
        PlainParser() if parser == _PLAIN else SpacyParser(),
        KnowingDetector(truth, errors),
        KnowingTracker(truth) if tracker == _KNOWING else load_follower(tracker, "cpu"),
    )
    rules = CurationRules() if track_score is None else CurationRules(track_score=track_score)

    def entries() -> Iterator[CaptionedVideo]:
        for copy in range(repeat):
            for video in read_captions(world / CAPTIONS, world):
                yield CaptionedVideo(f"{video.vid}-{copy}", video.path, video.caption)

    total = repeat * sum(1 for _ in read_captions(world / CAPTIONS, world))
    held: list[float] = []
    begun_s = time.perf_counter()
    with CurationLedger(out, write=True) as ledger, Progress("curate", total) as progress:
        results = run_curation(
            entries(), lambda waiting: (curate_safely(video, tools, rules, out) for video in waiting), ledger
        )
        for number, _ in enumerate(results, 1):
            progress.advance()
            if number in (max(1, total // 10), total):
                held.append(round(psutil.Process().memory_info().rss / _MIB, 1))
        seconds = time.perf_counter() - begun_s
        kept = [line for _, lines in ledger.lines() for line in lines]
        rights = [true_overlap(line, world) > _RIGHT_IOU for line in kept]
        report = as_json(ledger)
    lowest = [line["metadata"]["lowest_track_score"] for line in kept]
    return {
        "videos": total,
        "tracks": len(kept),
        "purity": _purity(rights),
        "by_track_score": {
            f"{least:.1f}": _above(least, lowest, rights) for least in _THRESHOLDS if least >= rules.track_score
        },
        "stages": report["stages"],
        "lowest_track_scores": report["lowest_track_scores"],
        "seconds_per_video": seconds / total,
        "memory_mib": {"after a tenth": held[0], "at the end": held[-1]},
    }


def _above(least: float, lowest: Sequence[float], rights: Sequence[bool]) -> tuple[int, float]:
    """How many tracks a stricter threshold of the tracker's score would keep, and their purity."""
    chosen = [right for score, right in zip(lowest, rights, strict=True) if score > least]
    return len(chosen), _purity(chosen)


def _purity(rights: Sequence[bool]) -> float:
    return sum(rights) / max(1, len(rights))


if __name__ == "__main__":
    from bench.app import run

    run("curation")
