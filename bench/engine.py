"""``python -m bench.engine``: cost of tracking in the language model, compared with transformers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.engine_report import check_plot, draw_plot, packing_lines, peer_lines, soak_lines, stream_lines
from elysium_core.cli.options import DEFAULT_MODEL, DeviceOption, DtypeOption, JsonOption, PickleOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError
from elysium_core.families.elysium import as_elysium

if TYPE_CHECKING:
    from bench.engine_cost import Subject

    _Maker = Callable[[float, int, int], Subject]
    """Makes a subject from a frame rate [Hz], a number of targets and the number of a scene."""

RANDOM = "random"
_WINDOWS = ("anchor", "growing")
_RATES_HZ = (30.0, 10.0, 5.0)
_TARGETS = (1, 2, 4, 8, 16)
_MOST_TARGETS = 16
_SCENE = 7
# Objects move differently: figures are means over several scenes.
_STREAMS = 8
# Frame side for a random model, which sees no pictures; in smaller frames, boxes would move in steps.
_SCENE_PX = 128


def command(
    model: Annotated[
        str, typer.Option("--model", "-m", help="nano, a folder, a hub id that was pulled, or random.")
    ] = DEFAULT_MODEL,
    size: Annotated[str, typer.Option("--size", help="Size of a random model: tiny, nano or paper (7B).")] = "nano",
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, max=128, help="Layers of a random model, if memory is short.")
    ] = None,
    visual_tokens: Annotated[
        int | None, typer.Option("--visual-tokens", min=1, max=1024, help="Visual tokens a frame of a random model.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option("--window", help="anchor or growing; repeatable; both by default.")
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option("--rate", help="Frames a second; repeatable; 30, 10 and 5 by default [Hz].")
    ] = None,
    targets: Annotated[
        list[int] | None, typer.Option("--targets", help="Targets, 1..16; repeatable; 1, 2, 4, 8, 16 by default.")
    ] = None,
    things: Annotated[
        int,
        typer.Option("--things", min=3, max=16, help="Objects in each scene, targets included."),
    ] = 3,
    frames: Annotated[int, typer.Option("--frames", min=33, max=500, help="Frames of a scene.")] = 36,
    clip_length: Annotated[
        int | None,
        typer.Option("--clip-length", min=2, max=32, help="Frames of a clip; the model's by default."),
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option("--draft-tokens", min=0, max=256, help="Tokens of the draft tree; 0 = one guess only.")
    ] = None,
    turns: Annotated[
        int, typer.Option("--turns", min=0, max=1000, help="Timed runs against transformers; 0 = counters only.")
    ] = 9,
    soak: Annotated[
        int, typer.Option("--soak", min=0, max=1_000_000, help="Frames of the long run, 20 or more; 0 = none.")
    ] = 300,
    clock: Annotated[str, typer.Option("--clock", help="wall, or processor on a busy machine.")] = "wall",
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="CPU threads of torch.")] = 1,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    allow_pickle_weights: PickleOption = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Plot the results into this PNG file.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure passes, tokens, memory and time of tracking.

    Targets move through generated frames. With --model random the true boxes are the answers:
    the cost is that of a trained model of this size. Times are given as ratios within this run,
    and only if the machine was idle.
    """
    import torch

    from bench.engine_peers import CLOCKS

    plan = _Plan(
        windows=_chosen("--window", window, _WINDOWS, _WINDOWS.__contains__),
        rates_hz=_chosen("--rate", rate, _RATES_HZ, lambda hz: 0.1 <= hz <= 1000),
        targets=sorted(_chosen("--targets", targets, _TARGETS, lambda count: 1 <= count <= _MOST_TARGETS)),
        clip_length=clip_length,
        turns=turns,
        clock=clock,
        soak=soak,
    )
    if clock not in CLOCKS:
        raise ConfigError(f"--clock {clock!r} is not one of {', '.join(CLOCKS)}")
    if plot is not None:
        check_plot(plot)
    if 0 < soak < 20:
        raise ConfigError(f"--soak {soak} is too short to show growth; use 20 frames or more")
    torch.set_num_threads(threads)
    if model == RANDOM:
        make_subject = _random_maker(size, layers, visual_tokens, _Scenes(frames, things), device, dtype)
    elif visual_tokens is not None or layers is not None:
        raise ConfigError("--visual-tokens and --layers go with --model random; a trained model has its own")
    else:
        make_subject = _trained_maker(model, _Scenes(frames, things), device, dtype, allow_pickle_weights)
    if draft_tokens is not None:
        make_subject = _with_draft_tokens(make_subject, draft_tokens)
    report = _report(make_subject(plan.rates_hz[0], 1, _SCENE), model, threads) | {"clock": clock, "things": things}
    _measure(report, make_subject, plan, _quiet if json else _show)
    if plot is not None:
        draw_plot(plot, report)
    if json:
        emit(report)


@dataclass(frozen=True, slots=True)
class _Scenes:
    """Size of the scenes; see the options."""

    frames: int
    things: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """The measurements to run; see the options."""

    windows: Sequence[str]
    rates_hz: Sequence[float]
    targets: Sequence[int]
    clip_length: int | None
    turns: int
    clock: str
    soak: int


