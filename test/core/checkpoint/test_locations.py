"""Where a model is looked for; never on the network."""

from __future__ import annotations

import shutil
import socket

import huggingface_hub.constants
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.checkpoint import locations
from elysium_core.checkpoint.base_settings import KNOWN_BASES
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.locations import (
    PACKAGED_WEIGHTS,
    base_folder,
    base_settings,
    checkpoint_folder,
    tokenizer_folder,
)
from elysium_core.errors import ModelFileError

VICUNA, CLIP = "lmsys/vicuna-7b-v1.5", "openai/clip-vit-large-patch14-336"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache; call it to put a folder there as ``snapshots`` of links into ``blobs``."""
    home = tmp_path / "hub"
    home.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))

    def _put(hub_id, folder):
        repository = home / f"models--{hub_id.replace('/', '--')}"
        snapshot, blobs = repository / "snapshots" / "abc123", repository / "blobs"
        for path in (repository / "refs", snapshot, blobs):
            path.mkdir(parents=True)
        (repository / "refs" / "main").write_text("abc123")
        for number, file in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
            shutil.copy(file, blobs / str(number))
            link = snapshot / file.relative_to(folder)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(blobs / str(number))
        return snapshot

    return _put


def test_a_pulled_model_is_found_by_its_id(cache, published):
    snapshot = cache("someone/model", published)
    checkpoint = load_checkpoint("someone/model")
    assert (checkpoint.name, checkpoint.folder) == ("someone/model", snapshot)
    assert checkpoint.llm_folder == snapshot / "language"


def test_the_same_model_by_its_folder_in_the_cache(cache, published):
    assert load_checkpoint(cache("someone/model", published)).unused_keys == ()


def test_a_pulled_model_with_listed_graphs_uses_them_and_no_others(cache, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    snapshot = cache("someone/nano", PACKAGED_WEIGHTS / "nano")
    assert Elysium.from_pretrained("someone/nano", device="cpu").info.backend == "onnx"
    listed = (snapshot / "SHA256SUMS").read_text()
    (snapshot / "SHA256SUMS").write_text("".join(line for line in listed.splitlines(True) if "onnx" not in line))
    assert Elysium.from_pretrained("someone/nano", device="cpu").info.backend == "torch"


def test_a_link_of_a_snapshot_that_leads_to_another_model_s_files_is_refused(cache, published, tmp_path):
    snapshot, other = cache("someone/model", published), cache("someone/other", published)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to((other / "config.json").readlink())
    with pytest.raises(ModelFileError, match="link out of its folder"):
        load_checkpoint("someone/model")


def test_bases_may_be_pulled_models(cache, folder, edit_json):
    for name, hub_id in (("language", "someone/llm"), ("eyes", "someone/eyes")):
        cache(hub_id, folder / name)
        shutil.rmtree(folder / name)
    edit_json(folder / "config.json", llm_config={"pretrained_model_name_or_path": "someone/llm"})
    edit_json(folder / "config.json", visual_config={"pretrained_model_name_or_path": "someone/eyes"})
    checkpoint = load_checkpoint(folder, dtype=torch.float16)
    assert checkpoint.llm_folder == base_folder("someone/llm", folder)


def test_bases_may_be_paths_beside_the_folder_or_absolute(folder, edit_json, tmp_path):
    (folder / "language").rename(tmp_path / "vicuna")
    (folder / "eyes").rename(tmp_path / "clip")
    edit_json(folder / "config.json", llm_config={"pretrained_model_name_or_path": "../vicuna"})
    edit_json(folder / "config.json", visual_config={"pretrained_model_name_or_path": str(tmp_path / "clip")})
    assert load_checkpoint(folder).llm_folder.samefile(tmp_path / "vicuna")


def test_the_folder_of_the_checkpoint_comes_before_the_cache(cache, published, folder):
    cache("language", published / "eyes")
    assert base_folder("language", folder) == folder / "language"


@pytest.mark.parametrize("name", [VICUNA, CLIP])
def test_settings_of_the_published_bases_need_no_file(cache, tmp_path, name):
    settings, source = base_settings(name, tmp_path)
    assert settings == KNOWN_BASES[name]
    assert source == name


def test_a_pulled_base_comes_before_the_table(cache, published, tmp_path):
    snapshot = cache(VICUNA, published / "language")
    assert base_settings(VICUNA, tmp_path)[1] == str(snapshot / "config.json")


def test_an_unknown_base_says_how_to_get_it(cache, tmp_path):
    with pytest.raises(ModelFileError, match="elysium pull someone/llm"):
        base_settings("someone/llm", tmp_path)


def test_tokenizer_in_the_checkpoint_itself(cache, tmp_path):
    (tmp_path / "tokenizer.model").touch()
    assert tokenizer_folder(VICUNA, tmp_path) == tmp_path


def test_tokenizer_of_the_language_model_comes_first(cache, folder):
    (folder / "tokenizer.json").touch()
    assert tokenizer_folder("language", folder) == folder / "language"


def test_a_tokenizer_that_is_nowhere_says_how_to_get_it(cache, tmp_path):
    with pytest.raises(ModelFileError, match=f"elysium pull {VICUNA}"):
        tokenizer_folder(VICUNA, tmp_path)


def test_nano_is_the_packaged_one(monkeypatch, tmp_path, published):
    monkeypatch.setattr(locations, "PACKAGED_WEIGHTS", tmp_path)
    with pytest.raises(ModelFileError, match="train it"):
        load_checkpoint("nano")
    shutil.copytree(published, tmp_path / "nano")
    assert load_checkpoint("nano").folder == tmp_path / "nano"


def test_nano_is_never_a_folder_that_happens_to_have_that_name(monkeypatch, tmp_path, published):
    shutil.copytree(published, tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locations, "PACKAGED_WEIGHTS", tmp_path / "package")
    with pytest.raises(ModelFileError, match="train it"):
        checkpoint_folder("nano")


def test_a_folder_below_home(published, monkeypatch):
    monkeypatch.setenv("HOME", str(published.parent))
    assert checkpoint_folder(f"~/{published.name}") == published


def test_a_weight_file_is_not_a_model(published):
    with pytest.raises(ModelFileError, match="is a file; give the folder"):
        load_checkpoint(published / "model.safetensors")


@pytest.mark.parametrize("name", ["someone/model", "nothing", "", "a/b/c", "../..x", "a\0b", "x" * 5000, "ünï/cödé"])
def test_what_is_nowhere_says_how_to_get_it(cache, name):
    with pytest.raises(ModelFileError, match="elysium pull HUB_ID"):
        load_checkpoint(name)


def test_a_folder_that_is_not_a_model(tmp_path):
    with pytest.raises(ModelFileError, match=r"config\.json"):
        load_checkpoint(tmp_path)
