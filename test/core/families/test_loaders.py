"""Which family a folder is loaded as."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from elysium_core.api import Elysium
from elysium_core.errors import BackendError, ModelFileError
from elysium_core.families import loaders
from elysium_core.families.loaders import LoadedModel
from elysium_core.types import ModelInfo


@pytest.fixture
def loaded_as(monkeypatch):
    """Another family; the names of the models that were loaded as one of it."""
    names = []

    def load(options):
        names.append(options.model)
        return LoadedModel(SimpleNamespace(settings=SimpleNamespace(vocabulary=()), device=CPU), ModelInfo("other"))

    monkeypatch.setitem(sys.modules, "other_family", SimpleNamespace(load=load))
    monkeypatch.setitem(loaders.LOADERS, "other", "other_family:load")
    return names


CPU = SimpleNamespace(type="cpu")


def test_the_model_type_chooses_the_family(tmp_path, loaded_as, tiny_folder):
    (tmp_path / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    model = Elysium.from_pretrained(tmp_path)
    assert model.info.name == "other"
    assert Elysium.from_pretrained(tiny_folder, device="cpu").info.name == str(tiny_folder)
    assert loaded_as == [str(tmp_path)]


def test_only_what_the_published_layout_holds_can_be_saved(tmp_path, loaded_as):
    (tmp_path / "config.json").write_text('{"model_type": "other"}', encoding="utf-8")
    with pytest.raises(BackendError, match="SimpleNamespace"):
        Elysium.from_pretrained(tmp_path).save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("config", ['{"model_type": "unheard_of"}', "[1]", '"other"', "{", None])
def test_any_other_folder_is_left_to_the_elysium_family(tmp_path, loaded_as, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(ModelFileError):
        Elysium.from_pretrained(tmp_path)
    assert loaded_as == []
