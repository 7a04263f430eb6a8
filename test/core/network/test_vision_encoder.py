"""The vision encoder against transformers' hidden states."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from elysium_core.network.vision_encoder import VisionEncoder

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def pair():
    """Ours and transformers', with the same weights."""
    torch.manual_seed(0)
    peer = CLIPVisionModel(CLIPVisionConfig(**SIZES)).eval()
    return make_encoder(peer, -2), peer


def make_encoder(peer, layer):
    encoder = VisionEncoder(CLIPVisionConfig(**SIZES), layer).eval()
    encoder.vision_model.load_state_dict(getattr(peer, "vision_model", peer).state_dict())
    return encoder


@pytest.mark.parametrize("layer", [-1, -2, -3])
@torch.no_grad()
def test_equals_the_hidden_state_without_class_token(pair, layer):
    peer = pair[1]
    pixels = torch.randn(2, 3, 32, 32)
    expected = peer(pixels, output_hidden_states=True).hidden_states[layer][:, 1:]
    torch.testing.assert_close(make_encoder(peer, layer)(pixels), expected, atol=1e-5, rtol=0)


def test_knows_its_sizes(pair):
    encoder = pair[0]
    assert (encoder.side_px, encoder.grid, encoder.token_count, encoder.width) == (32, 4, 16, 16)


def test_names_of_its_weights_are_the_published_ones(pair):
    assert all(key.startswith("vision_model.") for key in pair[0].state_dict())


def test_takes_float_pixels_whatever_its_own_type(pair):
    half = make_encoder(pair[1], -2).bfloat16()
    assert half(torch.randn(1, 3, 32, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize("layer", [0, 1, -4])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(ValueError, match=f"feature_layer = {layer} is not in -3..-1"):
        VisionEncoder(CLIPVisionConfig(**SIZES), layer)
