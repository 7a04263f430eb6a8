"""Fine-tuning of models on another vision encoder than CLIP."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.errors import ModelFileError
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.training.finetune.base_model import load_base
from elysium_core.training.finetune.finetune_recipe import BaseConfig
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import run_stage


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "again"])
def test_a_model_that_follows_in_crops_is_fine_tuned_on_frames(settings, write_recipe, crop_folder, tmp_path, forgets):
    settings["base"] = {"checkpoint": str(crop_folder)}
    settings["stages"]["all"] |= {"steps": 2, "gate": "straight_through", "gradient_checkpointing": forgets}
    run_stage(load_any_recipe(write_recipe(settings)), "all", tmp_path)
    folder = tmp_path / "all" / "checkpoint"
    before, after = load_file(crop_folder / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    parts = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert parts == {"visual_encoder", "adapter", "llm_proj", "llm"}
    network = load_checkpoint(folder, dtype=torch.float32).network
    assert isinstance(network.visual_encoder, EfficientNetEncoder)
    assert network.target_selector is not None


def test_two_towers_are_joined_with_clip_only(crop_folder):
    base = BaseConfig(vision=str(crop_folder / "vision"), llm=str(crop_folder / "llm"))
    with pytest.raises(ModelFileError, match=r"base\.vision is of the kind 'efficientnet_lite0'") as caught:
        load_base(base, seed=0)
    assert "start from a whole model with base.checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)
