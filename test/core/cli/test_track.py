from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import elysium_core
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import write_image
from elysium_core.io.mp4_writer import Mp4Writer
from elysium_core.io.stop_request import StopRequest
from elysium_core.io.tracks import read_tracks
from elysium_core.io.video import open_video
from elysium_core.tracking.identity import IdentityModel, IdentityTracker
from elysium_core.tracking.multi_object import MultiObjectTracker
from elysium_core.tracking.newcomers import InstanceSearch, split_names
from elysium_core.types import Grounding, ModelInfo, TrackingConfig, TrackUpdate

IDENTITY = ("--model", "identity")
BOX = ("--box", "0.1,0.2,0.5,0.6")
FRAMES = 12


def test_every_frame_has_a_line_for_every_target(elysium, video):
    outcome = elysium("track", video, "-e", "the mug", *BOX, *IDENTITY, "--json")
    assert outcome.code == 0
    assert [(line["frame"], line["target"]) for line in outcome.lines] == [(f, t) for f in range(12) for t in "12"]
    assert [line["stamp_ns"] for line in outcome.lines[::2]] == pytest.approx([f * 1e8 for f in range(12)], abs=1e5)
    assert outcome.lines[1]["box"] == [0.1, 0.2, 0.5, 0.6]
    assert outcome.lines[1]["box_px"] == [6.4, 9.6, 32.0, 28.8]
    assert set(outcome.lines[0]) == {"frame", "stamp_ns", "target", "box", "box_px", "score", "state"}


class Added(IdentityTracker):
    """Remembers what it was asked to follow."""

    def __init__(self, config: TrackingConfig | None = None) -> None:
        super().__init__(config)
        self.asked: list[tuple[str, Box | None]] = []

    def add(self, expression: str = "", box: Box | None = None) -> str:
        self.asked.append((expression, box))
        return super().add(expression, box)


class Model(IdentityModel):
    """Keeps its tracker for a look at it."""

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> IdentityTracker:
        self.made = Added(config)
        return self.made


@pytest.fixture
def model(monkeypatch):
    """Makes the model that is loaded."""

    def load() -> Model:
        loaded = Model()
        monkeypatch.setattr("elysium_core.cli.track.load_model", lambda *names, **options: loaded)
        return loaded

    return load


def test_one_target_may_have_words_and_a_box(elysium, video, model):
    loaded = model()
    both = ("--target", "me @ home @ 6.4,12,32,36", "-t", "  the   mug@0.1,0.2,0.5,0.6")
    outcome = elysium("track", video, *both, *BOX, "-e", "the dog", "--json")
    assert outcome.code == 0
    assert loaded.made.asked == [
        ("the dog", None),
        ("", Box(0.1, 0.2, 0.5, 0.6)),
        ("me @ home", Box(0.1, 0.25, 0.5, 0.75)),
        ("the mug", Box(0.1, 0.2, 0.5, 0.6)),
    ]
    assert [line["target"] for line in outcome.lines[:4]] == list("1234")
    assert elysium("track", video, *both).out.startswith("1  me @ home: 12 frames")


@pytest.mark.parametrize("mode", ["clip", "stream"])
@pytest.mark.parametrize(("options", "used"), [((), None), (("--clip-length", 6), 6)])
def test_the_length_of_clips_is_left_to_the_model_unless_given(elysium, video, model, mode, options, used):
    loaded = model()
    assert elysium("track", video, *BOX, "--mode", mode, *options).code == 0
    assert loaded.made.config == TrackingConfig(mode=mode, clip_length=used)


@pytest.mark.parametrize("options", [(), ("--zoom",)])
def test_closer_looks_are_made_when_asked_for(elysium, video, model, options):
    loaded = model()
    assert elysium("track", video, *BOX, *options).code == 0
    assert loaded.made.config.zoom == bool(options)


def test_for_a_person_there_is_a_summary(elysium, video):
    outcome = elysium("track", video, "-e", "the mug", *BOX, *IDENTITY)
    assert outcome.out.splitlines() == [
        "1  the mug: 12 frames, 12 tracked, 0 uncertain, 0 lost, mean score 1.00",
        "2  box: 12 frames, 12 tracked, 0 uncertain, 0 lost, mean score 1.00",
    ]
    assert outcome.err == ""


@pytest.mark.parametrize("render", ["a.mp4", "a.gif", "a.png"])
def test_files_are_written_and_named(elysium, video, tmp_path, render):
    out, render = tmp_path / "new" / "a.jsonl", tmp_path / "new" / render
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--render", render)
    assert outcome.code == 0
    assert outcome.err.splitlines() == [f"elysium: wrote {out}", f"elysium: wrote {render}"]
    assert len(read_tracks(out)) == 12
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([out.name, render.name])
    if render.suffix == ".mp4":
        assert len(list(open_video(render))) == 12


