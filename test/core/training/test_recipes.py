from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import ConfigError
from elysium_core.training.finetune.finetune_recipe import READER_NAMES
from elysium_core.training.finetune.sources import READERS
from elysium_core.training.nano.nano_recipe import KINDS, Recipe
from elysium_core.training.nano.stages import STAGES
from elysium_core.training.recipes import load_any_recipe

RECIPES = Path(__file__).parents[3] / "training"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_recipes_of_the_repository_can_be_read(path):
    recipe = load_any_recipe(path)
    assert recipe.export in recipe.stages


def test_every_kind_of_stage_has_a_step():
    assert tuple(STAGES) == KINDS


def test_every_layout_of_data_has_a_reader():
    assert set(READERS) == set(READER_NAMES)


def test_values_become_their_types(recipe: Recipe):
    assert recipe.data.gaps == ((0.5, 1.0), (0.5, 2.0), (0.5, 1.0))
    assert recipe.stages["distil"].parts == (
        ("network.visual_encoder", "network.adapter", "patch_heads"),
        ("network.llm", "oracle"),
    )
    assert list(recipe.stages) == ["vision", "language", "distil", "joint"]
    assert recipe.stages["vision"].lr == 1.2e-3  # the default


def test_overrides_change_any_value(recipe_file):
    recipe = load_any_recipe(
        recipe_file,
        ["stages.joint.steps=9", "data.names=5", "stages.joint.lr=1e-3", "name=mine", "data.objects=[1, 2, 4]"],
    )
    assert (recipe.stages["joint"].steps, recipe.data.names, recipe.name) == (9, 5, "mine")
    assert recipe.stages["joint"].lr == 0.001
    assert recipe.data.objects == (1, 2, 4)


