"""``python -m bench.ablation``: trains and scores each token adapter of the paper's table 7 at small size.

The vision encoder and the language model are trained once. From both, a model with each adapter is trained on answers
alone, and finds objects by name in generated pictures that it has not seen.
"""

from __future__ import annotations

import json as json_lines
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.data.synthetic.assets import load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.published import published_tables
from elysium_core.evaluation.report import Report, Table, as_lines, percent, write_report
from elysium_core.geometry import Box
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.recipes import load_any_recipe

_RIGHT_FROM = 0.5
_LEAST_VISIBLE = 0.55
_SEED = 20261129
_SHARED = "shared"
# Tokens of the paper's T-Selectors, of 576 patches, whose shares are tried here.
_SELECTED = (1, 36, 72, 144, 288)
_NOTE = (
    "The paper's figures (table 7) are of models of 7B on photos: only the order can be compared. Which of its two "
    "fusions has which figure is not certain, so both stand there."
)
TABLE = ("ablation", "refcoco-val", "rec")
"""Where the paper's figures are in published.yaml."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One adapter.

    Attributes:
        adapter: Its name in :data:`elysium_core.network.adapters.ADAPTERS`.
        tokens: Tokens that it gives the language model.
        patches: Patches of a frame.
        paper: The row of the paper's table that it corresponds to, by the share of tokens it keeps; empty for none.
    """

    adapter: str
    tokens: int
    patches: int
    paper: str = ""

    @property
    def name(self) -> str:
        """Name of its folder and of its row."""
        return f"{self.adapter}-{self.tokens}"


@dataclass(frozen=True, slots=True)
class Score:
    """What a variant is worth; shares 0..1.

    Attributes:
        accuracy: Share of objects whose box has IoU >= .5 (Acc@0.5).
        right: In pictures of two objects: share of boxes that overlap the asked one more than the other.
        loss: Running mean of its loss on answers at the end of its training [nats a token].
        seconds: Processor time of its own training [s]; 0 if it was trained by an earlier command.
    """

    accuracy: float
    right: float
    loss: float
    seconds: float


def variants(patches: int) -> list[Variant]:
    """The adapters of the paper's table, with the shares of tokens that it has."""
    quarter = patches // 4
    # Of a small model two shares may be the same number of tokens.
    selectors = dict(
        reversed([(max(1, round(patches * n / 576)), f"T-Selector, {n} token{'s' * (n > 1)}") for n in _SELECTED])
    )
    return [
        Variant("none", patches, patches, "none, 576 tokens"),
        Variant("cross_attention", quarter, patches, "fusion, 144 tokens"),
        Variant("concatenation", quarter, patches, "fusion, 144 tokens"),
        *(Variant("t_selector", tokens, patches, row) for tokens, row in sorted(selectors.items())),
    ]


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="Such as training/ablation.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As for elysium train.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = Path("runs/ablation"),
    only: Annotated[list[str] | None, typer.Option("--only", help="A row such as t_selector-36; repeatable.")] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=2, help="Pictures that are scored.")] = 300,
    json: JsonOption = False,
) -> None:
    """Train and score each adapter, and print them beside the paper's figures. A stopped run is continued."""
    settings = load_any_recipe(recipe, overrides or [])
    if not isinstance(settings, Recipe) or [s.kind for s in settings.stages.values()][-1] != "adapter":
        raise ConfigError(f"{str(recipe)!r} is no recipe for an ablation; its last stage needs kind: adapter")
    every = variants(settings.model.patch_count)
    wanted = [each for each in every if not only or each.name in only]
    if only and len(wanted) != len(set(only)):
        raise ConfigError(f"--only {', '.join(only)} are not all of {', '.join(each.name for each in every)}")
    scores = {}
    with Progress("ablation", len(wanted)) as progress:
        train_shared(settings, out / _SHARED)
        for each in wanted:
            scores[each] = score(settings, train_variant(settings, each, out), pictures)
            progress.advance(each.name)
    report = as_report(settings, scores, pictures)
    write_report(out, report)
    if json:
        emit({"title": report.title, **report.scores})
    else:
        for line in as_lines(report):
            say(line)


def train_shared(recipe: Recipe, folder: Path) -> None:
    """Train the stages that all variants begin with."""
    from elysium_core.training.run import run_stage

    for name, stage in recipe.stages.items():
        if stage.kind != "adapter":
            run_stage(recipe, name, folder)


