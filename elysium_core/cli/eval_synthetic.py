"""``elysium eval synthetic``: score a model on the frozen test set, which is drawn on the spot."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from elysium_core.cli.options import (
    DEFAULT_MODEL,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PickleOption,
    QuantizeOption,
    VisionBackendOption,
    ZoomOption,
    load_model,
)
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError
from elysium_core.evaluation.metrics import Ranks
from elysium_core.evaluation.report import as_lines, write_report
from elysium_core.evaluation.synthetic_run import clip_names, run_synthetic
from elysium_core.evaluation.synthetic_scores import synthetic_report


def command(
    model: ModelOption = DEFAULT_MODEL,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Run folder; goes on there.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N clips of each part.")] = None,
    zoom: ZoomOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vision_backend: VisionBackendOption = "auto",
    quantize: QuantizeOption = "none",
    allow_pickle_weights: PickleOption = False,
    json: JsonOption = False,
) -> None:
    """Score a model on the frozen test set of generated video; needs no data.

    REC, REG, SOT, RSOT, Video-REG, and whether it notices that something is not
    there, by number of objects and beside answers that need no model. A run that was
    stopped goes on where it was when the same command is given again.
    """
    if Ranks.from_environment().world_size > 1:
        raise ConfigError("eval synthetic runs in one process; start it without torchrun")
    folder = out or Path("runs") / "eval" / (
        "synthetic-" + re.sub(r"[^\w.+-]+", "_", model) + ("-zoom" if zoom else "")
    )
    perception = load_model(model, device, dtype, vision_backend, quantize, allow_pickle_weights=allow_pickle_weights)
    with Progress("eval synthetic", len(clip_names(limit))) as progress:
        for name in run_synthetic(perception, model, folder, limit, zoom=zoom):
            progress.advance(name)
    perception.close()
    report = synthetic_report(folder)
    paths = write_report(folder, report)
    if json:
        emit({"title": report.title, "facts": report.facts, "warnings": list(report.warnings), **report.scores})
    else:
        for line in as_lines(report):
            say(line)
    for path in paths:
        sys.stderr.write(f"elysium: wrote {path}\n")
