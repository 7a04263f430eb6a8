from __future__ import annotations

import json
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from elysium_core.checkpoint.locations import TOKENIZER_FILES, cached_folder
from elysium_core.cli.pull import base_models
from elysium_core.errors import ModelFileError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with two models on disk; returns the calls made to it."""
    calls = {}
    bases = {"llm_config": "them/llm", "visual_config": "clip"}
    elysium = {part: {"pretrained_model_name_or_path": base} for part, base in bases.items()}
    models = {"me/elysium": elysium, "them/llm": {}}
    names = ["config.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "README.md"]

    def download(hub_id, revision, allow_patterns):
        folder = tmp_path / hub_id
        (folder / "clip").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(models[hub_id]))
        calls[hub_id] = (revision, allow_patterns)
        return str(folder)

    class Api:
        def model_info(self, hub_id, revision):
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    calls["names"] = names
    return calls


def test_a_model_and_what_it_is_built_on_are_fetched(elysium, hub, tmp_path):
    (answer,) = elysium("pull", "me/elysium", "--revision", "v1", "--json").lines
    assert answer == {
        "model": "me/elysium",
        "path": str(tmp_path / "me/elysium"),
        "bases": [str(tmp_path / "them/llm")],
    }
    revision, patterns = hub["me/elysium"]
    assert revision == "v1"
    assert "*.safetensors" in patterns
    assert not any(".bin" in pattern or pattern == "*" for pattern in patterns)
    assert hub["them/llm"][0] is None
    assert not any("safetensors" in pattern for pattern in hub["them/llm"][1])


def test_everything_that_a_saved_checkpoint_consists_of_is_fetched(elysium, hub):
    elysium("pull", "me/elysium")
    saved = ["config.json", "SHA256SUMS", "model.safetensors.index.json", "clip/config.json", "llm/config.json"]
    saved += [f"llm/{name}" for name in TOKENIZER_FILES]
    patterns = hub["me/elysium"][1]
    assert list(filter_repo_objects([*saved, "README.md"], allow_patterns=patterns)) == saved


def test_a_revision_is_loaded_by_its_name(monkeypatch, tmp_path):
    folder = tmp_path / "models--me--elysium"
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("a" * 40) / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "v2").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached_folder("me/elysium") is None
    assert cached_folder("me/elysium@v2") == folder / "snapshots" / ("a" * 40)
    assert cached_folder("me/elysium@v3") is None


def test_pickled_weights_are_fetched_only_where_there_are_no_others(elysium, hub):
    hub["names"].remove("model-00001-of-00002.safetensors")
    assert elysium("pull", "me/elysium").code == 0
    assert "pytorch_model*.bin" in hub["me/elysium"][1]


@pytest.mark.parametrize("hub_id", ["me/elysium", "not an id", "../..", "", "a/b/c", "http://host/x"])
def test_without_a_network_or_a_proper_id_it_is_one_line(elysium, hub_id):
    outcome = elysium("pull", hub_id)
    assert outcome.code == 2
    assert outcome.err.startswith(f"elysium: cannot download {hub_id!r}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, "", "{", b"\xff\xfe"])
def test_what_has_no_config_is_no_model(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelFileError, match="missing or damaged"):
        base_models(tmp_path)


@pytest.mark.parametrize(
    "config", [[], 3, {"a": 1}, {"pretrained_model_name_or_path": 3}, {"a": {"pretrained_model_name_or_path": ""}}]
)
def test_a_config_without_bases_has_none(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert base_models(tmp_path) == []
