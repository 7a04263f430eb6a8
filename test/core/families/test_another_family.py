"""Another family takes one file (llama_json.py) and one line of the table of loaders."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from elysium_core.api import Elysium
from elysium_core.engine.engine import Generation
from elysium_core.families import loaders
from elysium_core.families.loaders import family_facts
from elysium_core.geometry import Box
from elysium_core.tracking.word_tracker import WordTracker


@pytest.fixture
def folder(tmp_path, tiny_folder, monkeypatch):
    """A folder that is loaded as a model of that family."""
    spec = spec_from_file_location("llama_json", Path(__file__).with_name("llama_json.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "llama_json", module)
    monkeypatch.setitem(loaders.LOADERS, "llama_json", "llama_json:load")
    (tmp_path / "config.json").write_text('{"model_type": "llama_json"}', encoding="utf-8")
    (tmp_path / "weights").symlink_to(tiny_folder)
    return tmp_path


def test_it_is_loaded_asked_and_followed_like_any_other(folder, frames):
    model = Elysium.from_pretrained(folder, device="cpu", vision_backend="torch")
    family = model.runtime.family
    assert family_facts(str(folder)) == {
        "model": str(folder), "folder": str(folder), "family": "llama_json", "boxes": "thousandths"
    }  # fmt: skip
    tracker = model.tracker()
    assert isinstance(tracker, WordTracker)
    tracker.add("mug", Box(0.1, 0.1, 0.5, 0.5))
    (update,) = tracker.step(frames[0])
    assert (update.box, tracker.stats.failures) == (Box(0.1, 0.1, 0.5, 0.5), 0)
    assert tracker.stats.llm_passes > 1
    box = Box(0.125, 0.25, 0.5, 0.751)
    ids = family.tokenizer.encode_answer(family.grammar.answer([box], (1000, 1000), "player 10"))
    said = [-0.5 if family.tokenizer.token_text(token).strip("\u2581").isdecimal() else -9.0 for token in ids]
    answer = model.runtime.read(Generation(ids, said, finished=True), 1, (1000, 1000)).at(0)
    assert answer.box == box
    assert answer.score == pytest.approx(0.6065, abs=1e-3), "of the digits of the box"


def test_its_answers_are_those_of_transformers(folder, frames):
    model = Elysium.from_pretrained(folder, device="cpu", vision_backend="torch")
    family, image = model.runtime.family, frames[0].image
    for words in ("mug", "the red apple"):
        question = family.question("rec", words)
        ours = model.runtime.ask(family.encode([image]), question, 16).token_ids
        assert ours == family.generate([image], question, 16)
