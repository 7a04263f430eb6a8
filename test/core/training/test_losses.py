from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from elysium_core.data.synthetic.colors import COLORS
from elysium_core.errors import ConfigError
from elysium_core.prompt.layout import PromptLayout
from elysium_core.training.nano.auxiliary import Oracle, PatchHeads, fourier, patch_centers, patch_losses
from elysium_core.training.nano.clip_batches import BatchBuilder
from elysium_core.training.nano.scratch import build_training_model
from elysium_core.training.nano.stages import STAGES, oracle_selection, parameter_groups
from elysium_core.training.pointing import PointingHeads

SEED = 3

NO_WORD = len(COLORS)
"""Index of a patch without a colour word."""


def gradient_prefixes(model) -> set[str]:
    """The modules that a backward pass has reached."""
    reached = set()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0):
            parts = name.split(".")
            reached.add(".".join(parts[:2]) if parts[0] == "network" else parts[0])
    return reached


def changed(part, **values):
    """A part of a recipe with other values."""
    return part.model_copy(update=values)


def values(losses) -> dict[str, float]:
    return {name: float(mean.value.detach()) for name, mean in losses.items()}


VISION = {"network.visual_encoder", "network.adapter", "patch_heads"}


@pytest.mark.parametrize(
    ("kind", "frozen_words", "reached"),
    [
        ("vision", False, VISION),
        ("language", False, {"network.llm", "oracle", "pointing"}),
        ("language", True, {"network.llm", "pointing"}),
        ("distil", True, VISION | {"network.llm_proj"}),
        ("joint", True, VISION | {"network.llm_proj", "network.llm", "pointing"}),
    ],
)
def test_gradients_reach_what_a_stage_trains_and_nothing_else(model, builder, recipe, kind, frozen_words, reached):
    stage = changed(recipe.stages["joint"], kind=kind, words_frozen=frozen_words)
    parameter_groups(model, stage)
    model.train()
    for frames in (1, 3):
        losses = model(kind, builder.draw(SEED, 6, frames))
        assert all(torch.isfinite(mean.value) for mean in losses.values())
        losses["total"].value.backward()
    assert gradient_prefixes(model) == reached
    words = model.network.llm.model.embed_tokens.weight
    assert (words.grad is None) == (frozen_words or kind not in ("language", "joint"))


@pytest.mark.parametrize(
    ("adapter", "tokens"), [("none", 16), ("cross_attention", 4), ("concatenation", 4), ("t_selector", 4)]
)
def test_answers_alone_teach_every_adapter(recipe, tokenizer, generator, adapter, tokens):
    sizes = changed(recipe.model, adapter=adapter, visual_tokens=tokens)
    model = build_training_model(changed(recipe, model=sizes), tokenizer, 0.5)
    if adapter == "t_selector":
        model.network.adapter.learn_by("straight_through")
    parameter_groups(model, changed(recipe.stages["joint"], kind="adapter"))
    model.train()
    builder = BatchBuilder(generator, recipe.data, PromptLayout(tokenizer, ""), tokens, recipe.model.patch_px)
    model("adapter", builder.draw(SEED, 4, 1))["total"].value.backward()
    learnt = {"network.visual_encoder", "network.llm_proj", "network.llm"}
    has_weights = adapter in ("cross_attention", "t_selector")
    assert gradient_prefixes(model) == learnt | ({"network.adapter"} if has_weights else set())


@pytest.mark.parametrize("kind", STAGES)
def test_groups_hold_every_trained_parameter_once_with_its_rate(model, recipe, kind):
    stage = changed(recipe.stages["joint"], kind=kind, lr=1e-3, vision_lr=2e-3)
    groups = parameter_groups(model, stage)
    named = [(name, group["lr"]) for group in groups for name, _ in group["params"]]
    assert sorted(name for name, _ in named) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    for name, rate in named:
        is_vision = name.startswith(("network.visual_encoder", "network.adapter", "network.llm_proj", "patch_heads"))
        assert rate == (2e-3 if is_vision else 1e-3)


class TestDistil:
    @pytest.fixture
    def batch(self, builder):
        return builder.draw(SEED, 6, 1)

    @staticmethod
    def wanted(model, batch) -> torch.Tensor:
        words = model.network.llm.model.embed_tokens
        return model.oracle(words, batch.patch_name, batch.patch_color, batch.patch_box, model.centers).detach()

    def test_the_oracles_own_tokens_are_perfect(self, model, batch):
        model.network.llm_proj = Fixed(self.wanted(model, batch))
        losses = values(model("distil", batch))
        assert losses["distil"] == 0
        assert losses["readout_accuracy"] == 1
        assert losses["readout"] < 1e-3

    def test_tokens_with_another_name_are_read_as_that(self, model, batch):
        solid = batch.patch_name < model.oracle.name_count
        other = torch.where(solid, (batch.patch_name + 1) % model.oracle.name_count, batch.patch_name)
        model.network.llm_proj = Fixed(self.wanted(model, replace(batch, patch_name=other)))
        losses = values(model("distil", batch))
        assert losses["readout_accuracy"] == 0
        assert losses["readout"] > 1
        assert 0 < losses["distil"] < 1  # boxes and places are right

    def test_pictures_without_objects_cost_nothing_to_read(self, model, batch):
        empty = replace(batch, patch_name=torch.full_like(batch.patch_name, model.oracle.name_count))
        losses = model("distil", empty)
        assert losses["readout"].weight == 0
        assert all(math.isfinite(value) for value in values(losses).values())


