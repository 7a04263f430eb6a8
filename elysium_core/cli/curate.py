"""``elysium curate``: make referring tracks from captioned videos, or report what was kept and rejected."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.cli.registry import CONTEXT_SETTINGS
from elysium_core.curation.box_followers import DEFAULT_FOLLOWER
from elysium_core.curation.captioned_videos import CaptionedVideo, count_videos, read_captions
from elysium_core.curation.chunk_detectors import DEFAULT_DETECTOR
from elysium_core.curation.curated_files import write_curated_shards, write_lines
from elysium_core.curation.curated_frames import remove_drafts
from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.curation_report import advice, as_json, estimate, guess, report_lines, write_curation_report
from elysium_core.curation.curation_rules import CurationRules
from elysium_core.curation.curation_run import CurationJob, Pace, Work, run_curation, work_here
from elysium_core.curation.curation_tools import SPACY, ToolNames
from elysium_core.curation.evaluation_split import VAL_VIDEOS, read_decisions, write_review_page, write_split
from elysium_core.errors import ConfigError
from elysium_core.io.sampling import even_positions
from elysium_core.io.stop_request import StopRequest

_RULES = CurationRules()


class CurateGroup(TyperGroup):
    """``elysium curate VIDEOS`` is short for ``elysium curate run VIDEOS``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the verb ``run`` if the first word is not a verb: it is the folder of the videos."""
        if args and args[0] not in ("-h", "--help") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=CurateGroup, add_completion=False, context_settings=CONTEXT_SETTINGS, no_args_is_help=False)


@app.callback(invoke_without_command=True)
def _curate(context: typer.Context) -> None:
    """Make referring tracks from captioned videos (paper, section 3.2), or report what was kept and rejected."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("run")
def run(
    videos: Annotated[Path, typer.Argument(metavar="VIDEOS", help="Folder of the videos.")],
    captions: Annotated[
        Path, typer.Option("--captions", metavar="FILE", help="Captions: .csv (WebVid's too) or .jsonl.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder; an interrupted run in it is continued.")
    ],
    detector: Annotated[
        str, typer.Option("--detector", help="Folder or hub id of an open-vocabulary detector, or plugin:MODULE:NAME.")
    ] = DEFAULT_DETECTOR,
    tracker: Annotated[
        str,
        typer.Option(
            "--tracker",
            help="real, nano, a folder or hub id, sam2:MODEL, opencv:CSRT, vit:FILE.onnx, or plugin:MODULE:NAME.",
        ),
    ] = DEFAULT_FOLLOWER,
    parser: Annotated[str, typer.Option("--parser", help="spacy, or plugin:MODULE:NAME.")] = SPACY,
    device: Annotated[
        str, typer.Option("--device", help="For detector and tracker: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    detection_score: Annotated[
        float, typer.Option("--detection-score", help="A detected box needs a higher score.", rich_help_panel="Gates")
    ] = _RULES.detection_score,
    track_score: Annotated[
        float, typer.Option("--track-score", help="The tracker needs a higher score.", rich_help_panel="Gates")
    ] = _RULES.track_score,
    largest_jump: Annotated[
        float,
        typer.Option("--largest-jump", help="Most drift, in lengths of the box.", rich_help_panel="Gates"),
    ] = _RULES.largest_jump,
    least_iou: Annotated[
        float, typer.Option("--least-iou", help="Least IoU of track and detection.", rich_help_panel="Gates")
    ] = _RULES.least_iou,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Use every n-th frame only.", rich_help_panel="Gates")
    ] = _RULES.every,
    most_frames: Annotated[
        int, typer.Option("--most-frames", min=3, help="Leave longer videos out.", rich_help_panel="Gates")
    ] = _RULES.most_frames,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Workers; more than one needs Ray.", rich_help_panel="Scale")
    ] = 1,
    gpus: Annotated[
        float, typer.Option("--gpus", min=0, help="GPUs a worker, for example 0.5.", rich_help_panel="Scale")
    ] = 0.0,
    address: Annotated[
        str, typer.Option("--address", help="Ray cluster, such as auto or ray://HOST:10001.", rich_help_panel="Scale")
    ] = "",
    dry_run: Annotated[
        int | None,
        typer.Option("--dry-run", metavar="N", min=1, help="Curate N videos, print yield and cost, keep nothing."),
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Also write tar shards (webdataset).")] = False,
    json: JsonOption = False,
) -> None:
    """Make referring tracks from captioned videos.

    Bad videos and captions are counted and named; nothing stops the run. Ctrl-C stops it after
    the current video; the same command continues it.
    """
    rules = CurationRules(detection_score, track_score, largest_jump, least_iou, every, most_frames)
    tools = ToolNames(detector, tracker, parser, device)
    total = count_videos(captions)
    if not total:
        raise ConfigError(f"{str(captions)!r} holds no videos; it needs a line for each")
    # Workers of Ray run in another folder.
    entries = read_captions(captions, videos.resolve())
    if dry_run is not None:
        with tempfile.TemporaryDirectory(prefix="elysium-curate-") as folder:
            chosen = even_positions(total, dry_run)
            job = CurationJob(tools, rules, Path(folder).resolve())
            with CurationLedger(Path(folder), write=True) as ledger, _started(job, 1, 0.0, "") as work:
                _run(_picked(entries, chosen), len(chosen), work, ledger)
                _tell(ledger, total, workers, json)
        return
    job = CurationJob(tools, rules, out.resolve())
    with CurationLedger(out, write=True) as ledger:
        ledger.claim(job.settings())
        remove_drafts(out)
        done = sum(ledger.counts("outcome").values())
        left = max(0, total - done)
        if done:
            sys.stderr.write(f"elysium: {done} of {total} videos are done\n")
        sentence = estimate(ledger, left, workers).as_sentence() if done else guess(total, workers)
        sys.stderr.write(f"elysium: {sentence}\n")
        with _started(job, workers, gpus, address) as work:
            stopped = _run(entries, left, work, ledger)
        path, tracks = write_lines(ledger, out)
        tars = list(write_curated_shards(ledger, out)) if shards else []
        written = write_curation_report(ledger, out)
        if json:
            emit({"out": str(path), "tracks": tracks, "shards": len(tars), **as_json(ledger)})
        else:
            say(f"{tracks} tracks are in {path}")
        for sentence in (*(f"wrote {file}" for file in written), advice(ledger)):
            if sentence:
                sys.stderr.write(f"elysium: {sentence}\n")
    if stopped:
        sys.stderr.write("elysium: stopped; the same command continues\n")
        raise typer.Exit(130)


