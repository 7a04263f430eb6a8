"""The settings of Fast DDS that the package ships, for the processes that it starts itself."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Environment variables that name the file of profiles: of Fast DDS 2 (Humble, Jazzy), and of Fast DDS 3."""

_PROFILE = Path("config") / "fastdds.xml"


def packaged_profile() -> Path | None:
    """Return the file for large messages through shared memory; None where the package is not installed."""
    source_tree = Path(__file__).resolve().parent.parent / _PROFILE
    if source_tree.is_file():
        return source_tree
    try:
        installed = Path(get_package_share_directory("elysium_ros")) / _PROFILE
    except PackageNotFoundError:
        return None
    return installed if installed.is_file() else None


def add_profile(environment: MutableMapping[str, str]) -> None:
    """Have processes with this environment use the file, unless the user has chosen one.

    Args:
        environment: Changed in place. That of this process counts for nodes made afterwards.
    """
    profile = packaged_profile()
    if profile is None or any(name in environment for name in PROFILE_VARIABLES):
        return
    for name in PROFILE_VARIABLES:
        environment[name] = str(profile)
