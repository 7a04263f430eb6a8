"""A model that is saved again becomes the files it came from, and needs nothing outside of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.integrity import untrusted_reason
from elysium_core.checkpoint.locations import PACKAGED_WEIGHTS
from elysium_core.errors import BackendError, ModelFileError
from elysium_core.vision.onnx_export import ONNX_NAME

HUB_ID = "somebody/language-model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(folder, **options) -> Elysium:
    return Elysium.from_pretrained(folder, device="cpu", **options)


def assert_same_but_for_the_manifest(saved: Path, original: Path) -> None:
    before, after = contents(original), contents(saved)
    assert set(after) - set(before) <= {"SHA256SUMS"}
    assert {name: after.get(name) for name in before if name != "SHA256SUMS"} == {
        name: content for name, content in before.items() if name != "SHA256SUMS"
    }


@pytest.fixture
def sharded(folder):
    """The checkpoint in three files, the index spelled as another program would."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-{1 + place % 3:05d}-of-00003.safetensors" for place, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: weights[name] for name in names if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"weight_map": places, "metadata": {"total_size": 1, "total_parameters": 2}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_the_published_layout_comes_back_byte_for_byte(published, tmp_path):
    load(published).save_pretrained(tmp_path / "saved")
    assert_same_but_for_the_manifest(tmp_path / "saved", published)


def test_so_does_nano(tmp_path):
    load("nano").save_pretrained(tmp_path / "saved")
    shipped = contents(PACKAGED_WEIGHTS / "nano")
    # The graph is made from the weights, by another command.
    listed = shipped["SHA256SUMS"].decode().splitlines(keepends=True)
    shipped["SHA256SUMS"] = "".join(line for line in listed if ONNX_NAME not in line).encode()
    assert contents(tmp_path / "saved") == {name: shipped[name] for name in shipped if not name.startswith(ONNX_NAME)}


def test_saving_over_a_model_keeps_its_graph_listed_and_its_fingerprint(tmp_path, cache):
    folder = shutil.copytree(PACKAGED_WEIGHTS / "nano", tmp_path / "model")
    before = (folder / "SHA256SUMS").read_bytes()
    weights = load(folder).info.weights
    load(folder).save_pretrained(folder)
    assert (folder / "SHA256SUMS").read_bytes() == before
    assert untrusted_reason(folder / ONNX_NAME) == ""
    (folder / "SHA256SUMS").write_text("".join(line for line in before.decode().splitlines(True) if "onnx" not in line))
    assert load(folder, vision_backend="torch").info.weights == weights


def test_so_do_shards_with_their_index(sharded, tmp_path):
    load(sharded).save_pretrained(tmp_path / "saved")
    assert_same_but_for_the_manifest(tmp_path / "saved", sharded)


@pytest.mark.parametrize("run_as", ["float32", "bfloat16", "float16", "auto"])
def test_weights_are_stored_as_they_were_whatever_they_run_as(folder, edit_weights, tmp_path, run_as):
    edit_weights(lambda key, value: {key: value.half() if key.startswith("llm") else value.bfloat16()})
    # Rewritten without the metadata that every program of this kind adds.
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
    load(folder, dtype=run_as).save_pretrained(tmp_path / "saved")
    assert_same_but_for_the_manifest(tmp_path / "saved", folder)


def test_only_what_has_changed_keeps_the_rounding_of_what_it_ran_as(published, tmp_path):
    model = load(published, dtype="bfloat16")
    with torch.no_grad():
        model.runtime.family.network.llm_proj[0].bias += 1
    model.save_pretrained(tmp_path / "saved")
    before, after = load_file(published / "model.safetensors"), load_file(tmp_path / "saved" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"llm_proj.0.bias"}


