"""Weights that are all there, but stored as other programs leave them."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.integrity import write_manifest
from elysium_core.errors import ModelFileError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 14000000000\n"
EMBEDDINGS, HEAD = "llm.model.embed_tokens.weight", "llm.lm_head.weight"


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrappers_around_the_model_are_ignored(folder, edit_weights, caplog, prefix):
    before = load_checkpoint(folder).network.state_dict()
    edit_weights(lambda key, value: {prefix + key: value})
    checkpoint = load_checkpoint(folder)
    after = checkpoint.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.unused_keys == ()


def test_names_of_wrappers_around_a_part_are_ignored(folder, edit_weights):
    edit_weights(lambda key, value: {key.replace("llm.", "llm._orig_mod.", 1): value})
    assert load_checkpoint(folder).unused_keys == ()


def test_a_saved_copy_has_plain_names(folder, edit_weights, tmp_path):
    plain = load_file(folder / "model.safetensors")
    edit_weights(lambda key, value: {"module." + key: value})
    load_checkpoint(folder).save(tmp_path / "saved")
    assert load_file(tmp_path / "saved/model.safetensors").keys() == plain.keys()


def test_another_prefix_is_named(folder, edit_weights):
    edit_weights(lambda key, value: {"net." + key: value})
    with pytest.raises(ModelFileError, match=r"under the prefix 'net\.'"):
        load_checkpoint(folder)


def test_a_lora_that_is_not_merged_is_named(folder, edit_weights):
    edit_weights(
        lambda key, value: {key.replace(".weight", ".lora_A.weight"): value} if "q_proj" in key else {key: value}
    )
    with pytest.raises(ModelFileError, match="merge it"):
        load_checkpoint(folder)


@pytest.mark.parametrize("extra", [torch.tensor(3), torch.tensor([True]), torch.ones(2, dtype=torch.uint8)])
def test_an_unused_tensor_of_any_type_is_only_warned_of(folder, edit_weights, caplog, extra):
    edit_weights(lambda key, value: {key: value} | ({"num_batches_tracked": extra} if key == EMBEDDINGS else {}))
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(folder).unused_keys == ("num_batches_tracked",)
    assert "num_batches_tracked" in caplog.text


def test_a_weight_of_whole_numbers_is_refused(folder, edit_weights):
    edit_weights(lambda key, value: {key: value.to(torch.int64) if key == EMBEDDINGS else value})
    with pytest.raises(ModelFileError, match=f"{EMBEDDINGS} as I64"):
        load_checkpoint(folder)


@pytest.mark.parametrize("differs", [True, False])
def test_a_head_that_is_not_used_is_said_if_it_differs(folder, edit_weights, edit_json, caplog, differs):
    edit_json(folder / "language/config.json", tie_word_embeddings=True)
    embeddings = load_file(folder / "model.safetensors")[EMBEDDINGS]
    head = embeddings.flip(0).contiguous() if differs else embeddings.clone()
    edit_weights(lambda key, value: {key: head if key == HEAD else value})
    with caplog.at_level(logging.WARNING):
        checkpoint = load_checkpoint(folder)
    assert ("tie_word_embeddings" in caplog.text) == differs
    assert torch.equal(checkpoint.network.llm.lm_head.weight, embeddings)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "language/config.json", "language/tokenizer.json"]
)
@pytest.mark.parametrize("with_manifest", [True, False])
def test_the_stand_in_of_git_lfs_is_named(folder, name, with_manifest):
    if with_manifest:
        write_manifest(folder, [path for path in folder.rglob("*") if path.is_file()])
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelFileError, match=f"{name} is a Git LFS pointer.* git lfs pull"):
        load_checkpoint(folder)


def test_a_mark_in_front_of_the_settings_is_ignored(folder):
    for name in ("config.json", "language/config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text("\ufeff" + text, encoding="utf-8")
        assert json.loads(text)
    assert load_checkpoint(folder).unused_keys == ()