class Fixed(torch.nn.Module):
    """A projector that always says the same."""

    def __init__(self, tokens: torch.Tensor) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.tokens


def test_an_unknown_kind_is_refused(model, recipe):
    with pytest.raises(ConfigError, match="'magic'"):
        parameter_groups(model, changed(recipe.stages["joint"], kind="magic"))


def test_named_weights_can_be_frozen(model, recipe):
    stage = changed(recipe.stages["joint"], frozen=("network.adapter", "network.llm.model.norm"))
    parameter_groups(model, stage)
    assert not any(parameter.requires_grad for parameter in model.network.adapter.parameters())
    assert not model.network.llm.model.norm.weight.requires_grad
    assert model.network.llm.model.layers[0].mlp.up_proj.weight.requires_grad


def test_the_tied_head_is_frozen_with_the_words(model, recipe):
    parameter_groups(model, changed(recipe.stages["joint"], kind="joint", words_frozen=True))
    assert not model.network.llm.lm_head.weight.requires_grad


def _no_color(patches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour logits and truth of patches without a colour word."""
    return torch.zeros(1, patches, NO_WORD + 1), torch.full((1, patches), NO_WORD)


class TestPatchLosses:
    def test_right_answers_cost_nothing(self):
        names = torch.tensor([[0, 1, 2]])
        logits = 50 * F.one_hot(names, 3).float()
        colors = torch.tensor([[2, NO_WORD, NO_WORD]])
        color_logits = 50 * F.one_hot(colors, NO_WORD + 1).float()
        boxes = torch.rand(1, 3, 4)
        gate = torch.tensor([[50.0, 50.0, -50.0]])  # the last patch is background
        losses = values(patch_losses(logits, color_logits, boxes, gate, names, colors, boxes))
        assert all(losses[key] == pytest.approx(0, abs=1e-6) for key in ("name", "box", "gate"))
        assert losses["name_accuracy"] == losses["color_accuracy"] == 1
        color_logits[0, 2] = color_logits[0, 0]  # a colour said of background does not count
        said = values(patch_losses(logits, color_logits, boxes, gate, names, colors, boxes))
        assert said["name"] == losses["name"]
        color_logits[0, 1] = color_logits[0, 0]
        said = values(patch_losses(logits, color_logits, boxes, gate, names, colors, boxes))
        assert said["name"] > 1

    def test_boxes_of_background_do_not_count(self):
        names = torch.tensor([[2, 0]])
        boxes = torch.zeros(1, 2, 4)
        truth = torch.tensor([[[1.0] * 4, [0.5] * 4]])
        losses = patch_losses(
            torch.zeros(1, 2, 3), _no_color(2)[0], boxes, torch.zeros(1, 2), names, _no_color(2)[1], truth
        )
        assert values(losses)["box"] == pytest.approx(0.5)

    def test_a_picture_without_objects_is_finite(self):
        names = torch.full((1, 4), 2)
        color_logits, colors = _no_color(4)
        boxes = torch.rand(1, 4, 4)
        losses = patch_losses(torch.zeros(1, 4, 3), color_logits, boxes, torch.zeros(1, 4), names, colors, 0 * boxes)
        assert all(math.isfinite(value) for value in values(losses).values())
        assert {name for name, mean in losses.items() if mean.weight == 0} == {"box", "name_accuracy", "color_accuracy"}


class TestOracle:
    @pytest.fixture
    def oracle(self, tokenizer) -> Oracle:
        torch.manual_seed(0)
        return Oracle(["apple", "teddy bear"], tokenizer, 16, 12)

    def test_a_token_tells_name_color_box_and_place(self, oracle, tokenizer):
        embedding = torch.nn.Embedding(tokenizer.vocab_size, 16)
        name = torch.tensor([[0, 0, 1, 0, 0, 0]])
        color = torch.tensor([[2, 2, 2, 2, 3, NO_WORD]])
        box = torch.tensor([[0.1, 0.1, 0.4, 0.4]]).repeat(1, 6, 1)
        box[0, 1, 0] = 0.2
        centers = torch.full((1, 6, 2), 0.2)
        centers[0, 3, 0] = 0.3
        tokens = oracle(embedding, name, color, box, centers)[0]
        for other in range(1, 6):
            assert not torch.allclose(tokens[0], tokens[other])

    def test_background_is_the_same_whatever_its_box(self, oracle, tokenizer):
        embedding = torch.nn.Embedding(tokenizer.vocab_size, 16)
        place = torch.full((1, 2, 2), 0.5)
        nothing = torch.tensor([[2, 2]])
        tokens = oracle(embedding, nothing, torch.tensor([[0, NO_WORD]]), torch.rand(1, 2, 4), place)[0]
        torch.testing.assert_close(tokens[0], tokens[1])

    def test_names_take_the_directions_in_which_the_encoder_tells_them_apart(self, tokenizer):
        names = ["apple", "teddy bear", "car"]
        oracle, heads = Oracle(names, tokenizer, 16, 12), PatchHeads(12, len(names))
        embedding = torch.nn.Embedding(tokenizer.vocab_size, 16)
        before = embedding.weight.detach().clone()
        oracle.align(heads, embedding)
        rows = heads.name.weight[:3] - heads.name.weight[:3].mean(0)
        torch.testing.assert_close(F.cosine_similarity(oracle.names, rows), torch.ones(3))
        torch.testing.assert_close(oracle.names.norm(dim=-1), torch.ones(3))
        for name, token in zip(names, oracle.name_tokens(), strict=True):
            ids = tokenizer.encode_answer(f" {name}")
            torch.testing.assert_close(embedding.weight[ids].sum(0) * len(ids) ** -0.5, token, atol=1e-4, rtol=0)
        used = {token for name in names for token in tokenizer.encode_answer(f" {name}")}
        others = [token for token in range(tokenizer.vocab_size) if token not in used]
        assert torch.equal(embedding.weight[others], before[others])

    def test_a_good_gate_keeps_objects_first(self):
        names = torch.tensor([[5, 0, 5, 1, 5, 5], [0, 1, 2, 3, 5, 5]])
        kept = oracle_selection(names, background=5, count=3)
        assert {1, 3} <= set(kept[0].tolist())
        assert set(kept[1].tolist()) <= {0, 1, 2, 3}
        assert (kept.diff(dim=1) > 0).all()


class TestPointing:
    # One clip of two frames with three visual tokens each; tokens of object 0 are 0 and 4.
    VISUAL = torch.tensor([0, 1, 2, 4, 5, 6])
    OBJECTS = torch.tensor([[0, 1, -1, -1, 0, 1]])

    def loss(self, pointers, hidden):
        torch.manual_seed(0)
        heads = PointingHeads(8, ((1,), (1,), (1,)))
        return heads({1: hidden}, torch.tensor(pointers).reshape(-1, 5), self.VISUAL, self.OBJECTS, 2)

    def test_it_is_the_log_mass_on_the_objects_tokens_of_that_frame(self):
        hidden = torch.zeros(1, 9, 8)
        # All scores are equal: one of six tokens is the right one.
        loss, accuracy = self.loss([[0, 8, 0, 1, 0]], hidden)
        assert loss.value.item() == pytest.approx(math.log(6))
        assert accuracy.value in (0, 1)

    def test_what_has_no_token_is_left_out(self):
        for pointer in ([0, 8, -2, 0, 0], [0, 8, 2, 0, 0]):  # nowhere; covered or not kept
            loss, _ = self.loss([pointer, [0, 8, 0, 0, 0]], torch.zeros(1, 9, 8))
            assert loss.value.item() == pytest.approx(math.log(6))
            assert loss.weight == 1

    @pytest.mark.parametrize("pointers", [[], [[0, 8, -2, 0, 0]]], ids=["no pointers", "no object shown"])
    def test_without_objects_to_point_at_there_is_nothing_to_learn(self, pointers):
        loss, accuracy = self.loss(pointers, torch.zeros(1, 9, 8))
        assert loss.weight == accuracy.weight == 0
        assert loss.value == accuracy.value == 0

    def test_it_can_be_learnt(self):
        torch.manual_seed(0)
        heads = PointingHeads(8, ((1,), (), ()))
        hidden = torch.randn(1, 9, 8)
        optimizer = torch.optim.Adam(heads.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss, accuracy = heads({1: hidden}, torch.tensor([[0, 8, 0, 1, 0]]), self.VISUAL, self.OBJECTS, 2)
            loss.value.backward()
            optimizer.step()
        assert loss.value < 0.1
        assert accuracy.value == 1

    def test_layers_to_collect_are_told_in_order(self):
        assert PointingHeads(8, ((2, 3), (3,), (1,))).collect == (1, 2, 3)


def test_patch_centres_are_row_by_row():
    assert patch_centers(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_fourier_features_tell_places_apart():
    features = fourier(torch.tensor([[0.1, 0.2], [0.1, 0.3]]))
    assert features.shape == (2, 24)
    assert not torch.allclose(features[0], features[1])