def train_variant(recipe: Recipe, variant: Variant, out: Path) -> tuple[Path, float]:
    """Train one variant from the shared stages, and write its checkpoint.

    Returns:
        The checkpoint's folder, and the processor time that the training took, 0 if it was done before [s].
    """
    from elysium_core.training.loop import DONE_NAME
    from elysium_core.training.nano.nano_model import export_stage
    from elysium_core.training.run import run_stage
    from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER

    folder = out / variant.name
    model = recipe.model.model_copy(update={"adapter": variant.adapter, "visual_tokens": variant.tokens})
    # Not checked anew: the shared stages, which would not fit this adapter, are finished.
    changed = recipe.model_copy(update={"model": model})
    for name in (TOKENIZER_FOLDER, *(name for name, stage in recipe.stages.items() if stage.kind != "adapter")):
        if not (folder / name).exists():
            # Without its settings, which are those of the shared recipe: train_shared() has compared them.
            shutil.copytree(
                out / _SHARED / name, folder / name, ignore=shutil.ignore_patterns("settings.json", "step-*")
            )
    last, begun = list(recipe.stages)[-1], time.process_time()
    if (folder / last / DONE_NAME).exists():
        return export_stage(changed, folder), 0.0
    run_stage(changed, last, folder)
    return export_stage(changed, folder), round(time.process_time() - begun, 1)


def score(recipe: Recipe, trained: tuple[Path, float], pictures: int) -> Score:
    """Score a checkpoint on held-out pictures."""
    from elysium_core.api import Elysium

    model = Elysium.from_pretrained(trained[0], device="cpu", vision_backend="torch")
    hits, right = [], []
    for picture, names, boxes in _pictures(recipe, pictures):
        for index, name in enumerate(names):
            found = model.ground(picture, f"the {name}").box
            overlaps = [0.0 if found is None else found.iou(box) for box in boxes]
            hits.append(overlaps[index] >= _RIGHT_FROM)
            if len(boxes) > 1:
                right.append(overlaps[index] > 0 and overlaps[index] == max(overlaps))
    model.close()
    return Score(_share(hits), _share(right), _last_loss(trained[0].parent / list(recipe.stages)[-1]), trained[1])


def _last_loss(stage: Path) -> float:
    lines = (stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json_lines.loads(lines[-1])["answer"])


def _pictures(recipe: Recipe, count: int) -> Iterator[tuple[NDArray[np.uint8], list[str], list[Box]]]:
    """Pictures with the well visible objects in them, on backgrounds that are not trained on."""
    names = trainable_names()[: recipe.data.names]
    generator = ClipGenerator(names, load_backgrounds("test"), _SEED, SceneConfig(side_px=recipe.model.side_px))
    for index in range(count):
        generator.reseed(_SEED, index)
        clip = generator.draw(1, 1 + index % 2, (0.5, 1.0))
        seen = [n for n in range(len(clip.names)) if clip.visible[n, 0] >= _LEAST_VISIBLE]
        if len(seen) == len(clip.names):
            yield clip.images[0], list(clip.names), [Box(*map(float, clip.boxes[n, 0])) for n in seen]


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def as_report(recipe: Recipe, scores: dict[Variant, Score], pictures: int) -> Report:
    """The figures of all variants beside those of the paper.

    Raises:
        DataError: Nothing was scored.
    """
    if not scores:
        raise DataError("no adapter was trained")
    paper: dict[str, list[str]] = {}
    for row in published_tables()[TABLE]:
        paper.setdefault(row.model.split(" (")[0], []).append(row.cell("Acc@0.5", 2))
    rows = []
    for each, figures in scores.items():
        kept = f"{each.tokens} of {each.patches}"
        beside = " / ".join(paper.get(each.paper, ["-"]))
        rows.append(
            [
                each.adapter,
                kept,
                percent(figures.accuracy),
                percent(figures.right),
                f"{figures.loss:.3f}",
                beside,
                each.paper or "-",
            ]
        )
    stages = ", ".join(f"{name} {stage.steps} steps" for name, stage in recipe.stages.items())
    return Report(
        title="Token adapters between the vision encoder and the language model",
        facts={
            "Task": f"find an object by its name, one or two objects in a picture, {pictures} generated pictures",
            "Model": f"{recipe.model.side_px} px, {recipe.model.patch_count} patches, {recipe.data.names} names",
            "Training": f"{stages}; batches of {list(recipe.stages.values())[-1].batch_frames} pictures",
        },
        warnings=[],
        tables=[
            Table(
                "Finding by name [%], and the loss on answers in training [nats a token]",
                ["adapter", "tokens", "Acc@0.5", "right of two", "loss", "paper, RefCOCO val", "row of the paper"],
                rows,
                (_NOTE,),
            )
        ],
        scores={each.name: asdict(figures) for each, figures in scores.items()},
    )


if __name__ == "__main__":
    from bench.app import run

    run("ablation")
