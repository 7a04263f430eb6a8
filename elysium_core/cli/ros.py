"""``elysium ros``: hands over to the shell client of the ROS package."""

from __future__ import annotations

import typer

from elysium_core.cli.ros_module import HAND_OVER_SETTINGS, run_ros_module

COMMAND_SETTINGS = HAND_OVER_SETTINGS


def command(context: typer.Context) -> None:
    """Talk to a running tracker node."""
    raise typer.Exit(run_ros_module("elysium_ros.client", context.args))