def problems_of(path, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_any_recipe(path, list(overrides))
    assert caught.value.code == "CONFIG"
    return str(caught.value)


def test_all_unknown_keys_are_told_at_once(recipe_file):
    message = problems_of(recipe_file, "colour=red", "model.depth=3", "stages.vision.stepz=3", "data.sead=1")
    for key in ("colour", "model.depth", "stages.vision.stepz", "data.sead"):
        assert f"unknown key {key}" in message


@pytest.mark.parametrize(
    ("override", "near"),
    [("data.sead=1", "data.seed"), ("stages.vision.stepz=3", "stages.vision.steps"), ("modle={}", "model")],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(recipe_file, override, near):
    assert f"(did you mean {near}?)" in problems_of(recipe_file, override)


def test_a_key_like_no_other_gets_no_suggestion(recipe_file):
    assert "did you mean" not in problems_of(recipe_file, "stages.vision.qqq=3")


def test_problems_of_all_parts_are_told_at_once(recipe_file):
    overrides = ["colour=red", "model.patch_px=15", "data.max_turns=0", "stages.vision.lr=fast", "stages.joint.kind=x"]
    message = problems_of(recipe_file, *overrides)
    for key in (
        "colour",
        "model.side_px = 64",
        "data.max_turns = 0",
        "stages.vision.lr = 'fast'",
        "stages.joint.kind = 'x'",
    ):
        assert key in message


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("stages.vision.steps=many", "stages.vision.steps = 'many' must be a whole number"),
        ("stages.vision.steps=1.5", "stages.vision.steps = 1.5 must be a whole number"),
        ("stages.vision.steps=true", "stages.vision.steps = True must be a whole number"),
        ("stages.vision.lr=true", "stages.vision.lr = True must be a number"),
        ("stages.vision.words_frozen=1", "stages.vision.words_frozen = 1 must be true or false"),
        ("stages.distil.init=vision", "stages.distil.init = 'vision' must be a list"),
        ("stages.distil.init=[1]", "stages.distil.init[0] = 1 must be text"),
        ("data.gaps=[[1, 2, 3]]", "data.gaps[0] = [1, 2, 3] must have at most 2 entries"),
        ("data.gaps=[[1]]", "missing key data.gaps[0][1]"),
        ("data=3", "data = 3 must be a group of settings"),
        ("stages=[]", "stages = [] must be a group of settings"),
        ("stages={}", "stages = {} must have at least 1 entries"),
        ("stages.vision=", "stages.vision = None must be a group of settings"),
        ("stages={1: {kind: vision, steps: 1}}", "the key stages[1] must be text"),
        ("name=3", "name = 3 must be text"),
    ],
)
def test_wrong_types_are_told(recipe_file, override, problem):
    assert problem in problems_of(recipe_file, override)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.patch_px=15", "model.patch_px = 15"),
        ("model.side_px=16", "model.side_px = 16"),
        ("model.visual_tokens=17", "model.visual_tokens = 17 must be at most 16"),
        ("model.llm_heads=3", "model.llm_heads = 3"),
        ("model.llm_layers=0", "model.llm_layers = 0"),
        ("model.vocab_size=100", "model.vocab_size = 100"),
        ("data.names=100000", "data.names = 100000"),
        ("data.names=3", "data.objects = [1, 2, 3]"),
        ("data.frame_weights=[1.0]", "data.frame_weights = [1.0]"),
        ("data.object_weights=[0.5, 0.2, 0.2]", "data.object_weights = [0.5, 0.2, 0.2]"),
        ("data.object_weights=[-1, 1, 1]", "data.object_weights[0] = -1"),
        ("data.gaps=[[1, 0], [0, 1], [0, 1]]", "data.gaps = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]"),
        ("data.frames=[0, 1, 2]", "data.frames[0] = 0"),
        ("data.frames=[]", "data.frames = []"),
        ("data.max_turns=0", "data.max_turns = 0"),
        ("data.absent_share=1.5", "data.absent_share = 1.5"),
        ("data.seed=-1", "data.seed = -1"),
        ("stages.vision.kind=magic", "stages.vision.kind = 'magic' is not one of vision"),
        ("stages.vision.gate=open", "stages.vision.gate = 'open' is not one of hard"),
        ("stages.vision.frames=7", "stages.vision.frames = 7"),
        ("stages.vision.objects=[0, 2]", "stages.vision.objects[0] = 0"),
        ("stages.vision.objects=[6]", "stages.vision.objects = [6]"),
        ("stages.language.align_names=true", "stages.language.align_names = True"),
        ("stages.vision.steps=0", "stages.vision.steps = 0"),
        ("stages.vision.lr=-1", "stages.vision.lr = -1"),
        ("stages.vision.lr=.nan", "stages.vision.lr = nan"),
        ("stages.vision.lr=.inf", "stages.vision.lr = inf"),
        ("stages.vision.decay_from=2", "stages.vision.decay_from = 2"),
        ("stages.vision.init=[joint]", "stages.vision.init = ['joint']"),
        ("stages.vision.after=[joint]", "stages.vision.after = ['joint']"),
        ("stages.distil.parts=[[a]]", "stages.distil.parts = [['a']]"),
        ("export=nothing", "export = 'nothing'"),
    ],
)
def test_values_out_of_range_are_told(recipe_file, override, problem):
    assert problem in problems_of(recipe_file, override)


def test_a_long_value_is_cut(recipe_file):
    message = problems_of(recipe_file, f"stages.vision.init={'x' * 5000}")
    assert len(message) < 400


def test_a_stage_cannot_take_the_name_of_another_file(recipe_file):
    raw = yaml.safe_load(recipe_file.read_text())
    raw["stages"] |= dict.fromkeys(("../up", "tokenizer"), raw["stages"]["vision"])
    recipe_file.write_text(yaml.safe_dump(raw))
    message = problems_of(recipe_file)
    assert "stages.../up cannot be the name of a stage" in message
    assert "stages.tokenizer cannot be the name of a stage" in message


@pytest.mark.parametrize("override", ["steps", "a..b", "name.x=1", "stages.vision.steps=[", "=3"])
def test_a_broken_override_is_told(recipe_file, override):
    assert problems_of(recipe_file, override)


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"a: [", b"\xff\xfe\x00", b"", b"3"])
def test_a_broken_file_is_told(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    assert "recipe.yaml" in problems_of(path)


def test_a_missing_file_is_told(tmp_path):
    assert "cannot read the recipe" in problems_of(tmp_path / "none.yaml")


def test_missing_keys_are_told(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("stages: {vision: {steps: 3}}\n")
    message = problems_of(path)
    for key in ("export", "name", "stages.vision.kind"):
        assert f"missing key {key}" in message


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["steps", "kind", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["name", "stages", "export", "model", "data", "x"]), yaml_values))
def test_any_content_is_a_recipe_or_one_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    try:
        load_any_recipe(path)
    except ConfigError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
