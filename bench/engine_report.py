"""Reports of ``python -m bench.engine``: tables for the terminal, and one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elysium_core.errors import ConfigError, pip_line
from elysium_core.io.files import atomic_path

if TYPE_CHECKING:
    from bench.engine_cost import PackingCost, StreamCost
    from bench.engine_peers import PeerComparison
    from bench.engine_soak import SoakCost

# Colours that can be told apart in print and by colour-blind people (Okabe and Ito).
_COLORS = {"anchor": "#1b6ca8", "growing": "#cc3311"}
_BAR_COLOR = "#009e73"


def stream_lines(costs: Sequence[StreamCost]) -> list[str]:
    """Return the table of streams with one target."""
    header = (
        f"{'window':<9}{'rate':>7}{'still':>7}{'passes':>8}{'most':>6}{'tokens':>8}{'encodes':>9}{'drafts right':>14}"
        f"{'in 1 pass':>11}{'no box':>8}{'KV held':>9}"
    )
    lines = ["One target, live; counters a frame", header]
    for cost in costs:
        rate = f"{cost.rate_hz:g} Hz"
        line = (
            f"{cost.window:<9}{rate:>7}{cost.repeat_rate:>7.2f}{cost.passes:>8.2f}{cost.passes_max:>6}"
            f"{cost.tokens:>8.1f}{cost.vision_encodes:>9.2f}{cost.acceptance:>14.0%}{cost.whole_answers:>11.0%}"
            f"{cost.departures:>8}{cost.kv_used:>9}"
        )
        lines.append(line)
    return [*lines, ""]


def packing_lines(costs: Sequence[PackingCost]) -> list[str]:
    """Return the table of several targets in one stream and in separate ones."""
    lines = [
        "Several targets in one stream, compared with a stream for each",
        f"{'window':<9}{'targets':>8}{'tokens':>9}{'apart':>9}{'ratio':>7}{'passes':>8}{'apart':>7}  same boxes",
    ]
    lines += [
        f"{cost.window:<9}{cost.targets:>8}{cost.tokens:>9}{cost.tokens_apart:>9}{cost.token_ratio:>7.2f}{cost.passes:>8}"
        f"{cost.passes_apart:>7}  {cost.identical}/{cost.boxes}"
        for cost in costs
    ]
    return [*lines, ""]


def peer_lines(comparison: PeerComparison) -> list[str]:
    """Return the table of our ways and transformers', and the speed-ups."""
    lines = [
        f"Against transformers' generate: one target, {comparison.frames} frames, clips of {comparison.clip_length}",
        f"{'way':<28}{'passes/frame':>14}{'tokens/frame':>14}{'seconds':>10}  same answers",
    ]
    for peer in comparison.peers:
        seconds = "" if peer.seconds is None else f"{peer.seconds:.3f}"
        same = "" if peer.identical is None else f"{peer.identical}/{peer.answers}"
        lines.append(f"{peer.name:<28}{peer.passes:>14.2f}{peer.tokens:>14.1f}{seconds:>10}  {same}".rstrip())
    for (baseline, ours), ratio in comparison.ratios.items():
        result = ratio.refused
        if not result:
            low, middle, high = ratio.quartiles
            result = f"{middle:.1f}x faster ({low:.1f}..{high:.1f})"
        lines.append(f"{ours} against {baseline}: {result}")
    return [*lines, ""]


def soak_lines(costs: Sequence[SoakCost]) -> list[str]:
    """Return the table of long runs."""
    if not costs:
        return []
    header = (
        f"{'window':<9}{'frames':>8}{'vision':>8}{'ms p50':>9}{'p95':>8}{'p99':>8}{'FPS':>8}{'passes early, late':>20}"
        f"{'KV':>12}{'MiB':>8}{'growth':>9}"
    )
    lines = ["Long run, one target", header]
    for cost in costs:
        memory = "?" if cost.memory_mib is None else f"{cost.memory_mib:.0f}"
        growth = "?" if cost.memory_growth is None else f"{cost.memory_growth:+.2%}"
        lines.append(
            f"{cost.window:<9}{cost.frames:>8}{'yes' if cost.vision else 'no':>8}{cost.ms[0]:>9.1f}{cost.ms[1]:>8.1f}"
            f"{cost.ms[2]:>8.1f}{cost.frames_per_second:>8.1f}{f'{cost.passes_early:.2f}, {cost.passes_late:.2f}':>20}"
            f"{f'{cost.kv_early}, {cost.kv_late}':>12}{memory:>8}{growth:>9}"
        )
    return lines


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be written. Called before anything is measured.

    Raises:
        ConfigError: It is no PNG file, its folder does not exist, or matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--plot {path} is not a PNG file; give a name that ends in .png")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: the folder {path.parent} does not exist; make it first")
    _figure_class()


def draw_plot(path: Path, report: Mapping[str, Any]) -> None:
    """Plot passes by rate, tokens by targets, and the speed-up over transformers if it was timed.

    Args:
        path: The PNG file to write.
        report: The report that ``python -m bench.engine --json`` writes.
    """
    figure = _figure_class()(figsize=(13, 4.2), layout="constrained")
    rates, targets, times = figure.subplots(1, 3)
    _draw_rates(rates, report["streams"])
    _draw_targets(targets, report["packing"])
    _draw_times(times, report["peers"]["ratios"])
    figure.suptitle(
        f"{report['model']}: {report['llm_parameters'] / 1e6:.1f} M parameters, {report['visual_tokens']} visual "
        f"tokens, {report['device']}, {report['dtype']}, {report['threads']} thread(s)"
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw_rates(axes: Any, streams: list[Mapping[str, Any]]) -> None:
    for window in dict.fromkeys(stream["window"] for stream in streams):
        chosen = sorted((s["rate_hz"], s["passes"]) for s in streams if s["window"] == window)
        axes.plot(*zip(*chosen, strict=True), marker="o", color=_COLORS[window], label=window)
    axes.set(xlabel="frame rate that the motion corresponds to [Hz]", ylabel="passes a frame", title="One target")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="window")


def _draw_targets(axes: Any, packing: list[Mapping[str, Any]]) -> None:
    for window in dict.fromkeys(cost["window"] for cost in packing):
        chosen = sorted((c["targets"], c["token_ratio"]) for c in packing if c["window"] == window)
        axes.plot(*zip(*chosen, strict=True), marker="o", color=_COLORS[window], label=window)
    axes.set(xlabel="targets", ylabel="tokens together / apart", title="Targets share frames", ylim=(0, 1.05))
    axes.grid(alpha=0.3)
    axes.legend(title="window")


def _draw_times(axes: Any, ratios: list[Mapping[str, Any]]) -> None:
    timed = [ratio for ratio in ratios if not ratio["refused"]]
    axes.set(xlabel="times faster: median and quartiles", title="Same weights, same frames")
    if not timed:
        axes.text(0.5, 0.5, "not timed" if not ratios else "the machine was not idle", ha="center", va="center")
        axes.set(xticks=[], yticks=[])
        return
    low, middle, high = zip(*(ratio["quartiles"] for ratio in timed), strict=True)
    spread = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
    labels = [f"{ratio['ours']}\nagainst {ratio['baseline']}" for ratio in timed]
    axes.barh(labels, middle, xerr=spread, color=_BAR_COLOR)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _figure_class() -> Any:
    try:
        # Not pyplot: it needs a display, and shares state with other plots of the program.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"--plot needs matplotlib, which is not installed: {pip_line('matplotlib')}", code="PACKAGE_MISSING"
        ) from error
    return Figure