@app.command("report")
def report(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that elysium curate wrote.")],
    json: JsonOption = False,
) -> None:
    """Report what was kept and what was rejected by each gate, with contact sheets; also while a run goes on."""
    with CurationLedger(out) as ledger:
        if json:
            emit(as_json(ledger))
        else:
            for line in report_lines(ledger):
                say(line)
        for path in write_curation_report(ledger, out):
            sys.stderr.write(f"elysium: wrote {path}\n")


@app.command("split")
def split(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that elysium curate wrote.")],
    decisions: Annotated[
        Path | None, typer.Option("--decisions", metavar="FILE", help="What a person decided on the page.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Videos for evaluation.")] = VAL_VIDEOS,
    json: JsonOption = False,
) -> None:
    """Make a split for evaluation: tracks whose words name one object only, by the detector and by a person.

    Without --decisions it writes a page on which a person decides by keys.
    """
    with CurationLedger(out) as ledger:
        if decisions is None:
            page, tracks = write_review_page(ledger, out, count)
            if json:
                emit({"page": str(page), "tracks": tracks})
            else:
                say(f"decide about {tracks} tracks: open {page}")
            return
        files = write_split(ledger, out, read_decisions(decisions), count)
    told = {"val": str(files.val), "val_lines": files.val_lines, "train": str(files.train)}
    if json:
        emit(told | {"train_lines": files.train_lines})
    else:
        say(f"{files.val_lines} tracks are in {files.val}, {files.train_lines} of other videos in {files.train}")


@contextmanager
def _started(job: CurationJob, workers: int, gpus: float, address: str) -> Iterator[Work]:
    if workers == 1 and not address and not gpus:
        yield work_here(job)
        return
    from elysium_core.curation.curation_ray import RayPool, stop_ray, work_on_ray

    work = work_on_ray(job, RayPool(workers, gpus, address=address))
    try:
        yield work
    finally:
        stop_ray()


def _run(entries: Iterator[CaptionedVideo], count: int, work: Work, ledger: CurationLedger) -> bool:
    """Curate until the end or Ctrl-C; return whether it was stopped."""
    pace = Pace(count)
    with Progress("curate", count) as progress, StopRequest() as stop:
        for result in run_curation(entries, work, ledger):
            progress.advance(pace.note(result))
            if stop.is_set:
                return True
    return False


def _picked(entries: Iterator[CaptionedVideo], positions: list[int]) -> Iterator[CaptionedVideo]:
    wanted = set(positions)
    return (video for number, video in enumerate(entries) if number in wanted)


def _tell(ledger: CurationLedger, total: int, workers: int, json: bool) -> None:
    cost = estimate(ledger, total, workers)
    if sentence := advice(ledger):
        sys.stderr.write(f"elysium: {sentence}\n")
    if json:
        emit({"estimate": {"videos": total, "workers": workers, "days": cost.days}, **as_json(ledger)})
        return
    for line in report_lines(ledger):
        say(line)
    say("")
    say(cost.as_sentence())
