"""``elysium bench node``: hands over to the bench of the ROS package, in a process of its own.

The core never imports ROS, so the bench runs as ``python -m elysium_ros.bench_node``.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import typer

from elysium_core.errors import BackendError

BENCH_MODULE = "elysium_ros.bench_node"

COMMAND_SETTINGS = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
}
"""All arguments, ``--help`` too, are those of the bench itself."""

_NEEDED = (
    ("rclpy", "ROS 2 is not installed for this Python; run `make setup`, or source /opt/ros/<distro>/setup.bash"),
    ("elysium_ros", "the ROS package elysium_ros is not installed; run `make setup` in the repository"),
    ("elysium_ros.msg", "the messages of elysium_ros are not built; run `make setup`, then source install/setup.bash"),
    (BENCH_MODULE, f"{BENCH_MODULE} is not part of this installation; run it from the repository"),
)


def command(context: typer.Context) -> None:
    """Latency of the ROS 2 node, stamp to stamp."""
    for module, remedy in _NEEDED:
        if not _is_installed(module):
            raise BackendError(remedy, code="ROS_MISSING")
    finished = subprocess.run([sys.executable, "-m", BENCH_MODULE, *context.args], check=False)
    raise typer.Exit(finished.returncode)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
