"""A trained model is given further names; what follows objects stays what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysium_core.calibration import ScoreCalibration
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.save import save_checkpoint
from elysium_core.errors import ConfigError, DataError
from elysium_core.network.detector_encoder import DetectorEncoder, DetectorEncoderConfig
from elysium_core.network.model_config import ElysiumConfig
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.real import real_export
from elysium_core.training.real.grown_weights import EMBEDDING
from elysium_core.training.real.real_model import llm_settings, model_settings, texts_of_tasks, vision_settings
from elysium_core.training.real.real_run import RealStageRun, build_training_model
from elysium_core.training.real.score_fit import FindFits, ScoreFit
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER

WORDS = ("cherry", "deep sea", "lemon", "plum")
KNOWN = WORDS[:2]
FOUND, FOLLOWED = ScoreCalibration(2.0, 0.25), ScoreCalibration(3.0, 0.5)
TIED = "network.llm.lm_head.weight"
FIND = "{kind: find, steps: 2, frame_batch: 3, questions: 4, lr: 0.01, encoder_lr: 1.0e-4, keep: 0.5, workers: 0}"


@pytest.fixture(scope="module")
def earlier(real_file, tmp_path_factory):
    """A checkpoint that knows two of the four names, with random weights."""
    recipe = load_any_recipe(real_file, [f"model.words=[{', '.join(KNOWN)}]"])
    folder = tmp_path_factory.mktemp("earlier")
    model = build_training_model(recipe, "joint", folder)
    settings = replace(model_settings(recipe.model), find_scores=FOUND, follow_scores=FOLLOWED)
    save_checkpoint(
        folder / "checkpoint",
        model.network,
        settings,
        llm_settings(recipe.model, model.tokenizer.vocab_size),
        vision_settings(recipe.model).to_dict(),
        dtype=torch.float32,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    return folder / "checkpoint"


def weights_of(checkpoint):
    """As they are called in training."""
    return {f"network.{name}": value for name, value in load_checkpoint(checkpoint).network.state_dict().items()}


def further(real_file, earlier, *changes):
    return load_any_recipe(real_file, [f"extends={earlier}", f"stages={{names: {FIND}}}", "export=names", *changes])


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
    return [TextTokenizer.from_folder(each) for each in (earlier / "llm", folder / TOKENIZER_FOLDER)]


def test_it_starts_from_the_earlier_weights(earlier, trained):
    before, first = weights_of(earlier), trained[1]
    rows = len(before[EMBEDDING])
    assert len(first[EMBEDDING]) == rows + len(WORDS) - len(KNOWN)
    assert torch.equal(first[EMBEDDING][:rows], before[EMBEDDING])
    same = {name for name, value in before.items() if torch.equal(value, first[name])}
    assert set(before) - same == {EMBEDDING, TIED}
    assert torch.equal(first[TIED], first[EMBEDDING])


def test_only_rows_of_new_words_are_trained_in_the_language_model(earlier, trained):
    folder, first = trained
    rows = len(weights_of(earlier)[EMBEDDING])
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
    fitted = ScoreFit(ScoreCalibration(5.0, 5.0))
    monkeypatch.setattr(real_export, "fit_find_scores", lambda *_: FindFits(fitted))
    recipe = further(real_file, earlier, f"stages={{names: {FIND.replace('encoder_lr: 1.0e-4', rates)}}}")
    folder = real_export.export_run(recipe, trained[0], trained[0] / f"checkpoint-{kept}")
    exported = ElysiumConfig.from_file(folder / "config.json")
    assert exported.follow_scores == FOLLOWED
    assert exported.find_scores == (FOUND if kept == 2 else fitted.calibration)
    assert exported.vocabulary == WORDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages.names.kind=joint", "is not cells or find"),
        ("extends=[]", "extends"),
    ],
)
def test_what_does_not_fit_is_named(real_file, earlier, change, said):
    with pytest.raises(ConfigError, match=said):
        further(real_file, earlier, change)


def test_no_name_may_be_lost(real_file, earlier, tmp_path):
    recipe = further(real_file, earlier, "model.words=[lemon, plum]")
    with pytest.raises(DataError, match=r"model\.words lacks cherry, deep sea; keep all names"):
        RealStageRun(recipe, "names", tmp_path).start()


def test_a_model_of_another_size_is_refused(real_file, earlier, tmp_path):
    recipe = further(real_file, earlier, "model.neck=8")
    with pytest.raises(DataError, match=r"adapter\.neck\.conv\.weight has another shape there"):
        RealStageRun(recipe, "names", tmp_path).start()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """File with random weights of an encoder with a detector."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    save_file(DetectorEncoder(DetectorEncoderConfig(64)).state_dict(), path)
    return path


class TestAnotherEncoder:
    """The checkpoint's crops stay as they are; frames get a detector's features, and a selector for them."""

    def recipe(self, real_file, earlier, detector, *changes):
        encoder = [f"model.encoder={DetectorEncoderConfig.model_type}", f"model.encoder_weights={detector}"]
        return further(real_file, earlier, *encoder, *changes)

    def test_only_the_selector_and_rows_of_names_are_trained(self, real_file, earlier, detector, tmp_path):
        run = RealStageRun(self.recipe(real_file, earlier, detector), "names", tmp_path)
        run.start()
        first, before = {name: value.clone() for name, value in run.model.state_dict().items()}, weights_of(earlier)
        crops = [name for name in before if name.startswith(("network.target_selector.", "network.visual_encoder."))]
        assert all(torch.equal(before[name], first[name]) for name in crops if name in first)
        run.run()
        after = load_file(tmp_path / "names" / "state.safetensors")
        changed = {name for name, value in after.items() if not torch.equal(value, first[name])}
        changed_network = {name for name in changed if name.startswith("network.")}
        assert {name for name in changed_network if not name.startswith("network.adapter.")} == {EMBEDDING}
        assert any(name.startswith("network.adapter.") for name in changed_network)
        rows = (after[EMBEDDING] != first[EMBEDDING]).any(1).nonzero()[:, 0].tolist()
        now = TextTokenizer.from_folder(tmp_path / TOKENIZER_FOLDER)
        names = {now.encode_answer(f"the {name}")[-1] for name in WORDS}
        assert set(rows) == names | set(range(len(before[EMBEDDING]), now.vocab_size))

    def test_a_selector_that_would_stay_random_is_refused(self, real_file, earlier, detector, tmp_path):
        still = FIND.replace("encoder_lr: 1.0e-4", "encoder_lr: 0, selector_lr: 0")
        recipe = self.recipe(real_file, earlier, detector, f"stages={{names: {still}}}")
        with pytest.raises(DataError, match="has another vision encoder"):
            RealStageRun(recipe, "names", tmp_path).start()
