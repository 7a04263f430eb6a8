"""Loading and saving the published layout."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from elysium_core.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from elysium_core.checkpoint.weight_files import open_weights
from elysium_core.errors import BackendError, ModelFileError

SHARD_BYTES = 20_000


def save(checkpoint, folder, **options):
    settings = checkpoint.llm_settings, checkpoint.vision_settings
    save_checkpoint(
        folder, checkpoint.network, checkpoint.config, *settings, llm_folder=checkpoint.llm_folder, **options
    )


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_holds(network, expected, dtype=torch.float32):
    """The network's tensors are exactly ``expected``."""
    state = network.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.to(dtype)), name
        assert state[name].dtype == dtype


def test_loads_every_weight_as_stored(published):
    checkpoint = load_checkpoint(published)
    assert_holds(checkpoint.network, load_file(published / "model.safetensors"))
    assert not checkpoint.network.training
    assert checkpoint.unused_keys == ()
    assert checkpoint.llm_folder == published / "language"
    assert (checkpoint.name, checkpoint.folder) == (str(published), published)


def test_nothing_is_left_without_memory(published):
    network = load_checkpoint(published).network
    places = {name: tensor.device.type for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    assert set(places.values()) == {"cpu"}
    assert network.visual_encoder.vision_model.embeddings.position_ids.tolist() == [list(range(17))]


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_type_is_kept_unless_another_is_asked_for(folder, edit_weights, stored):
    edit_weights(lambda key, value: {key: value.to(stored)})
    weights = load_file(folder / "model.safetensors")
    assert_holds(load_checkpoint(folder).network, weights, stored)
    assert_holds(load_checkpoint(folder, dtype=torch.float32).network, weights)


def test_mixed_types_become_that_of_the_embeddings(folder, edit_weights):
    edit_weights(lambda key, value: {key: value.half() if key.startswith("llm.") else value})
    assert load_checkpoint(folder).network.llm_proj[0].weight.dtype == torch.float16


def test_weights_do_not_follow_a_file_that_changes(folder):
    checkpoint = load_checkpoint(folder)
    before = {name: tensor.clone() for name, tensor in checkpoint.network.state_dict().items()}
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(10_000))
    assert_holds(checkpoint.network, before)


