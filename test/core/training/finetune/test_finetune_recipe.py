"""Recipes of fine-tuning: every problem is named with its key and value."""

from __future__ import annotations

import pytest

from elysium_core.errors import ConfigError
from elysium_core.training.recipes import load_any_recipe


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("base.vision=x", "base.checkpoint = "),
        ("base={vision: x}", "base.vision = 'x' needs base.llm"),
        ("base={llm: x}", "base.llm = 'x' needs base.vision"),
        ("base.adapter=glue", "base.adapter = 'glue'"),
        ("base.visual_tokens=0", "base.visual_tokens = 0"),
        ("base.chekpoint=x", "unknown key base.chekpoint (did you mean base.checkpoint?)"),
        ("data.chat.reader=telepathy", "data.chat.reader = 'telepathy'"),
        ("data.chat.tasks=[rec, guess]", "data.chat.tasks[1] = 'guess'"),
        ("data.chat.pth=x", "unknown key data.chat.pth (did you mean data.chat.path?)"),
        ("validation=[nowhere]", "validation = ['nowhere']"),
        ("precision=float8", "precision = 'float8'"),
        ("stored_as=int4", "stored_as = 'int4'"),
        ("seed=-1", "seed = -1"),
        ("export=nothing", "export = 'nothing'"),
        ("stages.all.mixture={nowhere: 1}", "stages.all.mixture.nowhere = 1.0"),
        ("stages.all.mixture.chat=0", "stages.all.mixture.chat = 0"),
        ("stages.all.mixture.chat=.nan", "stages.all.mixture.chat = nan"),
        ("stages.all.mixture={}", "stages.all.mixture = {}"),
        ("validation=[chat]", "stages.all.mixture.chat = 1.0"),
        ("stages.all.trained=[legs]", "stages.all.trained[0] = 'legs'"),
        ("stages.all.trained=[]", "stages.all.trained = []"),
        ("stages.all.lr_scale={legs: 1}", "stages.all.lr_scale.legs is not one of"),
        ("stages.all.lr_scale={vision: -1}", "stages.all.lr_scale.vision = -1"),
        ("stages.all.frames=[4, 2]", "stages.all.frames = [4, 2]"),
        ("stages.all.frames=[2, 33]", "stages.all.frames[1] = 33"),
        ("stages.all.interval=[0, 2]", "stages.all.interval[0] = 0"),
        ("stages.all.gate=score_scaled", "stages.all.gate = 'score_scaled'"),
        ("stages.all.evaluate_every=5", "stages.all.evaluate_every = 5"),
        ("stages.all.init=later", "stages.all.init = 'later'"),
        ("stages.all.ema=1", "stages.all.ema = 1"),
        ("stages.all.warmup_share=2", "stages.all.warmup_share = 2"),
        ("stages.all.workers=-1", "stages.all.workers = -1"),
        ("stages.all.clip_norm=-1", "stages.all.clip_norm = -1"),
    ],
)
def test_what_makes_no_sense_is_told(recipe_file, override, problem):
    with pytest.raises(ConfigError) as told:
        load_any_recipe(recipe_file, [override])
    assert told.value.code == "CONFIG"
    assert problem in str(told.value)


def test_a_recipe_cannot_be_changed_once_it_is_read(recipe):
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