def _show(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def _quiet(_lines: Sequence[str]) -> None:
    """Show nothing: JSON is written at the end."""


def _chosen(
    option: str, values: Sequence[Any] | None, default: Sequence[Any], fits: Callable[[Any], bool]
) -> list[Any]:
    chosen = list(dict.fromkeys(values or default))
    for value in chosen:
        if not fits(value):
            raise ConfigError(f"{option} {value} is out of range; see: python -m bench.engine --help")
    return chosen


def _trained_maker(model: str, scenes: _Scenes, device: str, dtype: str, allow_pickle_weights: bool) -> _Maker:
    """Load a model; return a function that makes subjects with it."""
    from bench import engine_workload as workload
    from bench.engine_cost import Subject
    from elysium_core.api import Elysium

    loaded = Elysium.from_pretrained(model, device=device, dtype=dtype, allow_pickle_weights=allow_pickle_weights)
    runtime = loaded.runtime
    side_px = runtime.family.side_px

    def make(rate_hz: float, targets: int, number: int) -> Subject:
        scene = workload.draw_scene(number, scenes.frames, targets, rate_hz, side_px, scenes.things)
        return Subject(runtime, scene, [seen.rows for seen in runtime.encode_frames(list(scene.images))], rate_hz)

    return make


def _random_maker(
    size: str, layers: int | None, visual_tokens: int | None, scenes: _Scenes, device: str, dtype: str
) -> _Maker:
    """Make a model of random weights; return a function that makes subjects with it."""
    from bench import engine_workload as workload
    from bench.engine_cost import Subject
    from elysium_core.device import resolve_device, resolve_dtype

    if size not in workload.SIZES:
        raise ConfigError(f"--size {size!r} is not one of {', '.join(workload.SIZES)}")
    chosen = workload.SIZES[size]
    chosen = replace(chosen, layers=layers or chosen.layers)
    place = resolve_device(device)
    runtime = workload.random_runtime(chosen, place, resolve_dtype(dtype, place))
    visual = workload.random_visual_tokens(runtime, scenes.frames, visual_tokens or chosen.visual_tokens)

    def make(rate_hz: float, targets: int, number: int) -> Subject:
        scene = workload.draw_scene(number, scenes.frames, targets, rate_hz, _SCENE_PX, scenes.things)
        return Subject(runtime, scene, visual, rate_hz, scripted=True)

    return make


def _with_draft_tokens(make: _Maker, draft_tokens: int) -> _Maker:
    return lambda rate_hz, targets, number: replace(make(rate_hz, targets, number), draft_tokens=draft_tokens)


def _report(subject: Subject, model: str, threads: int) -> dict[str, Any]:
    """Return the facts about model and machine."""
    import torch
    import transformers

    from elysium_core.device import device_name, dtype_name

    llm = as_elysium(subject.runtime.family).network.llm
    device = subject.runtime.device
    return {
        "model": model,
        "answers": "scripted" if subject.scripted else "the model's own",
        "llm_parameters": sum(weight.numel() for weight in llm.parameters()),
        "visual_tokens": len(subject.visual[0]),
        "clip_length": subject.runtime.family.settings.clip_length,
        "device": device_name(device),
        "dtype": dtype_name(llm.lm_head.weight.dtype),
        "threads": threads,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _measure(
    report: dict[str, Any],
    make_subject: _Maker,
    plan: _Plan,
    show: Callable[[Sequence[str]], None],
) -> None:
    """Run every measurement, show it when it is complete, and add it to the report."""
    from bench.engine_cost import PackingCost, measure_packing, measure_streams
    from bench.engine_peers import measure_peers
    from bench.engine_soak import measure_soak

    with Progress("engine", len(plan.windows) * (len(plan.rates_hz) + 1 + plan.soak) + 1) as bar:
        streams = []
        for window, rate_hz in product(plan.windows, plan.rates_hz):
            alone = [make_subject(rate_hz, 1, number) for number in range(_SCENE, _SCENE + _STREAMS)]
            streams.append(measure_streams(alone, window))
            bar.advance(f"{window}, {rate_hz:g} Hz")
        show(stream_lines(streams))
        packings: list[PackingCost] = []
        many = make_subject(plan.rates_hz[0], max(plan.targets), _SCENE)
        for window in plan.windows:
            packings += measure_packing(many, window, plan.targets)
            bar.advance(f"{window}, targets")
        show(packing_lines(packings))
        one = make_subject(plan.rates_hz[0], 1, _SCENE)
        comparison = measure_peers(one, plan.windows, plan.turns, plan.clip_length, plan.clock)
        bar.advance("transformers")
        show(peer_lines(comparison))
        soaks = [measure_soak(many, window, plan.soak, bar.advance) for window in plan.windows if plan.soak]
        show(soak_lines(soaks))
    report |= {
        "streams": [asdict(cost) for cost in streams],
        "packing": [asdict(cost) | {"token_ratio": cost.token_ratio} for cost in packings],
        "peers": comparison.as_json(),
        "soak": [asdict(cost) for cost in soaks],
    }


if __name__ == "__main__":
    from bench.app import run

    run("engine")
