"""``python -m bench.soak``: growth of memory and time over ten thousand frames."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elysium_core.cli.options import DEFAULT_MODEL, DeviceOption, DtypeOption, JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError

if TYPE_CHECKING:
    from bench.engine_soak import SoakCost

_WINDOWS = ("anchor", "growing")
_TARGETS = (1, 4)
_RATE_HZ = 30.0
_SEED = 7
# Frames of the scene, which is played forwards and backwards.
_SCENE_FRAMES = 36
_MIB = 1 << 20


def command(
    model: Annotated[
        str, typer.Option("--model", "-m", help="nano, a folder, or a hub id that was pulled.")
    ] = DEFAULT_MODEL,
    frames: Annotated[int, typer.Option("--frames", min=20, max=1_000_000, help="Frames of each run.")] = 10_000,
    window: Annotated[
        list[str] | None, typer.Option("--window", help="anchor or growing; repeatable; the model's own by default.")
    ] = None,
    targets: Annotated[
        list[int] | None, typer.Option("--targets", min=1, max=16, help="Targets; repeatable; 1 and 4 by default.")
    ] = None,
    swap_every: Annotated[
        int,
        typer.Option("--swap-every", min=0, help="Frames after which a target is restarted; 0 = never."),
    ] = 50,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="CPU threads of torch.")] = 1,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    json: JsonOption = False,
) -> None:
    """Track targets for a long time; exit code 1 if anything grows by 1 % or more.

    Frames of 640x480 px go through the whole model. Memory after about a thousand frames is
    compared with memory at the end, and so are the forward passes of about a thousand frames.
    """
    import torch

    from bench.engine_cost import Subject
    from bench.engine_soak import measure_soak
    from bench.engine_workload import draw_scene
    from elysium_core.api import Elysium

    for value in window or ():
        if value not in _WINDOWS:
            raise ConfigError(f"--window {value!r} is not one of {', '.join(_WINDOWS)}")
    torch.set_num_threads(threads)
    runtime = Elysium.from_pretrained(model, device=device, dtype=dtype).runtime
    counts = list(dict.fromkeys(targets or _TARGETS))
    side_px = runtime.family.side_px
    # No precomputed visual tokens: the frames go through the vision encoder.
    subject = Subject(runtime, draw_scene(_SEED, _SCENE_FRAMES, max(counts), _RATE_HZ, side_px), (), _RATE_HZ)
    windows = list(dict.fromkeys(window or [runtime.family.settings.window]))
    costs = []
    with Progress("soak", len(windows) * len(counts) * frames) as bar:
        for kind in windows:
            for count in counts:
                cost = measure_soak(subject, kind, frames, bar.advance, targets=count, swap_every=swap_every)
                costs.append(cost)
    if json:
        emit(_report(model, threads, str(runtime.device), costs))
    else:
        for line in lines(costs):
            say(line)
    if any(cost.grown for cost in costs):
        raise typer.Exit(1)


def lines(costs: Sequence[SoakCost]) -> list[str]:
    """Return a table: memory after the first span and at the end, and what has grown."""
    header = (
        f"{'window':<9}{'targets':>8}{'swaps':>7}{'frames':>8}{'ms p50':>9}{'p95':>8}{'FPS':>7}{'passes':>15}"
        f"{'KV':>13}{'MiB':>17}{'in use, MiB':>19}{'objects':>9}  grows"
    )
    return [header, *(_line(cost) for cost in costs)]


def _line(cost: SoakCost) -> str:
    early, late, growth = cost.early, cost.late, cost.growth
    objects = growth["Python objects"]
    return (
        f"{cost.window:<9}{cost.targets:>8}{cost.swaps:>7}{cost.frames:>8}{cost.ms[0]:>9.1f}{cost.ms[1]:>8.1f}"
        f"{cost.frames_per_second:>7.1f}{f'{cost.passes_early:.3f}, {cost.passes_late:.3f}':>15}"
        f"{f'{early.kv_tokens}, {late.kv_tokens}':>13}{_pair(early.memory_bytes, late.memory_bytes):>17}"
        f"{_pair(early.allocated_bytes, late.allocated_bytes):>19}{objects:>+9.2%}  "
        f"{', '.join(cost.grown) or 'nothing'}"
    )


def _pair(early: int | None, late: int | None) -> str:
    if early is None or late is None:
        return "?"
    return f"{early / _MIB:.1f}, {late / _MIB:.1f}"


def _report(model: str, threads: int, device: str, costs: Sequence[SoakCost]) -> dict[str, Any]:
    import torch

    return {
        "model": model,
        "device": device,
        "threads": threads,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "runs": [asdict(cost) | {"growth": cost.growth, "grown": cost.grown} for cost in costs],
    }


if __name__ == "__main__":
    from bench.app import run

    run("soak")
