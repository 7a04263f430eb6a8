"""Any recipe: one with ``base`` fine-tunes a model, one of ``kind: real`` trains on photos, others on drawings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.real.real_recipe import RealRecipe
from elysium_core.training.recipe_file import read_recipe, read_settings

AnyRecipe = Recipe | FineTuneRecipe | RealRecipe


def load_any_recipe(path: Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or has unknown keys, wrong types or values
            out of range; all of them are named at once.
    """
    raw = read_settings(path, overrides)
    if "base" in raw:
        return read_recipe(path, raw, FineTuneRecipe)
    return read_recipe(path, raw, RealRecipe) if "kind" in raw else read_recipe(path, raw, Recipe)
