"""The demo as a whole, with the model that never moves: it must run to its end and then say no."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from elysium_core.frames import Frame
from elysium_core.io.render import open_writer
from elysium_core.io.tracks import read_tracks
from elysium_core.io.video import open_video
from elysium_core.types import TrackState
from elysium_ros.client.node_process import NodeProcess, NodeProcessError, claim_domain
from elysium_ros.client.tracker_client import wait_until
from elysium_ros.demo import stage
from elysium_ros.demo.demo import BAD_INPUT, FAILED, main
from elysium_ros.demo.report import TRUTH_NAME, VIDEO_NAME

FRAMES, FPS, WIDTH, HEIGHT, SIDE = 20, 20, 160, 120, 24
RESULTS = {"annotated.mp4", "annotated.gif", "contact_sheet.png", "tracks.jsonl", "report.json"}


def corner(name: str, index: int) -> tuple[int, int]:
    return (10 + 4 * index, 20) if name == "red" else (120 - 4 * index, 80)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red square goes right and a blue one goes left, on gray."""
    folder = tmp_path_factory.mktemp("recording")
    objects = []
    for name in ("red", "blue"):
        corners = [corner(name, index) for index in range(FRAMES)]
        boxes = [[x / WIDTH, y / HEIGHT, (x + SIDE) / WIDTH, (y + SIDE) / HEIGHT] for x, y in corners]
        objects.append({"name": name, "expression": f"the {name} square", "boxes": boxes})
    truth = {"fps": FPS, "width": WIDTH, "height": HEIGHT, "objects": objects}
    (folder / TRUTH_NAME).write_text(json.dumps(truth))
    with open_writer(folder / VIDEO_NAME, FPS) as writer:
        for index in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
            for name, color in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
                x, y = corner(name, index)
                image[y : y + SIDE, x : x + SIDE] = color
            writer.write(Frame(image, round(index * 1e9 / FPS), index))
    return folder


def test_a_model_that_does_not_follow_fails_the_demo(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recording", str(recording), "--model", "identity", "--out", str(tmp_path)]) == FAILED
    said = capsys.readouterr()
    assert "no better than a frozen first box" in said.err
    assert f"{FRAMES} sent" in said.out
    assert f"elysium view {recording / VIDEO_NAME}" in said.err
    assert {path.name for path in tmp_path.iterdir()} >= RESULTS
    report = json.loads((tmp_path / "report.json").read_text())
    assert [target["expression"] for target in report["targets"]] == ["the red square", "the blue square"]
    assert report["sent"] == FRAMES
    assert report["answered"] + report["dropped"] + report["lost"] == FRAMES


def test_frames_are_recognised_by_their_stamps(recording: Path, tmp_path: Path) -> None:
    box = "10,20,34,44"
    arguments = ["--video", str(recording / VIDEO_NAME), "--box", box, "--model", "identity", "--out", str(tmp_path)]
    assert main(arguments) == 0
    updates = read_tracks(tmp_path / "tracks.jsonl")
    assert {update.state for update in updates} == {TrackState.TRACKED}
    # The camera holds the first frame while the box is asked for, so the schedule starts with the second.
    later = [update for update in updates if update.frame_index > 0]
    start_ns = later[0].stamp_ns - later[0].frame_index * 10**9 // FPS
    assert all(update.stamp_ns == start_ns + update.frame_index * 10**9 // FPS for update in later)
    assert updates[0].box.to_px(WIDTH, HEIGHT) == pytest.approx((10, 20, 34, 44), abs=1e-3)
    with open_video(tmp_path / "annotated.mp4") as annotated:
        assert (annotated.width, annotated.height) == (WIDTH, HEIGHT)
    assert "IoU" not in (tmp_path / "report.json").read_text()


def test_a_node_that_cannot_be_configured_is_told(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tracks.jsonl").write_text("of an earlier run")
    arguments = ["--recording", str(recording), "--model", "identity", "--device", "warp", "--out", str(tmp_path)]
    assert main(arguments) == FAILED
    assert "failed to configure: " in (said := capsys.readouterr().err)
    assert "model.device = 'warp'" in said
    assert {path.name for path in tmp_path.iterdir()} == {"tracker_node.log", "video_node.log"}


def test_a_tracker_that_dies_while_the_video_plays_fails_the_demo(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play = stage.Stage._let_play

    def play_and_kill(self: stage.Stage) -> None:
        play(self)
        os.kill(self.tracker.pid, signal.SIGKILL)

    monkeypatch.setattr(stage.Stage, "_let_play", play_and_kill)
    assert main(["--recording", str(recording), "--model", "identity", "--out", str(tmp_path)]) == FAILED
    assert "FAILED: tracker_node ended with exit code -9" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--video", "no/such.mp4", "--expression", "it"], "no/such.mp4"),
        (["--recording", "no/such"], "truth.json"),
        (["--expression", "the mug"], "--video"),
        (["--video", "VIDEO"], "--expression"),
        (["--video", "VIDEO", "--expression", "<image>"], "<image>"),
        (["--video", "VIDEO", "--box", "3,2,1,0"], "box"),
    ],
)
def test_bad_input_is_one_sentence(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    arguments = [str(recording / VIDEO_NAME) if text == "VIDEO" else text for text in arguments]
    assert main([*arguments, "--out", str(tmp_path)]) == BAD_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert complaint in said


def test_a_node_that_died_is_noticed_with_its_last_words() -> None:
    with NodeProcess("elysium_ros.video.video_node", {"source": "no/such.mp4"}, os.environ) as node:
        wait_until(lambda: not node.is_alive, 60.0, "it did not end")
        with pytest.raises(NodeProcessError, match=r"exit code 2: .*no/such\.mp4"):
            node.check_alive()


def test_two_runs_never_share_a_domain() -> None:
    with claim_domain() as one, claim_domain() as other:
        assert len({one, other, int(os.environ["ROS_DOMAIN_ID"])}) == 3
