"""A checkpoint with EfficientNet and a selector for crops: saved, loaded, damaged, told of."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.weight_files import network_name
from elysium_core.cli.app import app
from elysium_core.errors import ModelFileError


@pytest.fixture
def copied(crop_folder, tmp_path):
    """A copy that a test may change; its manifest would refuse the change."""
    folder = shutil.copytree(crop_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    return folder


def test_every_weight_is_loaded_as_it_was_stored(crop_folder, crop_network):
    stored = load_file(crop_folder / "model.safetensors")
    state = crop_network.state_dict()
    assert stored.keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert {"visual_encoder.stem.weight", "adapter.neck.norm.running_var", "target_selector.gate.bias"} <= stored.keys()
    assert not any("vision_model" in name for name in stored)


def test_statistics_of_batch_norms_are_no_parameters(crop_network):
    names = {name for name, _ in crop_network.named_parameters()}
    statistics = {name for name, _ in crop_network.named_buffers()}
    assert any(name.endswith("running_mean") for name in statistics)
    assert not any("running" in name for name in names)


def test_a_saved_model_comes_back_byte_for_byte(crop_folder, tmp_path):
    Elysium.from_pretrained(crop_folder, device="cpu", dtype="bfloat16").save_pretrained(tmp_path / "saved")
    for file in ("model.safetensors", "config.json", "vision/config.json", "llm/config.json", "SHA256SUMS"):
        assert (tmp_path / "saved" / file).read_bytes() == (crop_folder / file).read_bytes(), file


def test_half_precision_sees_nearly_the_same(crop_folder, crop_network):
    half = load_checkpoint(crop_folder, dtype=torch.bfloat16).network
    pixels, boxes = torch.randn(1, 3, 32, 32), torch.tensor([[0.2, 0.2, 0.8, 0.8]])
    with torch.no_grad():
        expected = crop_network.encode_anchors(pixels, boxes).tokens
        found = half.encode_anchors(pixels, boxes).tokens
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"crop_config": None}, "follow 'crop' needs a crop_config"),
        ("config.json", {"crop_config": {"live_px": 96, "num_features": 24}}, "do not fit its config.json: target_sel"),
        ("config.json", {"crop_config": {"num_features": 25}}, "num_features = 25, but the projector takes tokens of"),
        ("vision/config.json", {"image_size": 96}, "says 16 tokens of width 432, but the vision encoder 'vision' give"),
        ("vision/config.json", {"model_type": "resnet"}, "describes a 'resnet' vision encoder"),
        ("vision/config.json", {"model_type": "clip_vision_model"}, "says 16 tokens of width 432"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(copied, edit_json, file, change, said):
    edit_json(copied / file, **change)
    with pytest.raises(ModelFileError, match=said) as caught:
        load_checkpoint(copied)
    assert "\n" not in str(caught.value)


def test_only_names_of_clip_get_its_prefix():
    assert network_name("visual_encoder.pre_layrnorm.bias") == "visual_encoder.vision_model.pre_layrnorm.bias"
    for name in ("visual_encoder.stem.weight", "visual_encoder.blocks.3.convs.0.bias", "visual_encoder.vision_model.x"):
        assert network_name(name) == name


def test_info_tells_how_it_follows(crop_folder):
    result = CliRunner().invoke(app, ["info", str(crop_folder)], catch_exceptions=False)
    text = " ".join(result.stdout.split())
    assert "input 64x64 px, 6 of 16 tokens kept (efficientnet_lite0)" in text
    assert "crops anchor 32x32 px, 3 tokens; live 64x64 px, 6 tokens follows in crops" in text
    facts = json.loads(CliRunner().invoke(app, ["info", str(crop_folder), "--json"]).stdout)
    assert (facts["follow"], facts["crop_px"], facts["crop_tokens"]) == ("crop", [32, 64], [3, 6])
