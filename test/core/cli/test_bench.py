from __future__ import annotations

import subprocess
import sys

import pytest

from elysium_core.cli import bench_node


def test_the_group_lists_its_verbs(elysium):
    outcome = elysium("bench")
    assert outcome.code == 0
    assert "node" in outcome.out


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        (set(), "ROS 2 is not installed"),
        ({"rclpy"}, "elysium_ros is not installed"),
        ({"rclpy", "elysium_ros"}, "messages of elysium_ros are not built"),
        ({"rclpy", "elysium_ros", "elysium_ros.msg"}, "not part of this installation"),
    ],
)
def test_without_ros_it_says_what_is_missing(elysium, monkeypatch, present, reason):
    monkeypatch.setattr(bench_node, "_is_installed", present.__contains__)
    outcome = elysium("bench", "node", "--rate", "30", "--help")
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


def test_arguments_and_exit_code_are_those_of_the_bench(elysium, monkeypatch):
    calls = []

    def run(command, check):
        calls.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(bench_node, "_is_installed", lambda module: True)
    monkeypatch.setattr(bench_node.subprocess, "run", run)
    assert elysium("bench", "node", "--rate", "30", "--json", "--help").code == 7
    assert calls == [[sys.executable, "-m", "elysium_ros.bench_node", "--rate", "30", "--json", "--help"]]


@pytest.mark.parametrize(
    ("module", "found"), [("json", True), ("json.decoder", True), ("none", False), ("none.sub", False)]
)
def test_modules_are_found_without_importing_them(module, found):
    assert bench_node._is_installed(module) is found