def test_type_and_division_can_be_chosen(published, tmp_path):
    load(published).save_pretrained(tmp_path / "saved", dtype="bfloat16", max_shard_bytes=20_000)
    shards = sorted((tmp_path / "saved").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert {value.dtype for shard in shards for value in load_file(shard).values()} == {torch.bfloat16}
    again = load_checkpoint(tmp_path / "saved").network.state_dict()
    expected = load_file(published / "model.safetensors")
    assert all(torch.equal(again[name], value.bfloat16()) for name, value in expected.items())


def test_changed_weights_are_saved_into_the_same_files(sharded, tmp_path):
    model = load(sharded)
    name = "llm_proj.0.bias"
    with torch.no_grad():
        model.runtime.family.network.llm_proj[0].bias += 1
    model.save_pretrained(tmp_path / "saved")
    changed = {file for file, content in contents(tmp_path / "saved").items() if contents(sharded).get(file) != content}
    place = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"][name]
    assert changed == {place, "SHA256SUMS"}
    before, after = load_file(sharded / place)[name], load_file(tmp_path / "saved" / place)[name]
    assert torch.equal(after, before + 1)


def test_files_of_a_pickle_become_safetensors(folder, published, tmp_path, pickles_converted_here):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load(folder, allow_pickle_weights=True).save_pretrained(tmp_path / "saved")
    assert_same_but_for_the_manifest(tmp_path / "saved", published)


@pytest.mark.parametrize("place", ["beside", "absolute", "hub"])
def test_a_saved_model_loads_when_all_that_it_was_built_on_is_gone(folder, tmp_path, monkeypatch, edit_json, place):
    elsewhere = shutil.move(folder / "language", tmp_path / "elsewhere")
    name = {"beside": "../elsewhere", "absolute": str(tmp_path / "elsewhere"), "hub": HUB_ID}[place]
    if place == "hub":
        monkeypatch.setattr("elysium_core.checkpoint.locations.cached_folder", lambda hub_id: Path(elsewhere))
    edit_json(folder / "config.json", llm_config={"pretrained_model_name_or_path": name, "freeze_llm": True})
    model = load(folder)
    image = np.full((30, 40, 3), 99, np.uint8)
    answer = model.ask(image, "Why?", max_new_tokens=6)
    before = json.loads((folder / "config.json").read_text())
    original = (Path(elsewhere) / "config.json").read_bytes()
    model.save_pretrained(tmp_path / "saved")
    monkeypatch.undo()
    shutil.rmtree(elsewhere)
    shutil.rmtree(folder)
    after = json.loads((tmp_path / "saved" / "config.json").read_text())
    inside = HUB_ID if place == "hub" else "llm"
    assert after["llm_config"] == {"pretrained_model_name_or_path": inside, "freeze_llm": True}
    assert {**before, **after} == after, "nothing that the config said is lost"
    assert after["adapter_config"]["max_video_tokens"] == before["adapter_config"]["max_video_tokens"]
    if place == "hub":
        assert (tmp_path / "saved" / inside / "config.json").read_bytes() == original
    moved = shutil.move(tmp_path / "saved", tmp_path / "moved")
    assert load(moved).ask(image, "Why?", max_new_tokens=6) == answer


def test_a_tokenizer_that_lies_beside_the_weights_stays_there(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / "language" / name, folder / name)
    load(folder).save_pretrained(tmp_path / "saved")
    assert_same_but_for_the_manifest(tmp_path / "saved", folder)


def test_saving_onto_the_folder_it_came_from(folder):
    before = contents(folder)
    load(folder).save_pretrained(folder)
    assert {**contents(folder), **before} == contents(folder)
    load_checkpoint(folder)


def test_what_lay_in_the_folder_may_be_gone(folder, published, tmp_path):
    model = load(folder)
    shutil.rmtree(folder / "eyes")
    (folder / "config.json").write_text("[")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()
    load(tmp_path / "saved")


def test_a_save_that_fails_leaves_nothing(published, tmp_path, monkeypatch):
    model = load(published)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelFileError, match=str(tmp_path / "file")):
        model.save_pretrained(tmp_path / "file")

    def full_disk(*args, **options):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elysium_core.checkpoint.save.save_file", full_disk)
    with pytest.raises(ModelFileError, match="No space left on device"):
        model.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path) == {"file": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_closed_model_or_an_unknown_type_is_refused(published, tmp_path):
    model = load(published)
    with pytest.raises(BackendError, match="'int8'"):
        model.save_pretrained(tmp_path / "saved", dtype="int8")
    model.close()
    with pytest.raises(BackendError, match="has been closed"):
        model.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_fingerprint_tells_weights_apart_wherever_they_differ(published, tmp_path):
    model = load(published)
    model.save_pretrained(tmp_path / "same")
    before = load(tmp_path / "same").info.weights
    with torch.no_grad():
        model.runtime.family.network.llm_proj[0].bias += 1
    model.save_pretrained(tmp_path / "other")
    shutil.copytree(tmp_path / "same", tmp_path / "copy")
    assert before
    assert load(tmp_path / "copy").info.weights == before, "a copy is the same"
    assert load(tmp_path / "other").info.weights != before