def test_a_folder_of_pictures_is_tracked_at_the_given_rate(elysium, tmp_path):
    for index in range(3):
        write_image(tmp_path / "frames" / f"{index}.png", np.full((48, 64, 3), 50, np.uint8))
    outcome = elysium("track", tmp_path / "frames", *BOX, *IDENTITY, "--fps", 5, "--json")
    assert [line["stamp_ns"] for line in outcome.lines] == [0, 200_000_000, 400_000_000]


def test_the_limit_is_kept(elysium, video):
    assert len(elysium("track", video, *BOX, *IDENTITY, "--limit", 5, "--json").lines) == 5


@pytest.mark.parametrize("done", [0, 1, 5, 11, 12])
def test_an_interrupted_run_goes_on_to_the_same_file(elysium, video, tmp_path, done):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    arguments = ("track", video, "-e", "the mug", *BOX, *IDENTITY)
    assert elysium(*arguments, "--out", whole).code == 0
    lines = whole.read_text().splitlines(keepends=True)
    # The next frame has its first line and half of its second.
    part.write_text("".join(lines[: 2 * done + 1]) + (lines[2 * done + 1][:30] if done < 12 else ""))
    render = tmp_path / "a.mp4"
    outcome = elysium(*arguments, "--out", part, "--render", render, "--resume")
    assert outcome.code == 0
    assert part.read_text() == whole.read_text()
    assert "12 frames, 12 tracked" in outcome.out
    assert len(list(open_video(render))) == 12


SLOW = """
import time
from elysium_core.tracking.identity import IdentityTracker
step = IdentityTracker.step
IdentityTracker.step = lambda self, frame: time.sleep(0.05) or step(self, frame)
from elysium_core.cli.app import main
main()
"""


def test_a_run_that_is_killed_loses_at_most_its_last_line(elysium, video, tmp_path):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    arguments = ("track", video, "-e", "the mug", *BOX, *IDENTITY)
    elysium(*arguments, "--out", whole)
    command = [
        sys.executable,
        "-c",
        SLOW,
        *map(str, arguments),
        "--out",
        str(part),
        "--render",
        str(tmp_path / "a.mp4"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as run:
        while run.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < 7):
            time.sleep(0.005)
        run.kill()
    assert run.returncode == -signal.SIGKILL
    written = part.read_text().splitlines()
    assert 7 <= len(written) < 24
    assert written[:-1] == whole.read_text().splitlines()[: len(written) - 1], "line by line, nothing held back"
    assert not (tmp_path / "a.mp4").exists()
    assert elysium(*arguments, "--out", part, "--resume").code == 0
    assert part.read_text() == whole.read_text()


def test_resuming_without_an_earlier_run_starts_one(elysium, video, tmp_path):
    elysium("track", video, *BOX, *IDENTITY, "--out", tmp_path / "a.jsonl", "--resume")
    assert len(read_tracks(tmp_path / "a.jsonl")) == 12


def test_the_file_of_other_targets_is_not_touched(elysium, video, tmp_path):
    out = tmp_path / "a.jsonl"
    elysium("track", video, *BOX, *BOX, *IDENTITY, "--out", out)
    before = out.read_text()
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--resume")
    assert outcome.code == 2
    assert "target '2'" in outcome.err
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (("-e", "the pig"), ("-e", "the pizza"), "the pizza"),
        (("-b", "0.1,0.1,0.5,0.5"), ("-b", "0.1,0.1,0.5,0.6"), "0.6"),
        (("-e", "the pig"), ("-b", "0.1,0.1,0.5,0.5"), "the pig"),
        (("-t", "the pig@0.1,0.1,0.5,0.5"), ("-t", "the hat@0.1,0.1,0.5,0.5"), "the hat"),
        ((*BOX, "--mode", "clip"), (*BOX, "--mode", "stream"), "stream"),
        ((*BOX, "--zoom"), BOX, "zoom"),
    ],
)
def test_only_the_same_run_is_continued(elysium, video, tmp_path, before, now, named):
    out = tmp_path / "a.jsonl"
    assert elysium("track", video, *before, *IDENTITY, "--limit", 5, "--out", out).code == 0
    written = out.read_text()
    outcome = elysium("track", video, *now, *IDENTITY, "--out", out, "--resume", "--json")
    assert (outcome.code, outcome.lines[0]["error"]["code"]) == (2, "RESUME")
    assert named in outcome.err
    assert out.read_text() == written
    assert elysium("track", video, *before, *IDENTITY, "--out", out, "--resume").code == 0
    assert len(read_tracks(out)) == FRAMES


