"""``elysium track``: track objects in a video file, a folder of images, a bag or a camera."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    ExpressionsOption,
    JsonOption,
    LiveVideoArgument,
    TopicOption,
    ZoomOption,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import Progress, say, warn
from elysium_core.cli.track_outputs import check_outputs, open_outputs
from elysium_core.cli.track_run import Targets, TrackRun
from elysium_core.errors import ConfigError
from elysium_core.geometry import Box, parse_box
from elysium_core.io.recording import DEFAULT_FPS, Recording
from elysium_core.io.stop_request import StopRequest
from elysium_core.io.tracks import require_same_run, resume_point
from elysium_core.io.video import open_video
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import MODES, WINDOWS, LoadOptions, TrackingConfig
from elysium_core.tracking.multi_object import ALL_OBJECTS
from elysium_core.types import PerceptionModel, Tracker, TrackUpdate

_DEFAULTS = TrackingConfig()


@with_load_options
def command(
    video: LiveVideoArgument,
    expression: ExpressionsOption = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box", "-b", metavar="X1,Y1,X2,Y2", help="Box of one object in the first frame, 0..1 or px; repeatable."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="S@X1,Y1,X2,Y2", help="One object by words and first box; repeatable."),
    ] = None,
    all_of: Annotated[
        str | None,
        typer.Option("--all", "-a", metavar="NAMES", help="Every object of these names, as in 'person, dog'."),
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help=f"{' or '.join(MODES)}.")] = _DEFAULTS.mode,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the tracks: lines (.jsonl), a table (.csv, .parquet) or a bag (.mcap)."
        ),
    ] = None,
    render: Annotated[Path | None, typer.Option("--render", "-r", help="Draw the tracks: .mp4, .gif or .png.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that wrote --out.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this many frames.")] = None,
    fps: Annotated[float, typer.Option("--fps", help="Frame rate of a folder of images [Hz].")] = DEFAULT_FPS,
    window: Annotated[str, typer.Option("--window", help=f"{', '.join(WINDOWS)}.")] = _DEFAULTS.window,
    clip_length: Annotated[
        int | None, typer.Option("--clip-length", help="Frames the model sees at once; its default if not given.")
    ] = None,
    score_threshold: Annotated[
        float, typer.Option("--score-threshold", help="A box with a lower score is UNCERTAIN.")
    ] = _DEFAULTS.score_threshold,
    zoom: ZoomOption = _DEFAULTS.zoom,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Track objects, given by words or boxes, in a video, bag or camera.

    Each --expression, --box and --target is one target. Targets are numbered from 1:
    expressions first, then boxes, then those with both. With both, tracking starts
    from the box, and the words are used to find the object again after it was lost.
    With --all, everything of the given names is found and followed, newcomers too.
    Ctrl-C stops after the current frame and finishes the files.
    """
    if resume and out is None:
        raise ConfigError("--resume needs --out, the file of the run to continue")
    if all_of is not None and (expression or box or target or resume):
        raise ConfigError("--all does not go with --expression, --box, --target or --resume; run them one by one")
    with open_video(video, fps=fps, topic=topic, allow_network=True) as recording:
        if resume and recording.is_live:
            raise ConfigError(
                f"--resume cannot be used with the camera {recording.name}: its earlier frames are not stored"
            )
        check_outputs(recording, out, render, resume)
        if all_of is not None:
            targets, base = Targets([], []), ALL_OBJECTS
        else:
            targets, base = _read_targets(expression or [], box or [], target or [], recording), _DEFAULTS
        config = replace(
            base,
            mode=mode,
            window=window,
            clip_length=clip_length,
            score_threshold=score_threshold,
            max_targets=max(base.max_targets, len(targets.expressions)),
            zoom=zoom,
        )
        run_note = _run_note(recording, targets, config, all_of)
        done_lines, done = _earlier_run(out, targets, run_note) if resume and out else ([], [])
        loaded = load_model(load)
        run_note["model"] = " ".join((Path(loaded.info.name).name, loaded.info.weights)).rstrip()
        if out and done_lines:
            require_same_run(out, done_lines, run_note)
        tracker = loaded.tracker(mode=mode, config=config) if all_of is None else _track_all(loaded, all_of, config)
        with ExitStack() as stack:
            run = TrackRun(
                recording,
                tracker,
                targets,
                done=done,
                outputs=open_outputs(stack, out, render, recording, done_lines, run_note),
                emit_json=json,
                limit=limit,
            )
            progress = stack.enter_context(Progress("track", limit or recording.frame_count))
            stop = stack.enter_context(StopRequest())
            run.run(progress, stop)
    _report(run, [path for path in (out, render) if path], json)
    if run.problem:
        raise run.problem
    if stop.is_set and not recording.is_live:
        raise typer.Exit(130)


def _read_targets(expressions: list[str], boxes: list[str], both: list[str], recording: Recording) -> Targets:
    if not expressions and not boxes and not both:
        raise ConfigError(
            "say what to track: --expression 'the red mug', --box X1,Y1,X2,Y2, --target 'the red mug@X1,Y1,X2,Y2', "
            "or --all 'person, dog'"
        )
    size = recording.width, recording.height
    words = [clean_expression(text) for text in expressions]
    pairs = [*((text, None) for text in words), *(("", parse_box(text, *size)) for text in boxes)]
    pairs += [_read_target(text, *size) for text in both]
    return Targets([text for text, _ in pairs], [box for _, box in pairs])


def _read_target(text: str, width: int, height: int) -> tuple[str, Box]:
    """Return words and box of one target. The last ``@`` separates them, because words may contain an ``@``."""
    words, separator, box = text.rpartition("@")
    if not separator:
        raise ConfigError(f"--target {text!r} has no '@' between words and box, as in 'the red mug@10,20,60,80'")
    return clean_expression(words), parse_box(box, width, height)


def _track_all(model: PerceptionModel, names: str, config: TrackingConfig) -> Tracker:
    # The model without weights, and those of other projects, know no names.
    make = getattr(model, "tracker_of_all", None)
    if make is None:
        raise ConfigError(f"the model {model.info.name!r} finds nothing by names; --all needs another", code="MODE")
    tracker: Tracker = make(names, config)
    return tracker


def _run_note(recording: Recording, targets: Targets, config: TrackingConfig, all_of: str | None) -> dict[str, Any]:
    """Return what a run tracks, and how, to compare it with the run that is resumed."""
    names = ("mode", "window", "clip_length", "score_threshold", "zoom")
    return {
        "words": list(targets.expressions),
        "boxes": [box and box.as_list() for box in targets.boxes],
        "video": "" if recording.is_live else recording.fingerprint(),
        "fps": recording.fps,
        **{name: getattr(config, name) for name in names},
    } | ({} if all_of is None else {"all": all_of})


def _earlier_run(out: Path, targets: Targets, run: dict[str, Any]) -> tuple[list[str], list[TrackUpdate]]:
    """Return the finished lines of the run to resume, and the same as updates, after a check that it is this run."""
    lines, updates = resume_point(out, targets.ids)
    require_same_run(out, lines, run)
    return lines, updates


def _report(run: TrackRun, written: list[Path], json: bool) -> None:
    warn(run.warnings(), json)
    if not json:
        for line in run.summary():
            say(line)
    for path in written:
        if path.exists():
            sys.stderr.write(f"elysium: wrote {path}\n")
