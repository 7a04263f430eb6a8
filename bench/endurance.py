"""``python -m bench.endurance``: whether the node grows in a long run, and what it leaves when it is ended or killed.

First one node follows an object for a while: its memory must grow by less than 10 MB an hour, its files of Fast DDS in
shared memory not at all. That of ten minutes is `--model nano --rate 30 --seconds 600`.
Then nodes are started one after the other and ended by SIGTERM, at last killed by SIGKILL: each must become active,
those that were ended must exit with code 0 and leave no file in shared memory.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.camera import BenchCamera
from bench.node import TRACKER
from bench.node_result import machine, slope_per_hour
from elysium_core.cli.options import DEFAULT_MODEL, JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.errors import ConfigError
from elysium_ros.client.node_process import NodeProcess, add_profile, claim_domain, private_environment
from elysium_ros.client.tracker_client import TrackerClient, spinning, wait_until
from elysium_ros.msg import Box2D

_SIZE = (640, 480)
_START_S, _END_S, _ANSWER_S = 600.0, 60.0, 30.0
_MIB = 2**20
_MOST_GROWTH_MIB_PER_H = 10e6 / _MIB


@dataclass(frozen=True, slots=True)
class LongRun:
    """One node that follows one object.

    Attributes:
        seconds: How long images were sent [s].
        sent: Images sent.
        answered: Images with an answer.
        rss_start_mib: Memory of the node at the beginning [MiB].
        rss_end_mib: The same at the end [MiB].
        rss_slope_mib_per_h: Growth after the first third, see :func:`bench.node_result.slope_per_hour` [MiB/h]; None
            for less than a minute.
        shared_start_mib: Files of Fast DDS in shared memory that the node has open, at the beginning [MiB].
        shared_end_mib: The same at the end [MiB].
    """

    seconds: float
    sent: int
    answered: int
    rss_start_mib: float
    rss_end_mib: float
    rss_slope_mib_per_h: float | None
    shared_start_mib: float
    shared_end_mib: float

    @property
    def is_clean(self) -> bool:
        """Whether memory does not grow; a run without a slope is judged by its shared memory only."""
        slope = self.rss_slope_mib_per_h
        return (slope is None or slope < _MOST_GROWTH_MIB_PER_H) and self.shared_end_mib <= self.shared_start_mib


@dataclass(frozen=True, slots=True)
class Ends:
    """Nodes that were started and ended one after the other.

    Attributes:
        how: Name of the signal.
        count: How many became active and were ended.
        exit_codes: Their exit codes, without repetitions; negative for a signal.
        left_mib: Shared memory that they left behind, all together [MiB].
    """

    how: str
    count: int
    exit_codes: tuple[int, ...]
    left_mib: float

    @property
    def are_clean(self) -> bool:
        """Whether it is as promised; after SIGKILL a process cannot tidy up."""
        return self.how == "SIGKILL" or (self.exit_codes in ((), (0,)) and self.left_mib == 0)


def long_run(model: str, rate_hz: float, seconds: float) -> LongRun:
    """Have one node follow one object.

    Raises:
        ElysiumError: The node could not start, died, or answered nothing.
    """
    with claim_domain() as domain, spinning("elysium_bench", domain) as node, _active(model, domain) as process:
        camera = BenchCamera(node, TRACKER, *_SIZE)
        wait_until(lambda: camera.is_watched, _ANSWER_S, "the node did not subscribe", check=process.check_alive)
        camera.send(1.0, rate_hz, process)
        reply = TrackerClient(node, TRACKER, _ANSWER_S, process.check_alive).track(box=Box2D(x_max=80.0, y_max=80.0))
        if not reply.success:
            raise ConfigError(f"the node refused the target: {reply.message}")
        # The buffer of recent images fills up, which is no growth.
        camera.send(3.0, rate_hz, process)
        _settle(camera, process)
        shared = _size(process.shared_memory())
        camera.begin()
        memory = camera.send(seconds, rate_hz, process)
        _settle(camera, process)
        slope = slope_per_hour(memory)
        return LongRun(
            seconds=seconds,
            sent=camera.sent,
            answered=camera.answered,
            rss_start_mib=round(memory[0][1] / _MIB, 1),
            rss_end_mib=round(process.resident_bytes() / _MIB, 1),
            rss_slope_mib_per_h=None if slope is None else round(slope, 2),
            shared_start_mib=shared,
            shared_end_mib=_size(process.shared_memory()),
        )


def ends(model: str, how: signal.Signals, count: int) -> Ends:
    """Start nodes one after the other, and end each by a signal once it is active.

    Raises:
        ElysiumError: One did not become active, or did not end.
    """
    codes, left = set(), 0.0
    with claim_domain() as domain:
        for _ in range(count):
            with _active(model, domain) as process:
                files = process.shared_memory()
                os.kill(process.pid, how)
                codes.add(process.wait(_END_S))
            left += _size(files)
    return Ends(how.name, count, tuple(sorted(codes)), round(left, 2))


@contextmanager
def _active(model: str, domain: int) -> Iterator[NodeProcess]:
    environment = private_environment(domain)
    with NodeProcess("elysium_ros.node.tracker_node", {"model.path": model}, environment) as process:
        wait_until(
            lambda: "active, listening" in process.output(), _START_S, "the node did not become active",
            check=process.check_alive,
        )  # fmt: skip
        yield process


def _settle(camera: BenchCamera, process: NodeProcess) -> None:
    wait_until(lambda: camera.is_settled, _ANSWER_S, "the last image was not answered", check=process.check_alive)


def _size(files: set[Path]) -> float:
    return round(sum(path.stat().st_size for path in files if path.exists()) / _MIB, 2)


def as_text(run: LongRun | None, ended: Sequence[Ends]) -> str:
    """Return the results for people."""
    lines = []
    if run is not None:
        slope = run.rss_slope_mib_per_h
        growth = "slope needs a longer run" if slope is None else f"{slope:+.1f} MiB/h"
        lines.append(
            f"{run.seconds:g} s, {run.answered} of {run.sent} images answered: memory {run.rss_start_mib} -> "
            f"{run.rss_end_mib} MiB ({growth}), shared memory {run.shared_start_mib} -> {run.shared_end_mib} MiB"
        )
    lines += [
        f"{each.how} x {each.count}: exit codes {', '.join(map(str, each.exit_codes)) or 'none'}, "
        f"{each.left_mib} MiB of shared memory left"
        for each in ended
    ]
    return "\n".join(lines)


def command(
    model: Annotated[str, typer.Option("--model", "-m", help="identity, nano, real, or a folder.")] = DEFAULT_MODEL,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Images a second.")] = 30.0,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Length of the long run; 0: none.")] = 600.0,
    terms: Annotated[int, typer.Option("--terms", min=0, help="Nodes ended by SIGTERM.")] = 20,
    kills: Annotated[int, typer.Option("--kills", min=0, help="Nodes killed by SIGKILL.")] = 5,
    json: JsonOption = False,
) -> None:
    """Follow an object for a while, and measure memory; then start nodes and end them, one after the other.

    Exit code 1 if memory grows by 10 MB an hour or more, shared memory grows, or a node ends otherwise than promised.
    """
    add_profile(os.environ)
    run = long_run(model, rate, seconds) if seconds else None
    ended = [ends(model, signal.SIGTERM, terms), ends(model, signal.SIGKILL, kills)]
    if json:
        emit({**machine(), "run": None if run is None else asdict(run), "ends": [asdict(each) for each in ended]})
    else:
        say(as_text(run, ended))
    if not (run is None or run.is_clean) or not all(each.are_clean for each in ended):
        raise typer.Exit(1)


if __name__ == "__main__":
    from bench.app import run

    run("endurance")
