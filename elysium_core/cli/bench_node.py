"""``elysium bench node``: hands over to the bench of the ROS package."""

from __future__ import annotations

import typer

from elysium_core.cli.ros_module import HAND_OVER_SETTINGS, run_ros_module

COMMAND_SETTINGS = HAND_OVER_SETTINGS


def command(context: typer.Context) -> None:
    """Latency of the ROS 2 node, stamp to stamp."""
    raise typer.Exit(run_ros_module("elysium_ros.bench_node", context.args))
