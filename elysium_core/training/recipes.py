"""Loads recipes of both kinds: with the key ``base`` for fine-tuning, without it for training from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.recipe_file import read_recipe, read_settings

AnyRecipe = Recipe | FineTuneRecipe


def load_any_recipe(path: Path, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or has unknown keys, wrong types or values
            out of range; all of them are named at once.
    """
    raw = read_settings(path, overrides)
    return read_recipe(path, raw, FineTuneRecipe) if "base" in raw else read_recipe(path, raw, Recipe)
