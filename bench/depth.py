"""``python -m bench.depth``: errors of the positions that depth images give, in scenes whose geometry is known.

Each target is seen at many depths, through a depth camera with noise and holes, in boxes whose edges are off as those
of a model are. Beside the node's estimate stand three simple ones: mean and median of the box, and its middle pixel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from bench.depth_scenes import CAMERA, HEIGHT, WIDTH, View, loosened, scenes
from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.geometry import Box
from elysium_ros.perception.depth import find_position

_MM = 0.001
_NEAREST_M, _FARTHEST_M = 0.8, 4.0
# Targets lie this far to the side at most, as a share of their depth.
_ASIDE = 0.25
_BOXES = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One box of one scene. Errors are absolute.

    Attributes:
        has_position: The estimate says that it knows the position.
        depth: Its error in z [m]; NaN without a position, like the next two.
        aside: Its error in x and y together [m].
        size: The larger of its errors of width and height, as a share of the truth.
        mean: Error in z of the mean of the box [m].
        median: Error in z of the median of the box [m].
        middle: Error in z of the middle pixel [m]; NaN in a hole.
        took_s: Time of the estimate [s].
    """

    has_position: bool
    depth: float
    aside: float
    size: float
    mean: float
    median: float
    middle: float
    took_s: float


def measure(views: int, looseness: float, seed: int) -> dict[str, list[Sample]]:
    """Return samples by scene.

    Args:
        views: Views of each scene, >= 1.
        looseness: How far the edges of a box are off at most, as a share of its sides, 0..0.4.
        seed: Of depths, boxes, noise and holes.
    """
    random = np.random.default_rng(seed)
    samples: dict[str, list[Sample]] = {}
    for _ in range(views):
        z = float(random.uniform(_NEAREST_M, _FARTHEST_M))
        x = float(random.uniform(-_ASIDE, _ASIDE)) * z
        for name, scene in scenes(z, x).items():
            view = scene.render(random)
            samples.setdefault(name, []).extend(
                _sample(view, loosened(view.box, random, looseness)) for _ in range(_BOXES)
            )
    return samples


def _sample(view: View, box: Box) -> Sample:
    center, size = view.truth()
    begin_s = time.perf_counter()
    position = find_position(view.depth_mm, _MM, box, CAMERA)
    took_s = time.perf_counter() - begin_s
    left, top, right, bottom = (round(edge) for edge in box.to_px(WIDTH, HEIGHT))
    inside = view.depth_mm[top:bottom, left:right] * _MM
    known = inside[inside > 0]
    middle = float(inside[inside.shape[0] // 2, inside.shape[1] // 2]) or math.nan
    depth = aside = off = math.nan
    if position is not None:
        gap = np.abs(np.array(position.center) - center)
        depth, aside = float(gap[2]), float(np.hypot(gap[0], gap[1]))
        off = float(np.abs(np.array(position.size[:2]) / size[:2] - 1).max())
    mean, median, middle = (abs(float(value) - float(center[2])) for value in (known.mean(), np.median(known), middle))
    return Sample(position is not None, depth, aside, off, mean, median, middle, took_s)


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the share with a position, and median and 95th percentile of each error (None if there is none)."""
    figures: dict[str, Any] = {"has_position": round(sum(s.has_position for s in samples) / len(samples), 3)}
    for name in ("depth", "aside", "size", "mean", "median", "middle", "took_s"):
        values = [value for sample in samples if not math.isnan(value := getattr(sample, name))]
        places = 6 if name == "took_s" else 4
        figures[name] = [round(float(v), places) for v in np.percentile(values, (50, 95))] if values else None
    return figures


def command(
    views: Annotated[int, typer.Option("--views", min=1, max=10_000, help="Views of each scene.")] = 40,
    looseness: Annotated[
        float, typer.Option("--looseness", min=0.0, max=0.4, help="How far edges of boxes are off, of their sides.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of depths, boxes, noise and holes.")] = 0,
    json: JsonOption = False,
) -> None:
    """Measure the errors of positions from depth in scenes with known geometry."""
    figures = {name: summary(samples) for name, samples in measure(views, looseness, seed).items()}
    if json:
        emit({"views": views, "boxes": _BOXES * views, "looseness": looseness, "seed": seed, "scenes": figures})
        return
    say(f"{WIDTH}x{HEIGHT} px, {_NEAREST_M:g} to {_FARTHEST_M:g} m, edges off by up to {looseness:.0%}; median / 95 %")
    heads = ("position", "z [cm]", "x, y [cm]", "size [%]", "mean [cm]", "median [cm]", "middle [cm]", "time [ms]")
    say(f"{'scene':<28}" + "".join(f"{head:>15}" for head in heads))
    scales = {"depth": 100, "aside": 100, "size": 100, "mean": 100, "median": 100, "middle": 100, "took_s": 1000}
    for name, row in figures.items():
        cells = [f"{row['has_position']:.0%}", *(_pair(row[key], scale) for key, scale in scales.items())]
        say(f"{name:<28}" + "".join(f"{cell:>15}" for cell in cells))


def _pair(values: list[float] | None, scale: float) -> str:
    return "-" if values is None else " / ".join(f"{value * scale:.1f}" for value in values)


if __name__ == "__main__":
    from bench.app import run

    run("depth")
