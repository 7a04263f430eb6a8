"""Settings of every test: isolation from other ROS graphs, determinism, and which tests run here."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

# Above these ids the ports of DDS leave the range that Linux never gives to other programs.
DOMAIN_IDS = range(1, 102)


def claim_domain_id() -> int:
    """Take a ROS domain that no other test process on this machine uses, until this process ends.

    A domain that is set outside is never used: it may be a robot's.
    """
    for domain_id in DOMAIN_IDS:
        lock = os.open(Path(tempfile.gettempdir()) / f"elysium-domain-{domain_id}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return domain_id  # The file stays open, and with it the lock.
    raise RuntimeError(f"all ROS domains {DOMAIN_IDS.start}..{DOMAIN_IDS.stop - 1} are taken by other test processes")


# At import, not in a fixture: torch, rclpy and the hub's client read these when they are imported or started, and the
# node processes that tests start inherit them.
os.environ.update(
    ROS_DOMAIN_ID=str(claim_domain_id()),
    ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
    ROS_PYTHON_CHECK_FIELDS="1",  # assigning a wrong type to a message's field is an error
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
)

# Containers often tell Python to keep no bytecode. pytest would then rewrite the assertions of every test again in each
# run and in each of its processes, which takes as long as all the imports.
sys.dont_write_bytecode = False

# By default the garbage collector looks after every 700 new objects. Imports and exports of graphs make millions that
# stay, and a fifth of their time would go into looking at them.
gc.set_threshold(100_000, 20, 20)

hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot or should not run here, with the reason."""
    reasons = {
        "slow": lambda: "" if config.getoption("--slow") else "takes long; run with --slow",
        "gpu": lambda: "" if has_gpu() else "needs a CUDA device",
        "browser": why_no_browser,
        "ros_install": lambda: "" if has_ros_install() else "needs a full ROS 2 installation (launch_ros is missing)",
    }
    known: dict[str, str] = {}
    for item in items:
        for mark, find_reason in reasons.items():
            if item.get_closest_marker(mark) is None:
                continue
            if mark not in known:
                known[mark] = find_reason()
            if reason := known[mark]:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking at what was imported: a million objects, at each collection."""
    gc.collect()
    gc.freeze()


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def find_browser() -> str:
    """Return the path of a Chromium, empty if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), "")


def why_no_browser() -> str:
    if find_spec("playwright") is None:
        return "needs the package playwright"
    return "" if find_browser() else "needs a browser (Debian: apt install chromium)"


def has_ros_install() -> bool:
    return find_spec("launch_ros") is not None
