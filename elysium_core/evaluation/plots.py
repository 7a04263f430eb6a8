"""Success and precision plots of a tracking run, as PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError
from elysium_core.evaluation.metrics import Floats
from elysium_core.evaluation.protocols import Protocol, Summary
from elysium_core.evaluation.scoring import Scores
from elysium_core.io.files import atomic_path

# The model is drawn last and strongest; what it is measured against stays in the background.
_STYLES: dict[str, dict[str, Any]] = {
    "perfect": {"color": "#7f7f7f", "linestyle": ":"},
    "rounded": {"color": "#7f7f7f", "linestyle": "--"},
    "frozen": {"color": "#d95f02", "linestyle": "-."},
    "centre": {"color": "#e6ab02", "linestyle": "-."},
}
_MODEL_STYLE: dict[str, Any] = {"color": "#1b6ca8", "linewidth": 2.5, "zorder": 3}


@dataclass(frozen=True, slots=True)
class _Plot:
    file: str
    title: str
    x_label: str
    thresholds: Floats
    curve: str
    number: str


def draw_plots(folder: Path, protocol: Protocol, scores: Mapping[str, Scores]) -> list[str]:
    """Draw the curves a protocol defines; every baseline and the model in each.

    Args:
        folder: Where the PNG files go.
        protocol: Whose curves they are.
        scores: Name of tracker -> its figures.

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
        for name in sorted(scores, key=lambda name: name not in _STYLES):
            _draw_curve(axes, plot, name, scores[name])
        axes.set(xlabel=plot.x_label, ylabel="share of frames", title=plot.title, ylim=(0, 1.02))
        axes.set_xlim(0, float(plot.thresholds[-1]))
        axes.grid(alpha=0.3)
        # Beside the axes: inside it would hide a curve on some data.
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        with atomic_path(folder / plot.file) as temporary:
            figure.savefig(temporary, dpi=150)
        names.append(plot.file)
    return names


def _draw_curve(axes: Any, plot: _Plot, name: str, scores: Scores) -> None:
    value = getattr(scores, plot.number)
    label = name if value is None else f"{name} [{100 * value:.1f}]"
    axes.plot(plot.thresholds, getattr(scores, plot.curve), label=label, **_STYLES.get(name, _MODEL_STYLE))


def _plots(protocol: Protocol) -> list[_Plot]:
    number = "auc" if protocol.auc is not Summary.NONE else "average_overlap"
    plots = [
        _Plot(
            "success.png",
            f"Success ({protocol.name})",
            "overlap threshold",
            protocol.overlap_thresholds,
            "success",
            number,
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
            )
        )
    return plots


def _figure_class() -> Any:
    try:
        # The class itself, not pyplot: no display, no state shared with the caller's own plots.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'elysium-core[eval]'", code="PACKAGE_MISSING"
        ) from error
    return Figure
