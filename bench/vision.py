"""``python -m bench.vision``: tokens, weights, time and memory of the vision encoder with each token adapter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elysium_core.cli.options import DeviceOption, JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError

if TYPE_CHECKING:
    from bench.vision_cost import CostSettings, VisionCost, VisionSize

SIZES = ("paper", "nano", "tiny")
_HEADER = (
    f"{'adapter':<17}{'input':>7}{'tokens':>8}{'weights':>10}{'adapter':>10}  {'backend':<9}"
    f"{'ms':>9}{'quartiles':>19}{'MiB':>9}{'speed-up':>10}"
)


def command(
    size: Annotated[
        str, typer.Option("--size", help="Size of the networks: paper (CLIP ViT-L/14), nano or tiny.")
    ] = "paper",
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="torch or onnx; repeat to compare them in one run.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, float16 or bfloat16.")] = "auto",
    batch: Annotated[int, typer.Option("--batch", min=1, max=64, help="Frames in a batch.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", min=2, max=1000, help="Timed runs of each backend.")] = 9,
    json: JsonOption = False,
) -> None:
    """Measure every row of the paper's adapter ablation, with random weights.

    Time and memory do not depend on the values of the weights. Images have the encoder's input
    size, so that the time for resizing is not included.
    """
    from bench.vision_cost import ROWS, CostSettings, measure_vision
    from elysium_core.device import SMALL_MODEL, fit_threads, resolve_device, resolve_dtype

    place = resolve_device(device)
    settings = CostSettings(
        size=_size(size),
        backends=_backends(backend),
        device=place,
        dtype=resolve_dtype(dtype, place),
        batch=batch,
        repeats=repeats,
        rows=ROWS,
    )
    # The number of threads that a program with such a model uses.
    fit_threads(SMALL_MODEL if size == "paper" else 0)
    with Progress("vision", len(settings.rows) * len(settings.backends)) as bar:
        costs = _shown(measure_vision(settings), bar, table=not json)
    if json:
        emit(_report(size, settings, costs))


def _size(name: str) -> VisionSize:
    from bench.vision_cost import PAPER_SIZE, TINY_SIZE, VisionSize
    from elysium_core.training.nano.nano_recipe import NanoModelConfig

    nano = NanoModelConfig()
    nano_size = VisionSize(
        side_px=nano.side_px,
        patch_px=nano.patch_px,
        width=nano.vision_width,
        layers=nano.vision_layers,
        heads=nano.vision_heads,
        mlp_width=4 * nano.vision_width,
        llm_width=nano.llm_width,
    )
    sizes = dict(zip(SIZES, (PAPER_SIZE, nano_size, TINY_SIZE), strict=True))
    if name not in sizes:
        raise ConfigError(f"--size {name!r} is not one of {', '.join(SIZES)}")
    return sizes[name]


def _backends(names: list[str] | None) -> tuple[str, ...]:
    from bench.vision_cost import BACKENDS

    chosen = tuple(dict.fromkeys(names or ("torch",)))
    for name in chosen:
        if name not in BACKENDS:
            raise ConfigError(f"--backend {name!r} is not one of {', '.join(BACKENDS)}")
    return tuple(name for name in BACKENDS if name in chosen)


def _shown(costs: Iterable[VisionCost], bar: Progress, table: bool) -> list[VisionCost]:
    """Return all costs, and show each one as soon as it is measured."""
    if table:
        say(_HEADER)
    seen = []
    for cost in costs:
        seen.append(cost)
        bar.advance(f"{cost.adapter}, {cost.tokens} tokens, {cost.backend}")
        if table:
            say(_line(cost))
    return seen


def _line(cost: VisionCost) -> str:
    facts = (
        f"{cost.adapter:<17}{cost.side_px:>7}{cost.tokens:>8}{cost.parameters / 1e6:>9.2f}M"
        f"{cost.adapter_parameters / 1e6:>9.3f}M  {cost.backend:<9}"
    )
    if cost.skipped:
        return f"{facts}not run: {cost.skipped}"
    low, middle, high = cost.ms
    memory = "?" if cost.memory_mib is None else f"{cost.memory_mib:.0f}"
    speedup = f"{cost.speedup[1]:.2f}x" if cost.speedup else ""
    return f"{facts}{middle:>9.2f}{f'{low:.2f}..{high:.2f}':>19}{memory:>9}{speedup:>10}"


def _report(size: str, settings: CostSettings, costs: list[VisionCost]) -> dict[str, Any]:
    import torch

    from elysium_core.device import dtype_name

    return {
        "size": size,
        "device": str(settings.device),
        "dtype": dtype_name(settings.dtype),
        "threads": torch.get_num_threads(),
        "batch": settings.batch,
        "repeats": settings.repeats,
        "torch": torch.__version__,
        "rows": [asdict(cost) for cost in costs],
    }


if __name__ == "__main__":
    from bench.app import run

    run("vision")