def test_round_trip_is_byte_equal(published, tmp_path):
    first = load_checkpoint(published)
    save(first, tmp_path / "a")
    save(load_checkpoint(tmp_path / "a"), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    # The weights are those that were published, byte for byte, and so is the tokenizer.
    for name in ("model.safetensors", "language/tokenizer.json", "language/tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (published / name).read_bytes(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_saving_in_half_precision(published, tmp_path, dtype):
    checkpoint = load_checkpoint(published)
    save(checkpoint, tmp_path / "half", dtype=dtype)
    expected = {name: tensor.to(dtype) for name, tensor in checkpoint.network.state_dict().items()}
    assert_holds(load_checkpoint(tmp_path / "half").network, expected, dtype)
    save(load_checkpoint(tmp_path / "half"), tmp_path / "again")
    assert contents(tmp_path / "half") == contents(tmp_path / "again")


def test_shards_hold_the_same_and_none_is_too_large(published, tmp_path):
    save(load_checkpoint(published), tmp_path / "model", max_shard_bytes=SHARD_BYTES)
    shards = sorted((tmp_path / "model").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert len(shards) > 2
    assert {path.name for path in shards} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(v.nbytes for v in load_file(published / "model.safetensors").values())
    for path in shards:
        with safe_open(path, "pt") as tensors:
            keys = list(tensors.keys())
        assert all(index["weight_map"][key] == path.name for key in keys)
        assert len(keys) == 1 or path.stat().st_size < SHARD_BYTES + 4096  # the header
    assert_holds(load_checkpoint(tmp_path / "model").network, load_file(published / "model.safetensors"))


def test_shards_without_an_index_are_read_too(published, tmp_path):
    save(load_checkpoint(published), tmp_path / "model", max_shard_bytes=SHARD_BYTES)
    for name in ("model.safetensors.index.json", "SHA256SUMS"):
        (tmp_path / "model" / name).unlink()
    assert_holds(load_checkpoint(tmp_path / "model").network, load_file(published / "model.safetensors"))


def test_saving_over_a_larger_model_leaves_no_old_shard(published, tmp_path):
    checkpoint, target = load_checkpoint(published), tmp_path / "model"
    save(checkpoint, target, max_shard_bytes=SHARD_BYTES)
    (target / "notes.txt").write_text("mine")
    save(checkpoint, target)
    assert [path.name for path in target.glob("model*")] == ["model.safetensors"]
    assert (target / "notes.txt").read_text() == "mine"
    assert_holds(load_checkpoint(target).network, load_file(published / "model.safetensors"))


def test_saving_onto_itself(folder):
    checkpoint = load_checkpoint(folder)
    save(checkpoint, folder)
    assert_holds(load_checkpoint(folder).network, checkpoint.network.state_dict())
    assert (folder / "language" / "tokenizer.json").is_file()


def test_a_failed_save_leaves_the_old_model_and_nothing_else(published, tmp_path, monkeypatch):
    checkpoint, target = load_checkpoint(published), tmp_path / "model"
    save(checkpoint, target)
    before = contents(tmp_path)

    def full_disk(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elysium_core.checkpoint.save.save_file", full_disk)
    with pytest.raises(ModelFileError, match=f"{target}: .*No space left"):
        save(checkpoint, target, max_shard_bytes=SHARD_BYTES)
    assert contents(tmp_path) == before


def test_a_save_that_is_cut_off_while_files_are_moved_is_noticed(published, tmp_path, monkeypatch):
    checkpoint, target = load_checkpoint(published), tmp_path / "model"
    save(checkpoint, target, dtype=torch.float16)
    (target / "SHA256SUMS").unlink()  # as in a folder that somebody else wrote
    moved = []

    def replace_once(source, destination, move=os.replace):
        if moved:
            raise OSError(5, "Input/output error")
        moved.append(destination)
        move(source, destination)

    monkeypatch.setattr("elysium_core.checkpoint.save.os.replace", replace_once)
    with pytest.raises(ModelFileError, match="Input/output error"):
        save(checkpoint, target)
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(target)
    assert caught.value.code == "MODEL_HASH"


def test_saved_files_are_as_readable_as_the_user_wants(published, tmp_path):
    save(load_checkpoint(published), tmp_path / "model")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_manifest_is_that_of_sha256sum(published, tmp_path):
    save(load_checkpoint(published), tmp_path / "model")
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("sha256sum is not installed")
    command = [tool, "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=tmp_path / "model", capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.count(b": OK") == len(contents(tmp_path / "model")) - 1


@pytest.mark.parametrize("outside", ["../elsewhere", "/somewhere/else", "."])
def test_a_saved_model_is_complete_whatever_it_was_built_on(published, tmp_path, outside):
    checkpoint = load_checkpoint(published)
    config = replace(checkpoint.config, llm=outside, vision=outside)
    save(replace(checkpoint, config=config), tmp_path / "model")
    again = load_checkpoint(tmp_path / "model")
    assert (again.config.llm, again.config.vision) == ("llm", "vision")
    assert (tmp_path / "model" / "llm" / "tokenizer.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_hub_names_become_folders_of_the_saved_model(published, tmp_path):
    checkpoint = load_checkpoint(published)
    config = replace(checkpoint.config, llm="lmsys/vicuna-7b-v1.5")
    save(replace(checkpoint, config=config), tmp_path / "model")
    assert load_checkpoint(tmp_path / "model").llm_folder == tmp_path / "model" / "lmsys" / "vicuna-7b-v1.5"


# Layouts of other versions.


def test_vision_keys_of_transformers_5(folder, edit_weights, published):
    edit_weights(lambda key, value: {key.replace("visual_encoder.vision_model.", "visual_encoder."): value})
    assert_holds(load_checkpoint(folder).network, load_file(published / "model.safetensors"))


def test_computed_buffers_of_old_versions_are_left_out(folder, edit_weights, published):
    old = {
        "llm.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "llm.model.rotary_emb.inv_freq": torch.ones(4),
        "visual_encoder.vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    edit_weights(lambda key, value: {key: value} | old)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.unused_keys == ()
    assert_holds(checkpoint.network, load_file(published / "model.safetensors"))


@pytest.mark.parametrize("stored", [True, False], ids=["head stored", "head left out"])
def test_tied_head(folder, edit_json, edit_weights, tmp_path, stored):
    edit_json(folder / "language" / "config.json", tie_word_embeddings=True)
    edit_weights(lambda key, value: {} if key == "llm.lm_head.weight" and not stored else {key: value})
    checkpoint = load_checkpoint(folder)
    llm = checkpoint.network.llm
    assert llm.lm_head.weight is llm.model.embed_tokens.weight
    assert checkpoint.unused_keys == ()
    save(checkpoint, tmp_path / "saved")
    assert "llm.lm_head.weight" not in load_file(tmp_path / "saved" / "model.safetensors")


def test_settings_that_transformers_leaves_out_are_its_defaults(folder, edit_json):
    path = folder / "language" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: v for key, v in settings.items() if key not in ("hidden_act", "rope_theta")}))
    assert load_checkpoint(folder).network.llm.size.rope_base == 10000.0


def test_vision_settings_inside_those_of_a_whole_clip(folder, published):
    path = folder / "eyes" / "config.json"
    path.write_text(
        json.dumps({"model_type": "clip", "vision_config": json.loads(path.read_text()), "text_config": {}})
    )
    assert_holds(load_checkpoint(folder).network, load_file(published / "model.safetensors"))


def test_unused_weights_are_named(folder, edit_weights, caplog):
    edit_weights(lambda key, value: {key: value, "extra.weight": torch.ones(2), "llm.model.bias": torch.ones(1)})
    with caplog.at_level(logging.WARNING):
        checkpoint = load_checkpoint(folder)
    assert sorted(checkpoint.unused_keys) == ["extra.weight", "llm.model.bias"]
    assert "extra.weight" in caplog.text


# Devices and memory.


@pytest.mark.parametrize("device", ["cuda:99", "tpu?", "cuda:x"])
def test_a_device_that_is_not_there(published, device):
    with pytest.raises(BackendError) as caught:
        load_checkpoint(published, device=device)
    assert caught.value.code == "DEVICE"
    assert repr(device) in str(caught.value)


def test_a_model_that_does_not_fit_is_refused_before_it_is_read(published, monkeypatch):
    def must_not_run(*args):
        raise AssertionError("weights were read")

    monkeypatch.setattr("elysium_core.checkpoint.fill_network.free_bytes", lambda device: 10_000)
    monkeypatch.setattr("elysium_core.checkpoint.checkpoint.fill_network", must_not_run)
    with pytest.raises(ModelFileError, match=r"float32, 0 MiB .* cpu") as caught:
        load_checkpoint(published)
    assert caught.value.code == "MODEL_MEMORY"


def test_no_second_copy_while_loading(published, monkeypatch):
    """When a tensor is read, the one read before it has gone to its place and is forgotten."""
    read = []

    class Watched:
        def __init__(self, tensors):
            self._tensors = tensors

        def __getattr__(self, name):
            return getattr(self._tensors, name)

        def get_tensor(self, key):
            assert all(tensor() is None for tensor in read)
            tensor = self._tensors.get_tensor(key)
            read.append(weakref.ref(tensor))
            return tensor

    @contextmanager
    def watched(file):
        with open_weights(file) as tensors:
            yield Watched(tensors)

    monkeypatch.setattr("elysium_core.checkpoint.fill_network.open_weights", watched)
    network = load_checkpoint(published, dtype=torch.float16).network
    assert len(read) == len(network.state_dict())


@pytest.mark.gpu
def test_loads_onto_a_gpu(published):
    network = load_checkpoint(published, device="cuda", dtype=torch.bfloat16).network
    assert {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]} == {"cuda"}
    expected = {name: tensor.cuda() for name, tensor in load_file(published / "model.safetensors").items()}
    assert_holds(network, expected, torch.bfloat16)


# Old .bin files.


@pytest.fixture
def pickled(folder):
    """The checkpoint with its weights as two ``.bin`` files and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({name: weights[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def test_pickled_weights_need_an_explicit_yes(pickled):
    with pytest.raises(ModelFileError, match="allow_pickle_weights=True") as caught:
        load_checkpoint(pickled)
    assert caught.value.code == "MODEL_UNSAFE"


def test_pickled_weights_with_that_yes(pickled, published):
    network = load_checkpoint(pickled, allow_pickle_weights=True).network
    assert_holds(network, load_file(published / "model.safetensors"))


def test_safetensors_come_first(folder, published):
    torch.save({"not": "weights"}, folder / "pytorch_model.bin")
    assert_holds(load_checkpoint(folder).network, load_file(published / "model.safetensors"))
    save_file({}, folder / "other.safetensors")  # not a name of this layout
    assert_holds(load_checkpoint(folder).network, load_file(published / "model.safetensors"))