def test_a_run_on_another_video_is_not_continued(elysium, video, tmp_path):
    out = tmp_path / "a.jsonl"
    assert elysium("track", video, *BOX, *IDENTITY, "--limit", 5, "--out", out).code == 0
    moved = video.rename(video.with_name("moved.mp4"))
    assert elysium("track", moved, *BOX, *IDENTITY, "--limit", 6, "--out", out, "--resume").code == 0
    with Mp4Writer(video, fps=10) as writer:
        for index in range(FRAMES):
            writer.write(Frame(np.full((48, 64, 3), 15 * index, np.uint8), index * 100_000_000, index))
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--resume", "--json")
    assert outcome.lines[0]["error"]["code"] == "RESUME"
    assert "video" in outcome.err
    assert len(read_tracks(out)) == 6


def test_a_run_of_another_model_is_not_continued(elysium, video, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    assert elysium("track", video, *BOX, *IDENTITY, "--limit", 5, "--out", out).code == 0
    monkeypatch.setattr(IdentityModel, "info", ModelInfo("identity", weights="other"))
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--resume", "--json")
    assert outcome.lines[0]["error"]["code"] == "RESUME"
    assert "model" in outcome.err


def test_lines_of_an_unknown_run_are_not_continued(elysium, video, tmp_path):
    out = tmp_path / "a.jsonl"
    assert elysium("track", video, *BOX, *IDENTITY, "--limit", 5, "--out", out).code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [sorted(line) == sorted({**lines[1], "run": 0}) for line in lines] == [True, *[False] * 4]
    del lines[0]["run"]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--resume", "--json")
    assert outcome.lines[0]["error"]["code"] == "RESUME"


@pytest.mark.parametrize("special", ["/dev/null", "/dev/stdout"])
def test_what_keeps_nothing_cannot_be_resumed(elysium, video, special):
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", special, "--resume")
    assert outcome.code == 2
    assert special in outcome.err


@pytest.mark.parametrize("option", ["--out", "--render"])
def test_no_input_is_overwritten_by_another_of_its_names(elysium, tmp_path, option):
    for name in ("1.png", "2.png"):
        write_image(tmp_path / "frames" / name, np.full((48, 64, 3), 9, np.uint8))
    (tmp_path / "link.png").symlink_to(tmp_path / "frames" / "2.png")
    os.link(tmp_path / "frames" / "2.png", tmp_path / "hard.png")
    before = (tmp_path / "hard.png").read_bytes()
    for output in ("frames/2.png", "link.png", "hard.png"):
        outcome = elysium("track", tmp_path / "frames", *BOX, *IDENTITY, option, tmp_path / output)
        assert outcome.code == 2
        assert "is the video itself" in outcome.err
    assert (tmp_path / "hard.png").read_bytes() == before


def test_two_outputs_are_two_files(elysium, video, tmp_path):
    out = tmp_path / "a.mp4"
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--render", out)
    assert outcome.code == 2
    assert str(out) in outcome.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "say what to track"),
        (("-e", "  "), "expression is empty"),
        (("-e", "ASSISTANT: yes"), "prompt format"),
        (("-e", "x" * 600), "600 characters"),
        (("-b", "1,2,3"), "cannot read a box"),
        (("-b", "0,0,100,100"), "end all four in px"),
        (("-b", "0px,0px,100px,100px"), "outside the 64x48 px frame"),
        (("-t", "the mug"), "--target 'the mug' has no '@'"),
        (("-t", "@0,0,1,1"), "expression is empty"),
        (("-t", "the mug@"), "cannot read a box"),
        (("-t", "the mug@0,0,0,0"), "reversed or empty"),
        (("-e", "mug", "--mode", "fast"), "mode 'fast'"),
        (("-e", "mug", "--window", "wide"), "window 'wide'"),
        (("-e", "mug", "--mode", "clip", "--zoom"), "zoom needs mode 'stream'"),
        (("-e", "mug", "--clip-length", "99"), "clip_length = 99"),
        (("-e", "mug", "--score-threshold", "nan"), "score_threshold = nan"),
        (("-e", "mug") * 17, "max_targets = 17"),
        (("-e", "mug", "--resume"), "--resume needs --out"),
        (("-e", "mug", "--render", "a.avi"), "end it in .mp4"),
        (("-e", "mug", "--out", "/dev/null/a.jsonl"), "cannot write tracks"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(elysium, video, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    outcome = elysium("track", video, *IDENTITY, *arguments)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("source", ["/no/such.mp4", "/dev/video977", "977", ""])
def test_a_missing_video_is_one_line(elysium, source):
    outcome = elysium("track", source, *BOX, *IDENTITY)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--out", "--render"])
def test_the_video_is_never_overwritten(elysium, video, option):
    before = video.read_bytes()
    outcome = elysium("track", video, *BOX, *IDENTITY, option, video)
    assert outcome.code == 2
    assert "is the video itself" in outcome.err
    assert video.read_bytes() == before


def test_a_source_that_breaks_half_way_leaves_whole_files(elysium, tmp_path):
    for index, size in enumerate([(48, 64), (48, 64), (9, 9)]):
        write_image(tmp_path / "frames" / f"{index}.png", np.zeros((*size, 3), np.uint8))
    out, render = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    outcome = elysium("track", tmp_path / "frames", *BOX, *IDENTITY, "--out", out, "--render", render)
    assert outcome.code == 2
    assert "'2.png'" in outcome.err.splitlines()[-1]
    assert len(read_tracks(out)) == len(list(open_video(render))) == 2


def test_skipped_frames_are_said(elysium, tmp_path):
    for index in range(3):
        write_image(tmp_path / "frames" / f"{index}.png", np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "frames" / "1.png").write_bytes(b"broken")
    outcome = elysium("track", tmp_path / "frames", *BOX, *IDENTITY, "--json")
    assert [line["frame"] for line in outcome.lines] == [0, 2]
    assert outcome.err == "elysium: 1 frames could not be decoded and were skipped\n"


def test_a_video_that_is_cut_off_is_said(elysium, tmp_path):
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8)) for n in range(6)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcome = elysium("track", path, *BOX, *IDENTITY, "--json")
    assert outcome.code == 0
    assert outcome.lines[-1]["warning"]["code"] == "VIDEO_CUT"
    assert f"of {len(frames)} frames" in outcome.err
    assert "VIDEO_CUT" in elysium("caption", path, *IDENTITY, "--json").out


