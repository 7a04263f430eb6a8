"""The container files, without Docker: what they name exists, and the check tells what does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.container_check import (
    COMPOSE,
    command_problems,
    compose_problems,
    dockerfile_problems,
    problems,
    read_stages,
)

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSED = [(ROOT / "docker" / name).read_text(encoding="utf-8") for name in COMPOSE]


def test_the_container_files_name_only_what_exists():
    assert problems() == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("COPY rviz rviz", "COPY rvis rvis", "rvis"),
        ("COPY tools tools", "COPY build build", "build"),
        ("--from=build /opt/elysium/venv", "--from=builder /opt/elysium/venv", "builder"),
        ("TORCH_VERSION=2", "TORCH_VERSION=1", "TORCH_VERSION"),
        ("USER elysium\n", "", "root"),
        ("HEALTHCHECK ", "LABEL ", "HEALTHCHECK"),
        ("docker/healthcheck.sh /opt", "/opt", "HEALTHCHECK"),
        ("FROM base AS build\nARG ROS_DISTRO\n", "FROM base AS build\n", "ROS_DISTRO"),
        ("FROM runtime AS cuda", "FROM runtime AS gpu", "cuda"),
    ],
)
def test_a_fault_in_the_dockerfile_is_told(old, new, named):
    assert old in DOCKERFILE
    found = list(dockerfile_problems(DOCKERFILE.replace(old, new), ["build"]))
    assert any(named in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("target: cpu", "target: cpus", "cpus"),
        ("TORCH_INDEX: $", "TORCH: $", "TORCH"),
        ("elysium_ros viewer_node", "elysium_ros viewer", "viewer"),
        ("track.launch.py image", "trak.launch.py image", "trak.launch.py"),
        ("respawn:=true", "respwan:=true", "respwan"),
    ],
)
def test_a_fault_in_the_compose_file_is_told(old, new, named):
    assert old in COMPOSED[0]
    stages = read_stages(DOCKERFILE)[1]
    found = list(compose_problems([COMPOSED[0].replace(old, new), COMPOSED[1]], stages))
    assert any(named in problem for problem in found), found


def test_an_empty_launch_argument_is_told_because_ros2_launch_refuses_it():
    assert list(command_problems("node", "ros2 launch elysium_ros track.launch.py expression:=''")) != []


@pytest.mark.parametrize(
    ("answer", "code"), [("echo active", 0), ("echo inactive", 1), ("echo 'error: it does not answer' >&2; exit 3", 1)]
)
def test_a_container_is_healthy_only_with_an_active_node(answer, code, tmp_path):
    client = tmp_path / "python"
    wanted = "-m elysium_ros.client.command --node front --timeout 10 lifecycle"
    client.write_text(f'#!/bin/sh\n[ "$*" = "{wanted}" ] || exit 9\n{answer}\n')
    client.chmod(0o755)
    (tmp_path / "setup.bash").write_text(f"export PATH={tmp_path}:$PATH\n")
    environment = os.environ | {"ELYSIUM_SETUP": str(tmp_path / "setup.bash"), "ELYSIUM_NODE": "front"}
    result = subprocess.run([ROOT / "docker" / "healthcheck.sh"], env=environment, capture_output=True, check=False)
    assert result.returncode == code
