"""Adds the built ROS package to the paths of every program in the virtual environment, when its Python starts.

`make setup` copies this file into the environment, next to a .pth file with three lines: the source tree, the built
Python package, and a call of `activate`. Then a plain `.venv/bin/python`, `.venv/bin/elysium` or `.venv/bin/pytest`
finds the sources first (an edited or new file needs no build) and the generated messages second, with nothing sourced.

The search path of shared libraries is read when a process starts, so a change needs a new one. The ROS wheels have a
.pth file (ros_wheels_bootstrapper) that restarts Python once with their libraries; an environment variable guards
against a second restart. This file comes before it in alphabetical order, so its libraries are included.
"""

import os

RESTART_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"


def activate(*prefixes: str) -> None:
    """Add ament prefixes to the environment of this process and of its child processes.

    Args:
        *prefixes: Absolute paths, in the order of the search.
    """
    _prepend("AMENT_PREFIX_PATH", prefixes)
    if _prepend("LD_LIBRARY_PATH", [os.path.join(prefix, "lib") for prefix in prefixes]):
        # The guard of a parent process without these libraries would prevent the restart that adds them.
        os.environ.pop(RESTART_GUARD, None)


def _prepend(variable: str, paths: list[str] | tuple[str, ...]) -> bool:
    """Put the paths that the variable lacks before the others; return whether any were missing."""
    present = [path for path in os.environ.get(variable, "").split(os.pathsep) if path]
    missing = [path for path in paths if path not in present]
    if missing:
        os.environ[variable] = os.pathsep.join(missing + present)
    return bool(missing)
