"""A real process that is stopped while it writes: its standard output is a pipe nobody empties, so it cannot finish."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import elysium_core
from elysium_core.frames import Frame
from elysium_core.io.mp4_writer import Mp4Writer
from elysium_core.io.tracks import read_tracks
from elysium_core.io.video import open_video

FRAMES = 60
# 16 targets in 60 frames write more than any pipe holds.
TARGETS = ("--expression", "the mug") * 16


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    path = tmp_path / "in" / "video.mp4"
    with Mp4Writer(path, fps=10) as writer:
        for index in range(FRAMES):
            writer.write(Frame(np.full((48, 64, 3), index, np.uint8), index * 100_000_000, index))
    return ["track", str(path), "--model", "identity", *TARGETS]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", "from elysium_core.cli.app import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith('{"frame": 0')
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_finishes_its_files(arguments, tmp_path, number):
    out, render = tmp_path / "a.jsonl", tmp_path / "a.mp4"
    process = start([*arguments, "--json", "--out", str(out), "--render", str(render)])
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert errors.splitlines() == [f"elysium: wrote {out}", f"elysium: wrote {render}"]
    updates = read_tracks(out)
    assert 0 < len(updates) < FRAMES * 16
    assert len(updates) % 16 == 0
    assert len(list(open_video(render))) == len(updates) // 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.mp4", "in"]


@pytest.fixture
def ctrl_c_counts():
    """A shell starts jobs in the background with SIGINT ignored, and so would be the processes of these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_counts")
@pytest.mark.parametrize("module", ["elysium_core.cli", "pip's script"])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(tmp_path, module):
    """A package that takes long to import: the first that the command needs."""
    (tmp_path / "numpy.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "typer.py").write_text("import numpy\n")
    root = Path(elysium_core.__file__).parents[1]
    [entry] = re.findall(r"elysium = ([\w.]+):main", (root / "setup.py").read_text())
    script = f"import sys\nfrom {entry} import main\nsys.exit(main())"
    command = ["-m", module] if module == "elysium_core.cli" else ["-c", script]
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"},
    ) as process:
        assert process.stdout.readline() == "imports\n"
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=50.0)[0], process.returncode) == ("", 130)


def test_a_killed_run_is_resumed(arguments, tmp_path):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    process = start([*arguments, "--json", "--out", str(part)])
    process.kill()
    process.communicate(timeout=100)
    assert len(part.read_bytes()) > 0
    for extra in (["--out", str(part), "--resume"], ["--out", str(whole)]):
        command = [sys.executable, "-c", "from elysium_core.cli.app import main; main()", *arguments, *extra]
        subprocess.run(
            command, check=True, capture_output=True, cwd=Path(elysium_core.__file__).parents[1], timeout=100
        )
    assert part.read_text() == whole.read_text()
    assert len(read_tracks(part)) == FRAMES * 16
