"""``python -m bench.gpu``: all measurements that need a GPU, in one run of less than eight minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.errors import ConfigError

_MOST_TARGETS = 16


def command(
    size: Annotated[
        str, typer.Option("--size", help="paper (CLIP ViT-L/14-336 and a 7B LLaMA), or tiny, which runs anywhere.")
    ] = "paper",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="device, rates, ingest, follow, nano, agreement, quantised or vision; repeat for several."
        ),
    ] = None,
    targets: Annotated[
        list[int] | None,
        typer.Option("--targets", min=1, max=_MOST_TARGETS, help="Targets; repeatable; 1, 4, 16 by default."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Trained model for the comparison of precisions.")
    ] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option("--out", help="The report; an existing file is replaced.")] = Path("gpu.json"),
    budget: Annotated[
        float,
        typer.Option("--budget", min=1, max=86400, help=r"Time for all measurements \[s]."),
    ] = 480.0,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="Data type of the random weights: auto, float32, ...")] = "auto",
    json: JsonOption = False,
) -> None:
    """Measure speed at full size with random weights, and agreement with float32 on a trained model.

    Frame rate and time of each stage for 1, 4 and 16 targets, compared with the lower bound that
    memory bandwidth and arithmetic of the GPU allow; quantised language models; TensorRT and torch.
    """
    from bench.gpu_report import BENCH_SIZES, SECTIONS, BenchSettings, GpuBench
    from elysium_core.device import check_gpu, resolve_device, resolve_dtype, why_no_gpu

    _check("--size", [size], BENCH_SIZES)
    sections = tuple(name for name in SECTIONS if name in _check("--only", only or list(SECTIONS), SECTIONS))
    place = resolve_device(device)
    check_gpu(place)
    if size == "paper" and place.type != "cuda":
        raise ConfigError(f"--size paper needs a GPU, and {why_no_gpu()}; --size tiny runs anywhere")
    settings = BenchSettings(
        size=size,
        device=place,
        dtype=resolve_dtype(dtype, place),
        sections=sections,
        targets=tuple(dict.fromkeys(targets or (1, 4, 16))),
        model=model,
        budget_s=budget,
        out=out,
    )
    try:
        report = GpuBench(settings, None if json else _show).run()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}") from error
    if json:
        emit(report)
    else:
        say(f"the report is in {out}")


def _check(option: str, names: list[str], known: Any) -> list[str]:
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name!r} is not one of {', '.join(known)}")
    return names


def _show(section: str, found: Any) -> None:
    """Show the figures of one part."""
    say(section)
    for name, value in found.items():
        figures = ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, dict) else value
        say(f"  {name:<26}{figures}")


if __name__ == "__main__":
    from bench.app import run

    run("gpu")
