from __future__ import annotations

import json
import shutil

import pytest

from elysium_core.api import Elysium
from elysium_core.checkpoint.locations import checkpoint_folder


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint_folder("nano"), folder)
    return folder


def test_it_tells_what_the_loaded_model_is(elysium):
    (facts,) = elysium("info", "nano", "--json").lines
    model = Elysium.from_pretrained("nano", device="cpu")
    assert facts["parameters"] == model.info.parameters
    assert facts["clip_length"] == model.info.clip_length
    config = model.runtime.family.network.config
    assert facts["names"] == list(config.vocabulary)
    assert facts["visual_tokens"] == config.adapter.out_token_num
    assert facts["patch_tokens"] == model.runtime.family.network.visual_encoder.token_count
    assert facts["input_px"] == model.runtime.family.network.visual_encoder.side_px


def test_every_name_is_listed(elysium):
    outcome = elysium("info")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    names = elysium("info", "--json").lines[0]["names"]
    assert f"{len(names)} names only: {', '.join(names)}" in text


def test_a_model_without_a_list_knows_a_language(elysium, copied):
    path = copied / "config.json"
    settings = json.loads(path.read_text())
    settings["elysium"]["vocabulary"] = []
    path.write_text(json.dumps(settings))
    assert "vocabulary   open" in elysium("info", copied).out


def test_weights_of_another_kind_are_not_opened(elysium, copied):
    (copied / "model.safetensors").unlink()
    assert elysium("info", copied, "--json").lines[0]["parameters"] is None
    assert "unknown" in elysium("info", copied).out


def test_what_is_wrong_is_one_line(elysium, tmp_path):
    outcome = elysium("info", tmp_path)
    assert outcome.code == 2
    assert "is this a model folder?" in outcome.err
    assert len(outcome.err.splitlines()) == 1
