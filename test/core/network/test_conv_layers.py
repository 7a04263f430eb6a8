from __future__ import annotations

import pytest
import torch
from torch import nn

from elysium_core.network.conv_layers import ConvNorm, Residual, as_grid, as_tokens, cell_centers


def peer_of(layer: ConvNorm) -> nn.Sequential:
    """The same layer of torch's own modules."""
    conv, norm = layer.conv, nn.BatchNorm2d(layer.conv.out_channels)
    norm.load_state_dict(layer.norm.state_dict(), strict=False)
    return nn.Sequential(conv, norm)


@pytest.fixture
def layer(draw_weights):
    torch.manual_seed(0)
    layer = ConvNorm(6, 8, 3)
    draw_weights(layer)
    return layer


@torch.no_grad()
def test_inference_is_convolution_norm_and_relu(layer):
    x = torch.randn(2, 6, 5, 5)
    expected = peer_of(layer).eval()(x)
    torch.testing.assert_close(layer.eval()(x), expected.relu(), rtol=1e-5, atol=1e-5)
    linear = ConvNorm(6, 8, 3, relu=False).eval()
    linear.load_state_dict(layer.state_dict())
    torch.testing.assert_close(linear(x), expected, rtol=1e-5, atol=1e-5)
    assert float(expected.min()) < 0


def test_training_normalises_by_the_batch_and_remembers_it(layer):
    x = 3 + 2 * torch.randn(4, 6, 5, 5)
    peer = peer_of(layer).train()
    torch.testing.assert_close(layer.train()(x), peer(x).relu(), rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(layer.norm, name), getattr(peer[1], name))


def test_all_that_is_stored_is_floating_point(layer):
    assert all(value.is_floating_point() for value in layer.state_dict().values())
    assert set(layer.state_dict()) == {
        "conv.weight",
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }


def test_weights_learn_in_inference_mode_too(layer):
    """Fine-tuning with frozen statistics."""
    layer.eval()(torch.randn(2, 6, 5, 5)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@torch.no_grad()
def test_half_precision_stays_close(layer):
    x = torch.randn(2, 6, 5, 5)
    expected = layer.eval()(x)
    found = layer.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.03 * expected.abs().max()


@torch.no_grad()
def test_a_residual_adds_what_it_was_given(draw_weights):
    torch.manual_seed(0)
    block = Residual(4).eval()
    draw_weights(block)
    x = torch.randn(1, 4, 3, 3)
    assert torch.allclose(block(x), (x + block.second(block.first(x))).relu())


def test_cells_are_numbered_by_row():
    grid = torch.arange(12.0).reshape(1, 2, 2, 3)
    assert as_tokens(grid).tolist() == [[[place, place + 6] for place in range(6)]]
    square = torch.randn(2, 5, 4, 4)
    assert torch.equal(as_grid(as_tokens(square).transpose(1, 2), 4), square)
    assert cell_centers(2, torch.device("cpu")).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
