"""A signal at any moment of a node's start is a normal end: exit code 0, no traceback."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from elysium_core.io.image import write_image

# Says when the node begins to be made; importing is over then.
START = """
import sys, rclpy
from elysium_ros.{module} import main
init = rclpy.init
def init_aloud(*args, **options):
    print("begins", flush=True)
    init(*args, **options)
rclpy.init = init_aloud
sys.exit(main(sys.argv))
"""
MODULES = {"tracker_node": "node.tracker_node", "video_node": "video.video_node"}
PARAMETERS = {
    "tracker_node": ["model.path:=identity"],
    "video_node": ["source:=PICTURE", "loop:=true", "rate:=50.0"],
}
# What a start takes on an idle machine, and a little more.
START_S = 1.2


def output_after_signal(name: str, picture: Path, delay_s: float, how: signal.Signals) -> tuple[int, str]:
    """Start a node, end it ``delay_s`` after it began to be made; return its exit code and all it wrote."""
    parameters = [text.replace("PICTURE", str(picture)) for text in PARAMETERS[name]]
    options = [word for text in parameters for word in ("-p", text)]
    command = [sys.executable, "-c", START.format(module=MODULES[name]), "--ros-args", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout.readline() == "begins\n"
        time.sleep(delay_s)
        os.kill(process.pid, how)
        output, _ = process.communicate(timeout=90.0)
    return process.returncode, output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_installed_node_imports_is_a_normal_end(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "slow_node.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(60)\n")
    template = Path(__file__).resolve().parents[3] / "tools" / "node.py.in"
    script = tmp_path / "node.py"
    script.write_text(template.read_text().replace("@ELYSIUM_MODULE@", "slow_node"))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout.readline() == "imports\n"
        os.kill(process.pid, how)
        assert (process.communicate(timeout=50.0)[0], process.returncode) == ("", 0)


def test_ctrl_c_while_an_installed_command_imports_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow_command.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(60)\n")
    template = Path(__file__).resolve().parents[3] / "tools" / "command.py.in"
    script = tmp_path / "command.py"
    script.write_text(template.read_text().replace("@ELYSIUM_MODULE@", "slow_command"))
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout.readline() == "imports\n"
        os.kill(process.pid, signal.SIGINT)
        assert (process.communicate(timeout=50.0)[0], process.returncode) == ("", 130)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["tracker_node", "video_node"])
def test_a_signal_at_any_moment_of_the_start_is_a_normal_end(tmp_path: Path, name: str, count: int) -> None:
    picture = tmp_path / "picture.png"
    write_image(picture, np.zeros((48, 64, 3), np.uint8))
    for number in range(count):
        delay_s = random.uniform(0, START_S)
        how = (signal.SIGINT, signal.SIGTERM)[number % 2]
        code, output = output_after_signal(name, picture, delay_s, how)
        story = f"{how.name} after {delay_s:.3f} s: {output}"
        assert code == 0, story
        assert "Traceback" not in output, story


# With torch in the process it ends without Python's own clean-up. A stand-in is enough for that, and quicker.
WITH_TORCH = """
import sys, types
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.cuda = types.SimpleNamespace(is_available=lambda: False)
from elysium_ros.node.tracker_node import main
sys.exit(main(sys.argv))
"""


def shared_memory_of(pid: int) -> set[Path]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended, or belongs to another user
        return set()
    return {Path(line.split()[-1]) for line in maps.splitlines() if re.search(r"/dev/shm/fastrtps_[0-9a-f]{16}$", line)}


def test_a_node_that_ends_leaves_no_shared_memory(tmp_path: Path) -> None:
    log, earlier = tmp_path / "log", set(Path("/dev/shm").glob("fastrtps_*"))
    command = [sys.executable, "-c", WITH_TORCH, "--ros-args", "-p", "model.path:=identity"]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        while "active, listening" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        mapped = shared_memory_of(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60.0) == 0, log.read_text()
    assert mapped, "Fast DDS keeps a file of its own in shared memory while the node runs"
    # A node also maps the files of others that it hears from: of those that live on, and of those that were killed.
    in_use = {path for entry in Path("/proc").glob("[0-9]*") for path in shared_memory_of(int(entry.name))}
    assert [path for path in mapped - in_use - earlier if path.exists()] == []
