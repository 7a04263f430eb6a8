"""``elysium ros``: run the shell client of the ROS package in a separate process.

Any verb can run a module of the ROS package like this. The core itself never imports ROS.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import typer

from elysium_core.errors import BackendError

HAND_OVER_SETTINGS: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
}
"""``COMMAND_SETTINGS`` of such a verb: all arguments, ``--help`` included, go to the module."""

_NEEDED = (
    ("rclpy", "ROS 2 is not installed for this Python; run `make setup`, or source /opt/ros/<distro>/setup.bash"),
    ("elysium_ros", "the ROS package elysium_ros is not installed; run `make setup` in the repository"),
    ("elysium_ros.msg", "the messages of elysium_ros are not built; run `make setup`, then source install/setup.bash"),
)


def run_ros_module(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module`` with this process's input and output.

    Args:
        module: Full name, such as ``elysium_ros.client.command``.
        arguments: Its arguments.

    Returns:
        Its exit code.

    Raises:
        BackendError: ROS, the ROS package or the module is not installed; the message names it and the remedy.
    """
    own = (module, f"{module} is not part of this installation; run it from the repository")
    for needed, remedy in (*_NEEDED, own):
        if not _is_installed(needed):
            raise BackendError(remedy, code="ROS_MISSING")
    return subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


COMMAND_SETTINGS = HAND_OVER_SETTINGS


def command(context: typer.Context) -> None:
    """Control a running tracker node."""
    raise typer.Exit(run_ros_module("elysium_ros.client.command", context.args))
