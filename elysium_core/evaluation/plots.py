"""Success and precision plots of a tracking run, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError, pip_line
from elysium_core.evaluation.metrics import Floats
from elysium_core.evaluation.protocols import Protocol, Summary
from elysium_core.evaluation.scoring import Scores
from elysium_core.io.files import atomic_path

# Models are drawn last, with thick lines; baselines stay in the background.
_STYLES: dict[str, dict[str, Any]] = {
    "perfect": {"color": "#7f7f7f", "linestyle": ":"},
    "rounded": {"color": "#7f7f7f", "linestyle": "--"},
    "frozen": {"color": "#d95f02", "linestyle": "-."},
    "centre": {"color": "#e6ab02", "linestyle": "-."},
}
# Colours that differ in print and for colour-blind readers (Okabe and Ito). After the last, the line style changes.
_MODEL_COLORS = ("#1b6ca8", "#cc3311", "#009e73", "#cc79a7", "#56b4e9", "#000000")
_MODEL_LINES = ("-", "--", ":")


@dataclass(frozen=True, slots=True)
class _Plot:
    file: str
    title: str
    x_label: str
    thresholds: Floats
    curve: str
    number: str
    heading: str
    marked: float | None = None


def draw_plots(folder: Path, protocol: Protocol, scores: Mapping[str, Scores]) -> list[str]:
    """Draw the curves that a protocol defines, each with the models and all baselines.

    Args:
        folder: Folder for the PNG files.
        protocol: The protocol.
        scores: Name of tracker -> its scores.

    Returns:
        The file names.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure_class = _figure_class()
    names = []
    for plot in _plots(protocol):
        figure = figure_class(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        if plot.marked is not None:
            axes.axvline(plot.marked, color="#bbbbbb", linewidth=1)
        for name, style in _styles(scores).items():
            _draw_curve(axes, plot, name, scores[name], style)
        axes.set(xlabel=plot.x_label, ylabel="share of frames", title=plot.title, ylim=(0, 1.02))
        axes.set_xlim(0, float(plot.thresholds[-1]))
        axes.grid(alpha=0.3)
        # The legend is beside the axes, because inside it could hide a curve.
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, title=f"tracker [{plot.heading}]")
        with atomic_path(folder / plot.file) as temporary:
            figure.savefig(temporary, dpi=150)
        names.append(plot.file)
    return names


def _styles(scores: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    """Return the style of each line, in drawing order."""
    styles = {name: _STYLES[name] for name in scores if name in _STYLES}
    for number, name in enumerate(name for name in scores if name not in _STYLES):
        line, color = divmod(number, len(_MODEL_COLORS))
        style = {"color": _MODEL_COLORS[color], "linestyle": _MODEL_LINES[line % len(_MODEL_LINES)]}
        styles[name] = style | {"linewidth": 2.5, "zorder": 3}
    return styles


def _draw_curve(axes: Any, plot: _Plot, name: str, scores: Scores, style: Mapping[str, Any]) -> None:
    value = getattr(scores, plot.number)
    label = name if value is None else f"{name} [{100 * value:.1f}]"
    axes.plot(plot.thresholds, getattr(scores, plot.curve), label=label, **style)


def _plots(protocol: Protocol) -> list[_Plot]:
    number, heading = ("average_overlap", "AO") if protocol.auc is Summary.NONE else ("auc", "AUC")
    plots = [
        _Plot(
            "success.png",
            f"Success ({protocol.name})",
            "overlap threshold",
            protocol.overlap_thresholds,
            "success",
            number,
            heading,
        )
    ]
    if protocol.precision is not Summary.NONE:
        plots.append(
            _Plot(
                "precision.png",
                f"Precision ({protocol.name})",
                "centre error threshold [px]",
                protocol.pixel_thresholds,
                "precision_px",
                "precision",
                "P",
                _marked(protocol.precision, protocol.pixel_thresholds),
            )
        )
    if protocol.norm_precision is not Summary.NONE:
        plots.append(
            _Plot(
                "norm_precision.png",
                f"Normalised precision ({protocol.name})",
                "centre error threshold / size of the true box",
                protocol.norm_thresholds,
                "precision_norm",
                "norm_precision",
                "P_norm",
                _marked(protocol.norm_precision, protocol.norm_thresholds),
            )
        )
    return plots


def _marked(summary: Summary, thresholds: Floats) -> float | None:
    """Return the threshold at which the curve has the value of the legend; None if that is another summary."""
    return float(thresholds[20]) if summary is Summary.AT_20 else None


def _figure_class() -> Any:
    try:
        # Figure instead of pyplot: it needs no display and shares no state with the caller's plots.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"plots need matplotlib, which is not installed: {pip_line('matplotlib')}", code="PACKAGE_MISSING"
        ) from error
    return Figure
