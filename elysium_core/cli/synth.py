"""``elysium synth``: write generated videos with ground truth; ``--split test`` writes the frozen test set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.data.synthetic import testset
from elysium_core.data.synthetic.clips import ClipSource, TrainingClips
from elysium_core.data.synthetic.scene import MAX_SIDE_PX, MIN_SIDE_PX
from elysium_core.data.synthetic.writer import claim_folder, write_shards, write_track_files
from elysium_core.errors import ConfigError
from elysium_core.io.stop_request import StopRequest

SPLITS = ("train", "test")
_DEFAULTS = TrainingClips()
_DEFAULT_CLIPS = 1000
_FIELDS = {"side": "side_px", "twins": "twin_share", "dyed": "dye_share"}

Work = list[tuple[ClipSource, int]]
"""Clip sources, each with the number of clips to write."""


def command(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Output folder; an interrupted run in it is continued.")
    ],
    split: Annotated[str, typer.Option("--split", help="train, or test: the frozen test set.")] = SPLITS[0],
    clips: Annotated[
        int | None,
        typer.Option("--clips", min=1, help=f"Number of clips; {_DEFAULT_CLIPS}, or all of each part for test."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, max=1000, help=f"Frames per clip; {_DEFAULTS.frames}. (train)")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help=f"{_DEFAULTS.seed}. (train)")] = None,
    objects: Annotated[
        tuple[int, int] | None, typer.Option("--objects", metavar="MIN MAX", help="Objects per clip; 1 4. (train)")
    ] = None,
    gap: Annotated[
        tuple[float, float] | None,
        typer.Option("--gap", metavar="MIN MAX", help="Time between frames; 0.5 2.5, see docs/data.md. (train)"),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(
            "--side", min=MIN_SIDE_PX, max=MAX_SIDE_PX, help=rf"Side of the frames \[px]; {_DEFAULTS.side_px}. (train)"
        ),
    ] = None,
    names: Annotated[
        int | None, typer.Option("--names", min=2, help=f"Size of the vocabulary; {_DEFAULTS.names}. (train)")
    ] = None,
    twins: Annotated[
        float | None,
        typer.Option(
            "--twins",
            metavar="SHARE",
            help=f"Share of clips with two objects of one name, 0..1; {_DEFAULTS.twin_share:g}. (train)",
        ),
    ] = None,
    dyed: Annotated[
        float | None,
        typer.Option(
            "--dyed", metavar="SHARE", help=f"Share of recoloured objects, 0..1; {_DEFAULTS.dye_share:g}. (train)"
        ),
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Tar shards (webdataset) instead of folders.")] = False,
    json: JsonOption = False,
) -> None:
    """Write generated clips: frames as PNG, and one JSON line per object as in ElysiumTrack.

    The same options give the same clips: clip 7 of 10 equals clip 7 of 10000. Ctrl-C
    stops after the current clip; the same command continues the run.
    """
    given: dict[str, Any] = {"frames": frames, "seed": seed, "objects": objects, "gap": gap, "side": side}
    given |= {"names": names, "twins": twins, "dyed": dyed}
    work, settings = _plan(split, clips, {name: value for name, value in given.items() if value is not None})
    claim_folder(out, settings | {"shards": shards})
    write = write_shards if shards else write_track_files
    with Progress("synth", sum(count for _, count in work)) as progress, StopRequest() as stop:
        written = _write(work, write, out, progress, stop)
    if stop.is_set:
        sys.stderr.write(f"elysium: stopped after {written} clips; the same command continues\n")
        raise typer.Exit(130)
    if split == "test":
        _check_pixels()
    if json:
        emit({"out": str(out), "split": split, "clips": written})
    else:
        say(f"{written} clips are in {out}")


def _plan(split: str, clips: int | None, given: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Return the clip sources to write, and the settings that determine the clips."""
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if split == "test":
        if given:
            raise ConfigError(f"the test set is frozen: leave out {', '.join('--' + name for name in given)}")
        return [(part, min(part.clips, clips or part.clips)) for part in testset.PARTS], {"split": split}
    source = TrainingClips(**{_FIELDS.get(name, name): value for name, value in given.items()})
    settings = {
        "split": split,
        "frames": source.frames,
        "seed": source.seed,
        "objects": source.objects,
        "gap": source.gap,
        "side_px": source.side_px,
        "names": source.names,
        "twin_share": source.twin_share,
        "dye_share": source.dye_share,
    }
    return [(source, clips or _DEFAULT_CLIPS)], settings


def _write(
    work: Work,
    write: Callable[[ClipSource, int, Path], Iterator[str]],
    out: Path,
    progress: Progress,
    stop: StopRequest,
) -> int:
    written = 0
    for source, count in work:
        for name in write(source, count, out):
            written += 1
            progress.advance(name)
            if stop.is_set:
                return written
    return written


def _check_pixels() -> None:
    changed = [part.name for part in testset.PARTS if not testset.is_as_frozen(part)]
    if changed:
        sys.stderr.write(
            f"elysium: the pixels of {', '.join(changed)} differ from the frozen test set on this machine (another "
            "processor or another OpenCV); scores may differ a little from published ones\n"
        )
