"""Verbs that hand over to the ROS package, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from elysium_core.cli import ros
from elysium_core.cli.ros import _is_installed

MODULES = {("ros",): "elysium_ros.client.command"}


@pytest.mark.parametrize("verb", MODULES)
@pytest.mark.parametrize(
    ("present", "reason"),
    [
        (set(), "ROS 2 is not installed"),
        ({"rclpy"}, "elysium_ros is not installed"),
        ({"rclpy", "elysium_ros"}, "messages of elysium_ros are not built"),
        ({"rclpy", "elysium_ros", "elysium_ros.msg"}, "not part of this installation"),
    ],
)
def test_without_ros_it_says_what_is_missing(elysium, monkeypatch, verb, present, reason):
    monkeypatch.setattr(ros, "_is_installed", present.__contains__)
    outcome = elysium(*verb, "--rate", "30", "--help")
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("verb", MODULES)
def test_arguments_and_exit_code_are_those_of_the_module(elysium, monkeypatch, verb):
    calls = []

    def run(command, check):
        calls.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(ros, "_is_installed", lambda module: True)
    monkeypatch.setattr(ros.subprocess, "run", run)
    arguments = ["track", "the red mug", "--rate", "30", "--json", "--help"]
    assert elysium(*verb, *arguments).code == 7
    assert calls == [[sys.executable, "-m", MODULES[verb], *arguments]]


@pytest.mark.parametrize(
    ("module", "found"), [("json", True), ("json.decoder", True), ("none", False), ("none.sub", False)]
)
def test_modules_are_found_without_importing_them(module, found):
    assert _is_installed(module) is found
