"""The figures of ``python -m bench.engine`` as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError
from elysium_core.io.files import atomic_path

# Colours that stay apart in print and for the colour-blind (Okabe and Ito).
_COLORS = {"anchor": "#1b6ca8", "growing": "#cc3311"}
_BAR_COLOR = "#009e73"


def check_plot(path: Path) -> None:
    """Refuse a plot before anything is measured.

    Raises:
        ConfigError: It is no PNG file, its folder does not exist, or matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--plot {path} is not a PNG file; give a name that ends in .png")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: the folder {path.parent} does not exist; make it first")
    _figure_class()


def draw_plot(path: Path, report: Mapping[str, Any]) -> None:
    """Draw passes by rate, tokens by targets, and how many times faster than transformers, where it was timed.

    Args:
        path: PNG file to write.
        report: As ``python -m bench.engine --json`` prints it.
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
    axes.set(xlabel="frames a second that the motion stands for", ylabel="passes a frame", title="One target")
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
    told = [ratio for ratio in ratios if not ratio["refused"]]
    axes.set(xlabel="times faster: median and quartiles", title="Same weights, same frames")
    if not told:
        axes.text(0.5, 0.5, "not timed" if not ratios else "the machine was not quiet", ha="center", va="center")
        axes.set(xticks=[], yticks=[])
        return
    low, middle, high = zip(*(ratio["quartiles"] for ratio in told), strict=True)
    spread = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
    labels = [f"{ratio['ours']}\nagainst {ratio['baseline']}" for ratio in told]
    axes.barh(labels, middle, xerr=spread, color=_BAR_COLOR)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _figure_class() -> Any:
    try:
        # The class itself, not pyplot: no display, no state shared with the caller's own plots.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed: pip install 'elysium-core[eval]'", code="PACKAGE_MISSING"
        ) from error
    return Figure