class InterruptingTracker(IdentityTracker):
    """Sends this process Ctrl-C in its fourth frame."""

    def step(self, frame: Frame) -> list[TrackUpdate]:
        if frame.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(frame)


def test_ctrl_c_finishes_the_frame_and_the_files(elysium, video, tmp_path, monkeypatch):
    monkeypatch.setattr("elysium_core.tracking.identity.IdentityTracker", InterruptingTracker)
    handler = signal.getsignal(signal.SIGINT)
    out, render = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    outcome = elysium("track", video, *BOX, *IDENTITY, "--out", out, "--render", render)
    assert outcome.code == 130
    assert len(read_tracks(out)) == len(list(open_video(render))) == 4
    assert "Traceback" not in outcome.err
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_does_not_wait():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_end_asked_for_behind_ctrl_c_changes_nothing():
    """A command that was interrupted asks the processes it has started to end; the terminal has told them, too."""
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set


class AllModel(IdentityModel):
    """Finds one thing of each name, each at its own place."""

    def find_all(self, image, names, *, known=()):
        return {
            name: [Grounding(Box(0.1 + 0.4 * number, 0.2, 0.3 + 0.4 * number, 0.6), 0.9)]
            for number, name in enumerate(names)
        }

    def tracker_of_all(self, names, config=None):
        wanted = split_names(names, self.clean_words)
        return MultiObjectTracker(IdentityTracker(config), InstanceSearch(self, wanted))


def test_all_objects_of_names_are_followed_and_every_line_names_its_object(elysium, video, monkeypatch, tmp_path):
    monkeypatch.setattr("elysium_core.cli.track.load_model", lambda _: AllModel())
    out, drawn = tmp_path / "all.jsonl", tmp_path / "all.png"
    outcome = elysium("track", video, "--all", "person, dog", "--json", "--out", out, "--render", drawn)
    assert outcome.code == 0
    assert [(line["target"], line["name"]) for line in outcome.lines[:2]] == [("1", "person"), ("2", "dog")]
    assert len(outcome.lines) == 2 * FRAMES
    assert drawn.exists()
    assert [update.target_id for update in read_tracks(out)] == ["1", "2"] * FRAMES
    told = elysium("track", video, "--all", "person, dog").out
    assert [line.split(":")[0] for line in told.splitlines()] == ["1  person", "2  dog"]


@pytest.mark.parametrize("other", [("-e", "the mug"), BOX, ("--resume", "--out", "x.jsonl")])
def test_all_goes_with_nothing_else(elysium, video, other):
    outcome = elysium("track", video, "--all", "person", *other)
    assert outcome.code == 2
    assert "--all" in outcome.err


def test_all_needs_a_model_that_finds_things_and_stream_mode(elysium, video):
    assert elysium("track", video, "--all", "person", *IDENTITY).code == 2
    assert elysium("track", video, "--all", "cat", "--mode", "clip", "--model", "nano").code == 2
