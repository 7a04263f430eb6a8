"""Runs a ROS node as a child process, in a private ROS domain and with the package's Fast DDS settings.

For the demo, the benchmarks and the tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from elysium_core.errors import ElysiumError

_SHARED_MEMORY = re.compile(r"/dev/shm/fastrtps_[0-9a-f]{16}$")  # noqa: S108 - only read

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Environment variables that name the file of profiles: of Fast DDS 2 (Humble, Jazzy), and of Fast DDS 3."""

_PROFILE = Path("config") / "fastdds.xml"


def packaged_profile() -> Path | None:
    """Return the file for large messages through shared memory; None where the package is not installed."""
    return packaged_file(_PROFILE)


def packaged_file(path: Path) -> Path | None:
    """Return a file of the sources, or of the installed package; None where it is in neither.

    Args:
        path: Its path in the repository, such as ``config/fastdds.xml``.
    """
    source_tree = Path(__file__).resolve().parents[2] / path
    if source_tree.is_file():
        return source_tree
    try:
        installed = Path(get_package_share_directory("elysium_ros")) / path
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


# A node ends in a second; on a busy machine its threads may wait long for their turn.
_TERMINATE_S = 60.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class NodeProcessError(ElysiumError):
    """A node ended when it should run, or did not end as it should."""

    code = "NODE"


def private_environment(domain_id: int, *, plain_dds: bool = False) -> dict[str, str]:
    """Return an environment in which only this machine's processes with the same domain see each other.

    Pictures go through shared memory in one piece, unless the user has settings of Fast DDS of their own.

    Args:
        domain_id: ROS_DOMAIN_ID, 0..101 (higher ones collide with ephemeral ports on Linux).
        plain_dds: Leave Fast DDS as it is installed.
    """
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if not plain_dds:
        add_profile(environment)
    return environment


@contextmanager
def claim_domain() -> Iterator[int]:
    """Hold a ROS domain, 1..101, that no other demo, bench or test of this machine uses.

    Raises:
        NodeProcessError: All are taken.
    """
    for domain_id in range(1, 102):
        path = Path(tempfile.gettempdir()) / f"elysium-domain-{domain_id}.lock"
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(path.open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # locked, or the file of another user
                continue
            yield domain_id
            return
    raise NodeProcessError("all ROS domains 1..101 are taken by other runs; end some of them")


class NodeProcess:
    """One node as a child process; a context manager that ends it.

    Its output goes to an unnamed file, so that a full pipe cannot block it;
    :meth:`output` reads it.

    Args:
        module: Python module with the node's ``main``, such as ``elysium_ros.video.video_node``.
        parameters: Parameters by name; values are booleans, numbers, texts or lists of them.
        environment: Environment of the process.
        remappings: Names, or ``__node`` and ``__ns``, and what they become.
    """

    def __init__(
        self,
        module: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        remappings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = module.rpartition(".")[2]
        arguments = [sys.executable, "-m", module, "--ros-args"]
        for name, value in parameters.items():
            # JSON is YAML: text stays text even when it looks like a number or holds a colon.
            arguments += ["-p", f"{name}:={json.dumps(value)}"]
        for name, value in (remappings or {}).items():
            arguments += ["-r", f"{name}:={value}"]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._process = subprocess.Popen(
            arguments, stdout=self._output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(environment)
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def output(self) -> str:
        """Return what the process has written so far."""
        size = os.fstat(self._output.fileno()).st_size
        # The child shares the file's position, so reading must not move it.
        return os.pread(self._output.fileno(), size, 0).decode("utf-8", "replace")

    def shared_memory(self) -> set[Path]:
        """Files of Fast DDS in shared memory that the process has open; some may be those of others."""
        try:
            maps = Path(f"/proc/{self.pid}/maps").read_text()
        except OSError:  # it has ended
            return set()
        return {Path(line.split()[-1]) for line in maps.splitlines() if _SHARED_MEMORY.search(line)}

    def check_alive(self) -> None:
        """Raise if the process has ended.

        Raises:
            NodeProcessError: It has; the message holds its last line.
        """
        if not self.is_alive:
            raise NodeProcessError(
                f"{self.name} ended with exit code {self._process.returncode}: {self.last_line()}", code="NODE_DIED"
            )

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end by itself; return its exit code.

        Raises:
            NodeProcessError: It still runs after ``timeout_s``.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise NodeProcessError(f"{self.name} still runs after {timeout_s:g} s") from None

    def stop(self) -> int:
        """Ask the process to end (SIGTERM), kill it if it does not; return its exit code, negative for a signal."""
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def resident_bytes(self) -> int:
        """Return the memory the process occupies [byte]; 0 when it has ended or the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            return 0

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._output.close()

    def last_line(self) -> str:
        """Return the last line that the process wrote and that is not blank."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it wrote nothing"
