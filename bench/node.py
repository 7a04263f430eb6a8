"""Measures the tracker node from outside: how old its answers are, how many frames it answers, and whether it grows.

    python -m bench.node --model identity --model nano --rate 15 --rate 30 --seconds 180 --json

Each run starts the node as a separate process, sends moving pictures at a steady rate, follows one object, and
compares the stamp of each image with the time at which the answer is here. With ``--model identity`` no model runs, so
that run is what ROS 2 and the node cost by themselves. Run it on an idle machine; nothing else is corrected for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace

import numpy as np
import typer

from bench.camera import BenchCamera
from bench.node_result import MEBIBYTE, Result, as_text, machine, slope_per_hour, stages_as_text
from bench.viewer_pages import watching
from elysium_core.checkpoint.locations import checkpoint_folder
from elysium_core.cli.ros import HAND_OVER_SETTINGS
from elysium_core.errors import ConfigError, ElysiumError, ModelFileError
from elysium_core.viewer.protocol import MOST_PAGES
from elysium_ros.client.node_process import (
    NodeProcess,
    NodeProcessError,
    add_profile,
    claim_domain,
    private_environment,
)
from elysium_ros.client.tracker_client import TrackerClient, spinning, wait_until
from elysium_ros.msg import Box2D

TRACKER = "/elysium"

_LOAD_S, _ANSWER_S, _SETTLE_S = 600.0, 30.0, 30.0
# Long enough for the node's buffer of recent images to fill, which is no growth.
_WARM_UP_S, _WARM_UP_HZ = 2.0, 15.0
FAILED, BAD_INPUT = 1, 2


def measure(
    model: str,
    device: str,
    rate_hz: float,
    seconds: float,
    size: tuple[int, int],
    plain_dds: bool = False,
    pages: int | None = None,
) -> Result:
    """Do one run.

    Args:
        model: Model of the node.
        device: Device of the node.
        rate_hz: Images a second.
        seconds: How long images are sent [s].
        size: Width and height of the images [px].
        plain_dds: Leave Fast DDS as it is installed.
        pages: Pages of the viewer that look on; None = no viewer.

    Raises:
        ElysiumError: The node could not start, died, or answered nothing.
    """
    parameters = {
        "autostart": False,
        "model.path": model,
        "model.device": device,
        "qos_overrides./image.subscription.reliability": "reliable",
        # The object is meant to be followed all the time, also by a model that loses it.
        "tracking.remove_after": 0.0,
        "describe.period": 0.0,
    }
    with ExitStack() as stack:
        domain = stack.enter_context(claim_domain())
        node = stack.enter_context(spinning("elysium_bench", domain))
        environment = private_environment(domain, plain_dds=plain_dds)
        process = stack.enter_context(NodeProcess("elysium_ros.node.tracker_node", parameters, environment))
        client = TrackerClient(node, TRACKER, _ANSWER_S, process.check_alive)
        for transition in ("configure", "activate"):
            if not client.change_state(transition, _LOAD_S):
                raise NodeProcessError(f"the tracker node failed to {transition}: {process.last_line()}")
        camera = BenchCamera(node, TRACKER, *size)
        wait_until(lambda: camera.is_watched, _ANSWER_S, "the node did not subscribe", check=process.check_alive)
        _start_target(client, camera, process, size)
        if pages is not None:
            stack.enter_context(watching(environment, pages))
            camera.send(_WARM_UP_S, _WARM_UP_HZ, process)
            _settle(camera, process)
        camera.begin()
        memory = camera.send(seconds, rate_hz, process)
        _settle(camera, process)
        memory_end = process.resident_bytes()
        wait_until(lambda: camera.has_last_word, _SETTLE_S, "the node told no status", check=process.check_alive)
        result = _result(model, rate_hz, seconds, size, camera, memory, memory_end)
        return replace(result, pages=pages)


def _start_target(client: TrackerClient, camera: BenchCamera, process: NodeProcess, size: tuple[int, int]) -> None:
    """Follow a box, so that models of any skill have the same amount of work; the first frames warm everything up."""
    camera.send(0.2, 5.0, process)
    _settle(camera, process)
    side = float(max(1, min(size) // 6))
    response = client.track(box=Box2D(x_min=0.0, y_min=0.0, x_max=side, y_max=side))
    if not response.success:
        raise NodeProcessError(f"the tracker node refused the target: {response.message}")
    camera.send(_WARM_UP_S, _WARM_UP_HZ, process)
    _settle(camera, process)


def _settle(camera: BenchCamera, process: NodeProcess) -> None:
    complaint = f"the last of {camera.sent} images was not answered"
    wait_until(lambda: camera.is_settled, _SETTLE_S, complaint, check=process.check_alive)


def _result(
    model: str,
    rate_hz: float,
    seconds: float,
    size: tuple[int, int],
    camera: BenchCamera,
    memory: list[tuple[float, int]],
    memory_end: int,
) -> Result:
    p50_s, p95_s, p99_s = (float(np.percentile(camera.ages_s, percent)) for percent in (50, 95, 99))
    back_p50_s, back_p95_s = np.percentile(np.subtract(camera.ages_s, camera.node_ages_s), (50, 95))
    slope = slope_per_hour(memory)
    return Result(
        model=model,
        rate_hz=rate_hz,
        width=size[0],
        height=size[1],
        seconds=seconds,
        sent=camera.sent,
        answered=camera.answered,
        superseded=camera.superseded,
        lost=camera.sent - camera.answered - camera.superseded,
        latency_p50_ms=round(p50_s * 1e3, 2),
        latency_p95_ms=round(p95_s * 1e3, 2),
        latency_p99_ms=round(p99_s * 1e3, 2),
        node_latency_p50_ms=round(float(np.median(camera.node_ages_s)) * 1e3, 2),
        return_ms=(round(float(back_p50_s) * 1e3, 2), round(float(back_p95_s) * 1e3, 2)),
        stages_ms={name: (round(p50, 2), round(p95, 2)) for name, (p50, p95) in camera.stages_ms.items()},
        rss_start_mib=round(memory[0][1] / MEBIBYTE, 1),
        rss_end_mib=round(memory_end / MEBIBYTE, 1),
        rss_slope_mib_per_h=None if slope is None else round(slope, 2),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.node", description="Measure the tracker node from outside.")
    parser.add_argument("--model", action="append", help="identity, nano, a folder; repeatable (default: both names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--rate", action="append", type=float, help="images a second; repeatable (default: 15 and 30)")
    parser.add_argument("--seconds", type=float, default=180.0, help="length of each run (default: %(default)s)")
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT of the images [px] (default: %(default)s)")
    parser.add_argument(
        "--pages", type=int, help="run the viewer with this many pages beside the node (default: no viewer)"
    )
    parser.add_argument("--plain-dds", action="store_true", help="leave Fast DDS as installed: no config/fastdds.xml")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 8192 and 0 < int(height) <= 8192):
        raise ConfigError(f"--size {text!r} is not WIDTHxHEIGHT in pixels, such as 640x480")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench.

    Args:
        argv: Arguments without the program's name; those of the process if omitted.

    Returns:
        0 if every run was measured, 1 if not, 2 for bad input, 130 when interrupted.
    """
    args = _parser().parse_args(argv)
    results = []
    try:
        size = _size(args.size)
        rates = args.rate or [15.0, 30.0]
        if args.seconds <= 0 or min(rates) <= 0:
            raise ConfigError(f"--seconds {args.seconds:g} and --rate {min(rates):g} must be positive")
        if args.pages is not None and not 0 <= args.pages <= MOST_PAGES:
            raise ConfigError(f"--pages {args.pages} is not in 0..{MOST_PAGES}")
        if not args.plain_dds:
            # The camera is in this process.
            add_profile(os.environ)
        models = args.model or ["identity", "nano"]
        for model in models:
            if model != "identity":
                checkpoint_folder(model)
        for model in models:
            for rate_hz in rates:
                results.append(measure(model, args.device, rate_hz, args.seconds, size, args.plain_dds, args.pages))
                (sys.stderr if args.json else sys.stdout).write(
                    f"{as_text(results[-1])}\n{stages_as_text(results[-1])}\n"
                )
    except ElysiumError as error:
        sys.stderr.write(f"error: {error}\n")
        return BAD_INPUT if isinstance(error, ConfigError | ModelFileError) else FAILED
    except KeyboardInterrupt:
        return 130
    if args.json:
        sys.stdout.write(json.dumps({**machine(), "runs": [asdict(result) for result in results]}) + "\n")
    return 0


COMMAND_SETTINGS = HAND_OVER_SETTINGS


def command(context: typer.Context) -> None:
    """Latency of the ROS 2 node, from image stamp to answer."""
    raise typer.Exit(main(context.args))


if __name__ == "__main__":
    sys.exit(main())
