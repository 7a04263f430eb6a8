"""Plays a recording to the tracker node, and reports how well it followed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from elysium_core.errors import ConfigError, ElysiumError, VideoError
from elysium_core.geometry import Box, parse_box
from elysium_core.io.files import atomic_path
from elysium_core.io.frame_writer import FrameWriter
from elysium_core.io.render import open_writer
from elysium_core.io.tracks import TrackWriter
from elysium_core.io.video import open_video
from elysium_core.prompt.expression import clean_expression
from elysium_ros.demo.recorder import Answer, Recorder
from elysium_ros.demo.report import TRUTH_NAME, VIDEO_NAME, Report, Truth, percentile, read_truth, summarize_target
from elysium_ros.demo.stage import DemoError, Outcome, Play, Wish, perform, say

PICTURES = ("annotated.mp4", "annotated.gif", "contact_sheet.png")
TRACKS_NAME, REPORT_NAME = "tracks.jsonl", "report.json"

PHOTOS, DRAWINGS = "photos", "drawings"
# The demo asks for this many of the recording's objects, one after the other.
_ASKED = 2
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is played, and what is known about it."""

    play: Play
    truth: Truth | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: Arguments without the program's name; those of the process if omitted.

    Returns:
        0 if every target was tracked, and better than a frozen first box where the truth is
        known; 1 if not; 2 for bad input; 130 when interrupted. The reason is one sentence on stderr.
    """
    args = _parser().parse_args(argv)
    try:
        scene = _scene(args)
    except ElysiumError as error:
        say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        failure = _run(scene, args.out)
    except ElysiumError as error:
        failure = str(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    if failure:
        say(f"FAILED: {failure}")
    return FAILED if failure else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elysium_ros.demo", description="Follow named objects through real ROS 2.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--video", help="a video file or a folder of images; a generated recording if omitted")
    source.add_argument("--recording", type=Path, help=f"a folder with {VIDEO_NAME} and {TRUTH_NAME}")
    parser.add_argument(
        "--expression", action="append", default=[], help="what to follow in --video; several are asked in turn"
    )
    parser.add_argument("--box", help="X1,Y1,X2,Y2 of the first target in the first frame: fractions 0..1, or pixels")
    parser.add_argument(
        "--model", default="real", help="real, nano, a checkpoint folder, or identity (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second; as recorded if omitted")
    parser.add_argument(
        "--scene", choices=(PHOTOS, DRAWINGS), help="of the generated recording (default: what the model knows)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the generated recording (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo/out"), help="folder (default: %(default)s)")
    return parser


def _scene(args: argparse.Namespace) -> _Scene:
    """Find out what to play; everything that can be wrong with the arguments is found here."""
    if args.video is None:
        if args.expression or args.box:
            raise ConfigError("--expression and --box need --video; the generated recording has sentences of its own")
        folder = args.recording or _generated(args.out / "recording", args.seed, args.scene or _scene_for(args.model))
        truth = read_truth(folder / TRUTH_NAME)
        asked = truth.objects[:_ASKED]
        first_box = None if asked[0].expression else asked[0].boxes[0]
        return _opened(folder / VIDEO_NAME, [item.expression for item in asked], args, truth, first_box)
    if not args.expression and not args.box:
        raise ConfigError("--video needs --expression 'what to follow', or --box")
    return _opened(Path(args.video), args.expression or [""], args, None, None)


def _scene_for(model: str) -> str:
    """The recording that shows what a model knows."""
    return DRAWINGS if model == "nano" else PHOTOS


def _generated(folder: Path, seed: int, scene: str) -> Path:
    from elysium_core.data.photos.photo_recording import write_photo_recording
    from elysium_core.data.synthetic.demo_clip import write_demo_recording

    say(f"generating a recording with known truth in {folder}")
    (write_photo_recording if scene == PHOTOS else write_demo_recording)(folder, seed)
    return folder


def _opened(
    video: Path, expressions: Sequence[str], args: argparse.Namespace, truth: Truth | None, first_box: Box | None
) -> _Scene:
    with open_video(video) as recording:
        if recording.is_live:
            raise VideoError(f"{recording.name} is a camera, which has no end; play a file")
        width, height, fps, count = recording.width, recording.height, recording.fps, recording.frame_count or 0
    box = parse_box(args.box, width, height) if args.box else first_box
    words = [clean_expression(text) if text or box is None else "" for text in expressions]
    wishes = [
        Wish(text, box if number == 0 else None, number * count // (len(words) + 1))
        for number, text in enumerate(words)
    ]
    return _Scene(Play(video, width, height, fps, wishes, args.model, args.device, args.rate), truth)


def _run(scene: _Scene, out: Path) -> str:
    """Play, write the results, print the table; return why it failed, empty if it did not."""
    _clear(out)
    with ExitStack() as stack:
        writers: list[FrameWriter] = [
            stack.enter_context(open_writer(out / name, scene.play.sent_hz)) for name in PICTURES
        ]
        outcome = perform(scene.play, writers, out)
    answers = outcome.recorder.answers()
    _write_tracks(out / TRACKS_NAME, answers)
    if scene.truth is not None and outcome.recorder.sent > scene.truth.frame_count:
        raise DemoError(f"the camera sent {outcome.recorder.sent} frames of a video of {scene.truth.frame_count}")
    report = _report(scene, outcome, answers)
    with atomic_path(out / REPORT_NAME) as path:
        path.write_text(json.dumps(report.as_json(), indent=2) + "\n", "utf-8")
    if 2 * report.answered < report.sent:
        rate_hz = max(1, int(scene.play.sent_hz * report.answered / report.sent))
        say(f"this machine is slow or busy: most frames were skipped; --rate {rate_hz} plays the video slower")
    sys.stdout.write(report.as_table() + f"\n\nwritten to {out}/: {', '.join([*PICTURES, TRACKS_NAME, REPORT_NAME])}\n")
    say(f"to follow things in it yourself, in the browser: {_elysium()} view {scene.play.video}")
    return report.failure


def _elysium() -> str:
    """Return the command as it can be typed here: that of this environment, or else the one on the PATH."""
    path, here = Path(sys.executable).with_name("elysium"), Path.cwd()
    if not path.is_file():
        return "elysium"
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _clear(out: Path) -> None:
    """Remove the results of an earlier run: a run that fails must not leave them as its own."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (*PICTURES, TRACKS_NAME, REPORT_NAME):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise DemoError(f"cannot write to {str(out)!r}: {error.strerror}; choose another folder with --out") from error


def _write_tracks(path: Path, answers: Sequence[Answer]) -> None:
    with TrackWriter(path) as writer:
        for answer in answers:
            for update in answer.updates:
                writer.write(update, answer.width, answer.height)


def _report(scene: _Scene, outcome: Outcome, answers: Sequence[Answer]) -> Report:
    recorder: Recorder = outcome.recorder
    latencies_s = [answer.latency_s for answer in answers]
    targets = []
    for number, (target_id, wish) in enumerate(zip(outcome.target_ids, scene.play.wishes, strict=True)):
        updates = [update for answer in answers for update in answer.updates if update.target_id == target_id]
        objects = scene.truth.objects if scene.truth else ()
        truth = objects[number] if objects else None
        others = [item for item in objects if item is not truth]
        targets.append(summarize_target(target_id, wish.expression, updates, truth, others))
    return Report(
        # The camera ended by itself, so it has sent all; what it said about the last frames may be lost.
        sent=scene.truth.frame_count if scene.truth else recorder.sent,
        answered=len(answers),
        dropped=sum(answer.dropped for answer in answers),
        latency_p50_s=percentile(latencies_s, 50),
        latency_p95_s=percentile(latencies_s, 95),
        targets=targets,
    )
