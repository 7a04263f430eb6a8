"""The adapters of the paper's table 7: shapes, equations, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from elysium_core.network.adapters import ADAPTERS, build_adapter
from elysium_core.network.model_config import AdapterConfig

TOKENS, WIDTH = 16, 8


def make_adapter(kind, kept, width=WIDTH):
    torch.manual_seed(0)
    return build_adapter(AdapterConfig(kind, TOKENS, kept, width)).eval()


@pytest.fixture
def tokens():
    return torch.randn(3, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("kind", "kept", "width"),
    [
        ("none", TOKENS, WIDTH),
        ("cross_attention", 5, WIDTH),
        ("concatenation", 4, WIDTH * 4),
        *(("t_selector", kept, WIDTH) for kept in range(1, TOKENS + 1)),
        ("conv_t_selector", 5, 128),
    ],
)
def test_shape_is_what_the_projector_is_told(tokens, kind, kept, width):
    adapter = make_adapter(kind, kept)
    assert adapter.adapt(tokens).shape == (3, kept, width)
    assert adapter.out_features == width


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_frame_is_adapted_by_itself(tokens, kind):
    adapter = make_adapter(kind, TOKENS if kind == "none" else 4)
    alone = torch.cat([adapter.adapt(frame[None]) for frame in tokens])
    assert torch.allclose(adapter.adapt(tokens), alone, atol=1e-6)


def test_none_changes_nothing(tokens):
    assert torch.equal(make_adapter("none", TOKENS).adapt(tokens), tokens)


def test_concatenation_lays_neighbours_side_by_side(tokens):
    joined = make_adapter("concatenation", 4).adapt(tokens)
    assert torch.equal(joined[1, 2], torch.cat([tokens[1, place] for place in (8, 9, 10, 11)]))


@pytest.mark.parametrize("width", [WIDTH, 6])  # eight heads; one, because eight do not divide six
def test_cross_attention_is_its_equation(width):
    adapter = make_adapter("cross_attention", 3, width)
    tokens = torch.randn(1, TOKENS, width)
    x = torch.nn.functional.layer_norm(tokens[0], (width,), adapter.norm.weight, adapter.norm.bias)
    attention = adapter.attention
    query, key, value = (
        source @ weight.T + bias
        for source, weight, bias in zip(
            (adapter.queries, x, x), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
        )
    )
    head = width // attention.num_heads
    parts = [
        torch.softmax(q @ k.T / math.sqrt(head), dim=-1) @ v
        for q, k, v in zip(query.split(head, 1), key.split(head, 1), value.split(head, 1), strict=True)
    ]
    expected = torch.cat(parts, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias
    assert torch.allclose(adapter.adapt(tokens)[0], expected, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="keeps all 16 tokens; out_token_num is 5"):
        make_adapter("none", 5)
    with pytest.raises(ValueError, match="divide 16, 5 does not"):
        make_adapter("concatenation", 5)
    with pytest.raises(ValueError, match="'pooling' is not one of t_selector, conv_t_selector, none, cross"):
        make_adapter("pooling", 4)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_gradient_reaches_every_weight_that_is_used(tokens, kind):
    config = AdapterConfig(kind, TOKENS, TOKENS if kind == "none" else 4, WIDTH, gate="straight_through")
    adapter = build_adapter(config).train()
    adapter.adapt(tokens.requires_grad_()).square().sum().backward()
    assert tokens.grad.abs().sum() > 0
    without = {name for name, parameter in adapter.named_parameters() if parameter.grad is None}
    assert without == ({"score_proj.weight", "score_proj.bias"} if kind == "t_selector" else set())


def conv_selector(draw_weights, gate="hard", kept=5):
    torch.manual_seed(0)
    adapter = build_adapter(AdapterConfig("conv_t_selector", TOKENS, kept, WIDTH, gate, neck=6, out_features=7))
    draw_weights(adapter)
    return adapter


@torch.no_grad()
def test_the_convolutional_selector_keeps_the_highest_of_its_new_tokens(draw_weights, tokens):
    adapter = conv_selector(draw_weights).eval()
    kept, index, logits = adapter(tokens)
    every = adapter.every_token(tokens)
    assert (every.shape, adapter.out_features) == ((3, TOKENS, 7), 7)
    torch.testing.assert_close(logits, (every @ adapter.gate_score.weight.T + adapter.gate_score.bias)[..., 0])
    for row in range(3):
        best = sorted(sorted(range(TOKENS), key=lambda place: -float(logits[row, place]))[:5])
        assert index[row].tolist() == best
        assert torch.equal(kept[row], every[row, best])


@torch.no_grad()
def test_the_convolutional_selector_is_its_equation(draw_weights, tokens):
    adapter = conv_selector(draw_weights).eval()
    weights = adapter.state_dict()

    def conv(x, name):
        weight, norm = weights[f"{name}.conv.weight"], f"{name}.norm"
        y = torch.nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return torch.nn.functional.batch_norm(y, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"])

    grid = torch.stack([frame.reshape(4, 4, WIDTH).permute(2, 0, 1) for frame in tokens])
    x = conv(conv(grid, "neck").relu(), "trunk.0").relu()
    x = (x + conv(conv(x, "trunk.1.first").relu(), "trunk.1.second")).relu()
    x = conv(x, "trunk.2").relu()
    rows = torch.stack([frame.permute(1, 2, 0).reshape(TOKENS, 6) for frame in x])
    expected = rows @ weights["token.weight"].T + weights["token.bias"] + weights["place"]
    torch.testing.assert_close(adapter.every_token(tokens), expected, rtol=1e-4, atol=1e-5)


def test_the_convolutional_gate_learns_straight_through_only(draw_weights, tokens):
    for gate, learns in (("hard", False), ("straight_through", True)):
        adapter = conv_selector(draw_weights, gate).train()
        adapter.adapt(tokens).square().sum().backward()
        assert (adapter.gate_score.weight.grad is not None) is learns
        assert adapter.token.weight.grad.any()
        untrained = {id(weight) for part in adapter.untrained_parts() for weight in part.parameters()}
        assert untrained == {id(weight) for weight in adapter.parameters() if weight.grad is None}


def test_the_published_gate_learns_straight_through_only(tokens):
    for gate in ("hard", "straight_through"):
        adapter = build_adapter(AdapterConfig("t_selector", TOKENS, 5, WIDTH, gate)).train()
        kept = adapter.adapt(tokens.clone().requires_grad_())
        kept.square().sum().backward()
        untrained = {id(weight) for part in adapter.untrained_parts() for weight in part.parameters()}
        assert untrained == {id(weight) for weight in adapter.parameters() if weight.grad is None}


def test_a_grid_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="conv_t_selector needs a square grid; in_token_num = 12 is none"):
        build_adapter(AdapterConfig("conv_t_selector", 12, 5, WIDTH))
