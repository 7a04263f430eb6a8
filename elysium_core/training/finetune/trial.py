"""A trial of every data set before the first step: one usable sample each, with its pictures and a question."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from elysium_core.errors import DataError, ElysiumError
from elysium_core.io.sampling import even_positions
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.samples import ask
from elysium_core.training.finetune.sources import open_source

# Items of a data set that are tried, spread over all of it; one that can be used is enough.
_TRIED = 50


def try_sources(recipe: FineTuneRecipe) -> None:
    """Read one sample of every data set that any stage of a recipe uses.

    Raises:
        DataError: A data set has another form than its reader expects, or none of the tried items can be used; one
            sentence names all such data sets.
    """
    if problems := list(_problems(recipe)):
        raise DataError(f"recipe {recipe.name}: {'; '.join(problems)}")


def _problems(recipe: FineTuneRecipe) -> Iterator[str]:
    stages = list(recipe.stages.values())
    for name, config in recipe.data.items():
        users = [stage for stage in stages if name in stage.mixture] or (stages if name in recipe.validation else [])
        if users and (reason := _reason(recipe, name, users[0])):
            yield f"data.{name} (reader {config.reader}): {reason}"


def _reason(recipe: FineTuneRecipe, name: str, stage: FineTuneStage) -> str:
    """Return why a data set cannot be used, empty if it can."""
    config, first = recipe.data[name], ""
    try:
        source = open_source(config)
    except ElysiumError as error:
        return str(error)
    for index in even_positions(len(source), _TRIED):
        try:
            ask(source[index], stage, config.tasks, np.random.default_rng(index))
        except ElysiumError as error:
            first = first or str(error)
        else:
            return ""
    return f"none of {min(len(source), _TRIED)} tried items can be used; the first: {first}"
