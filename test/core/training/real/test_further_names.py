"""A trained model is given further names; what follows objects stays what it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from elysium_core.calibration import ScoreCalibration
from elysium_core.errors import ConfigError
from elysium_core.network.model_config import ElysiumConfig
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.real import real_export
from elysium_core.training.real.grown_weights import EMBEDDING
from elysium_core.training.real.real_model import model_settings, texts_of_tasks
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.score_fit import ScoreFit
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER

WORDS = ("cherry", "deep sea", "lemon", "plum")
KNOWN = WORDS[:2]
TIED = "network.llm.lm_head.weight"
FIND = "{kind: find, steps: 2, frame_batch: 3, questions: 4, lr: 0.01, encoder_lr: 1.0e-4, keep: 0.5, workers: 0}"


@pytest.fixture(scope="module")
def earlier(real_file, tmp_path_factory):
    """A run that knows two of the four names, with random weights."""
    recipe = load_any_recipe(real_file, [f"model.words=[{', '.join(KNOWN)}]"])
    folder = tmp_path_factory.mktemp("earlier")
    RealStageRun(recipe, "joint", folder).loop._finish()
    return folder


def further(real_file, earlier, *changes):
    known = f"extends={{run: {earlier}, stage: joint, words: [{', '.join(KNOWN)}]}}"
    return load_any_recipe(real_file, [known, f"stages={{names: {FIND}}}", "export=names", *changes])


@pytest.fixture(scope="module")
def trained(real_file, earlier, tmp_path_factory):
    """Folder of a run with the other two names, and its weights before training."""
    folder = tmp_path_factory.mktemp("further")
    run = RealStageRun(further(real_file, earlier), "names", folder)
    run.start()
    first = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run()
    return folder, first


def tokenizers(earlier, folder):
    return [TextTokenizer.from_folder(each / TOKENIZER_FOLDER) for each in (earlier, folder)]


def test_it_starts_from_the_earlier_weights(earlier, trained):
    before, first = load_file(earlier / "joint" / "state.safetensors"), trained[1]
    rows = len(before[EMBEDDING])
    assert len(first[EMBEDDING]) == rows + len(WORDS) - len(KNOWN)
    assert torch.equal(first[EMBEDDING][:rows], before[EMBEDDING])
    heads = "words.heads.name.weight"
    assert torch.equal(first[heads][: len(KNOWN)], before[heads])
    same = {name for name, value in before.items() if torch.equal(value, first[name])}
    assert set(before) - same == {EMBEDDING, heads, "words.heads.name.bias", "words.naming.weight"}


def test_only_rows_of_new_words_are_trained_in_the_language_model(earlier, trained):
    folder, first = trained
    rows = len(load_file(earlier / "joint" / "state.safetensors")[EMBEDDING])
    after = load_file(folder / "names" / "state.safetensors")
    assert torch.equal(after[EMBEDDING][:rows], first[EMBEDDING][:rows])
    assert (after[EMBEDDING][rows:] != first[EMBEDDING][rows:]).any(1).all()
    follows = ("network.llm.", "network.llm_proj.", "network.target_selector.")
    changed = [name for name, value in after.items() if name != EMBEDDING and not torch.equal(value, first[name])]
    assert changed
    assert not [name for name in changed if name.startswith(follows)]


def test_a_selector_that_is_not_trained_stays_as_it_is(real_file, earlier, tmp_path):
    """Its batch norms, too, whose statistics need no gradient."""
    still = FIND.replace("encoder_lr: 1.0e-4", "encoder_lr: 0, selector_lr: 0")
    run = RealStageRun(further(real_file, earlier, f"stages={{names: {still}}}"), "names", tmp_path)
    run.start()
    first = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.loop.model.train()
    run.loop.train_step([run.batches[0]])
    after = run.model.state_dict()
    changed = {name for name, value in first.items() if not torch.equal(value, after[name])}
    assert EMBEDDING in changed
    assert {name.split(".")[1] for name in changed - {EMBEDDING, TIED}} == {"word_heads"}


def test_every_known_text_is_split_as_before(earlier, trained):
    before, now = tokenizers(earlier, trained[0])
    for text in texts_of_tasks(KNOWN, ""):
        assert before.encode_answer(text) == now.encode_answer(text)
    for name in WORDS:
        ids = now.encode_answer(f"the {name}.")
        assert [now.token_text(number) for number in ids] == ["▁the", *(f"▁{word}" for word in name.split()), "."]
        assert now.decode(ids) == f"the {name}."


@pytest.mark.parametrize(("rates", "kept"), [("encoder_lr: 1.0e-4", 1), ("encoder_lr: 0, selector_lr: 0", 2)])
def test_calibrations_of_what_was_not_trained_are_kept(real_file, earlier, trained, monkeypatch, rates, kept):
    found, followed = ScoreCalibration(2.0, 0.25), ScoreCalibration(3.0, 0.5)
    settings = replace(model_settings(further(real_file, earlier).model), find_scores=found, follow_scores=followed)
    (earlier / "checkpoint").mkdir(exist_ok=True)
    (earlier / "checkpoint" / "config.json").write_text(json.dumps(settings.to_dict()))
    fitted = ScoreFit(ScoreCalibration(5.0, 5.0))
    monkeypatch.setattr(real_export, "fit_find_scores", lambda *_: fitted)
    recipe = further(real_file, earlier, f"stages={{names: {FIND.replace('encoder_lr: 1.0e-4', rates)}}}")
    folder = real_export.export_run(recipe, trained[0], trained[0] / f"checkpoint-{kept}")
    exported = ElysiumConfig.from_file(folder / "config.json")
    assert exported.follow_scores == followed
    assert exported.find_scores == (found if kept == 2 else fitted.calibration)
    assert exported.vocabulary == WORDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.words=[lemon, plum]", "which model.words lacks; keep all names of the earlier run"),
        ("stages.names.kind=joint", "is not find"),
        ("extends.words=[]", "extends.words"),
    ],
)
def test_what_does_not_fit_is_named(real_file, earlier, change, said):
    with pytest.raises(ConfigError, match=said):
        further(real_file, earlier, change)
