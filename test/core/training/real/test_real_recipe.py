from __future__ import annotations

import pytest

from elysium_core.errors import ConfigError, DataError
from elysium_core.training.real.real_recipe import KINDS, require_files
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.real_stages import STEPS
from elysium_core.training.real.trained_weights import TRAINED
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import claim_run


def problems_of(path, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load_any_recipe(path, list(overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_stage_has_a_step():
    assert tuple(STEPS) == tuple(TRAINED) == KINDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("kind=surreal", "kind = 'surreal' must be 'real'"),
        ("model.live_px=100", "model.live_px = 100 must be a multiple of 16"),
        ("model.live_tokens=65", "model.live_tokens = 65 must be at most 64, the cells of such a crop"),
        ("model.anchor_tokens=17", "model.anchor_tokens = 17 must be at most 16"),
        ("model.frame_tokens=17", "model.frame_tokens = 17 must be at most 16, the cells of a frame"),
        ("model.llm_width=60", "model.llm_width = 60 is not a multiple of twice model.llm_heads = 4"),
        ("model.encoder=resnet", "model.encoder = 'resnet' is not one of efficientnet_lite0"),
        ("data.absent_share=1.5", "data.absent_share = 1.5 must be at most 1"),
        ("data.true_box_share=0.8", "data.cutout_share = 0.3 and data.true_box_share = 0.8 are more than 1 together"),
        ("data.teachers=[a, b]", r"data.teachers = ['a', 'b'] must have at most 1 entries"),
        ("data.picture=x", "unknown key data.picture"),
        ("stages.read.vision_lr=0.1", "unknown key stages.read.vision_lr"),
        ("stages.read.encoder_lr=0.1", "stages.read.encoder_lr = 0.1 has no effect in a stage of kind read"),
        ("stages.joint.encoder_lr=-1", "stages.joint.encoder_lr = -1"),
        ("stages.read.distil_weight=1", "stages.read.distil_weight = 1.0 has no effect in a stage of kind read"),
        ("model.llm_layers=2", "model.llm_layers = 2 must be at least 3 in a model that knows words"),
        ("model.llm_heads=2", "model.llm_heads = 2 must be at least 4 in a model that knows words"),
        ("model.frame_px=160", "model.frame_px = 160 must be at most 128 in a model that knows words"),
        ("model.words=[red cup, plum, blue cup]", "has several names that end in 'cup'"),
        ("stages.select.kind=distil", "stages.select.kind = 'distil' is not one of read, select, joint, cells, find"),
        ("stages.joint.init=[reed]", "stages.joint.init = ['reed'] names reed, which is not a stage before it"),
        ("stages.select.init=[]", "stages.select.distil_weight = 1.0 needs a stage of kind read in init"),
        ("stages.joint.batch=1", "stages.joint.batch = 1 must be at least 2"),
        ("export=select", "export = 'select' is not a stage of kind joint"),
        (
            "stages.joint.average=[jiont]",
            "stages.joint.average = ['jiont'] names jiont, which is not a stage before it",
        ),
        ("stages.read.keep=0.5", "stages.read.keep = 0.5 needs a stage in init"),
        ("stages.joint.keep=1.5", "stages.joint.keep = 1.5 must be at most 1"),
        ("stages.read.average=[joint]", "stages.read.average = ['joint'] names joint, which is not a stage before it"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(real_file, change, said):
    assert said in problems_of(real_file, change)


def test_all_problems_are_told_at_once(real_file):
    said = problems_of(real_file, "model.neck=0", "data.pool=-1", "stages.joint.lr=fast", "export=read")
    assert [key for key in ("model.neck = 0", "data.pool = -1", "stages.joint.lr = 'fast'") if key not in said] == []


def test_missing_files_are_told_at_once(real_file, tmp_path):
    changes = ["model.encoder_weights=nowhere.safetensors", "data.photos=[nothing]", "data.cutouts=none"]
    recipe = load_any_recipe(real_file, changes)
    with pytest.raises(DataError) as caught:
        claim_run(recipe, tmp_path / "run")
    for part in ("'nowhere.safetensors' does not exist", "data.photos: 'nothing'", "training/photo_data.py cutouts"):
        assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_paths_have_to_be_filled_in(real_file):
    recipe = load_any_recipe(real_file, ["model.encoder_weights=''", "data.photos=[]"])
    with pytest.raises(DataError, match=r"encoder_weights is not filled in.*photos is not filled in"):
        require_files(recipe)


def test_a_stage_leaves_the_pools_their_folders(real_file):
    said = problems_of(real_file, "stages.frames={kind: read, steps: 1}")
    assert "stages.frames" in said
    assert "it is the folder of the drawn frames" in said


def test_a_model_without_words_may_be_smaller(real_file):
    recipe = load_any_recipe(real_file, ["model.words=[]", "model.llm_layers=2", "model.frame_px=160"])
    assert recipe.model.words == ()


def test_a_name_that_no_photo_shows_is_told(real_file, tmp_path):
    recipe = load_any_recipe(real_file, ["model.words=[plum, zeppelin, lemon]"])
    with pytest.raises(DataError, match=r"no photo of data\.photos has an annotated zeppelin"):
        RealStageRun(recipe, "joint", tmp_path)


def test_a_stage_knows_what_it_has_learnt_to_read_from(real_recipe):
    assert [real_recipe.has_read(name) for name in real_recipe.stages] == [False, True, True]
