"""``elysium train``: train a model from a recipe file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from elysium_core.cli.output import Progress, say
from elysium_core.errors import ConfigError
from elysium_core.training.recipes import AnyRecipe, load_any_recipe

COMMAND_SETTINGS = {"context_settings": {"allow_interspersed_args": True}}


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="Recipe file; see training/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe settings to override.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/<name> if omitted.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Run only this stage, in this process.")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Maximum number of stages that run in parallel.")
    ] = 2,
    launcher: Annotated[
        Path | None,
        typer.Option(
            "--accelerate", metavar="CONFIG.yaml", help="accelerate config for several GPUs; see training/accelerate/."
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", min=1, help="Train each stage on this many GPUs of this machine; starts accelerate itself."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and the memory of fine-tuning, and stop.")
    ] = False,
) -> None:
    """Train a model from a recipe file. The same command continues a run that was stopped."""
    # A stage runs for hours, so it logs progress; the main process redirects this to the log file of the stage.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("elysium_core").setLevel(logging.INFO)
    settings = load_any_recipe(recipe, overrides or [])
    folder = out or Path("runs") / settings.name
    if dry_run:
        say(resolved(settings))
        _tell_memory(settings, launcher, gpus)
    elif stage is not None:
        if gpus is not None:
            raise ConfigError("--gpus does not go with --stage, which runs in this process; leave one of the two out")
        _run_stage(settings, recipe, stage, folder)
    else:
        if gpus is not None:
            from elysium_core.training.acceleration import launcher_for

            launcher = launcher_for(gpus, launcher, folder)
        _run_all(settings, recipe, overrides or [], folder, jobs, launcher)


def _run_stage(settings: AnyRecipe, recipe: Path, stage: str, folder: Path) -> None:
    from elysium_core.training.run import run_stage

    if stage not in settings.stages:
        raise ConfigError(f"{recipe} has no stage {stage!r}; it has {', '.join(settings.stages)}")
    run_stage(settings, stage, folder)


def _run_all(
    settings: AnyRecipe, recipe: Path, overrides: list[str], folder: Path, jobs: int, launcher: Path | None
) -> None:
    from elysium_core.training.acceleration import check_launcher, process_count, require_packages
    from elysium_core.training.run import claim_run, run_recipe

    if process_count() > 1:
        raise ConfigError(
            f"a whole recipe cannot run in {process_count()} launched processes; launch one stage with --stage, or use "
            "--accelerate CONFIG.yaml without a launcher"
        )
    require_packages()
    if launcher is not None:
        check_launcher(launcher)
    say(resolved(settings))
    claim_run(settings, folder)
    _estimate(settings, folder, launcher)
    with Progress("train", sum(planned.steps for planned in settings.stages.values())) as progress:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            while done < steps:
                progress.advance()
                done += 1

        checkpoint = run_recipe(settings, recipe, overrides, folder, jobs, advance, launcher)
    say(f"the checkpoint is in {checkpoint}; use it with --model {checkpoint}")


def _tell_memory(recipe: AnyRecipe, launcher: Path | None, gpus: int | None) -> None:
    """Print to stderr what each stage of fine-tuning needs in memory, as it is configured and in other ways."""
    from elysium_core.training.launch import read_launch
    from elysium_core.training.plans import plan_of

    plan, launch = plan_of(recipe), read_launch(launcher, gpus)
    for name in recipe.stages:
        for line in plan.memory(name, launch, others=True):
            sys.stderr.write(f"elysium: {name}: {line}\n")


def _estimate(recipe: AnyRecipe, folder: Path, launcher: Path | None) -> None:
    """Print to stderr the estimated cost of each unfinished stage."""
    from elysium_core.training.estimate import estimate_stages
    from elysium_core.training.launch import read_launch
    from elysium_core.training.plans import plan_of
    from elysium_core.training.run import steps_done

    plan, launch = plan_of(recipe), read_launch(launcher)
    done, make = steps_done(recipe, folder), plan.tried()
    steps = {name: stage.steps for name, stage in recipe.stages.items()}
    if make is not None:
        for estimate in estimate_stages(make, steps, done):
            sys.stderr.write(f"elysium: {estimate}\n")
        return
    for name, count in steps.items():
        if left := count - done.get(name, 0):
            (memory,) = plan.memory(name, launch)
            sys.stderr.write(f"elysium: {name}: {left} steps, time not estimated; {memory}\n")


def resolved(recipe: AnyRecipe) -> str:
    """Return the whole recipe as YAML, defaults included."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
