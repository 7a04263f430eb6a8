"""The assembled network."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig

from elysium_core.network.crop_config import CropConfig
from elysium_core.network.efficientnet import EfficientNetConfig
from elysium_core.network.elysium_network import ElysiumNetwork, build_projector
from elysium_core.network.encoders import VISION_ENCODERS, build_vision_encoder, token_shape
from elysium_core.network.image_encoder import ImageEncoder
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig

VISION = CLIPVisionConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
)
LLM = LlamaSize.from_dict(
    {
        "vocab_size": 30,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
)


def make_network(kind="t_selector", kept=4):
    config = ElysiumConfig(llm="llm", vision="vision", adapter=AdapterConfig(kind, 16, kept, 16))
    return ElysiumNetwork(config, VISION, LLM).eval()


@pytest.mark.parametrize(
    ("kind", "kept"),
    [("t_selector", 1), ("t_selector", 16), ("none", 16), ("cross_attention", 4), ("concatenation", 4)],
)
def test_every_adapter_reaches_the_width_of_the_llm(kind, kept):
    assert make_network(kind, kept).encode_frames(torch.randn(3, 3, 32, 32)).shape == (3, kept, 24)


def test_prefixes_of_its_weights_are_the_published_ones():
    prefixes = {key.split(".")[0] for key in make_network().state_dict()}
    assert prefixes == {"visual_encoder", "adapter", "llm_proj", "llm"}


def test_pieces_and_frames_alternate():
    network = make_network()
    pieces = [torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([4, 5])]
    frames = [torch.full((4, 24), 7.0), torch.full((4, 24), 8.0)]
    joined = network.interleave(pieces, frames)
    expected = [network.llm.embed(pieces[0]), frames[0], network.llm.embed(pieces[1]), frames[1]]
    assert torch.equal(joined, torch.cat([*expected, network.llm.embed(pieces[2])]))


def test_text_without_frames_is_one_piece():
    network = make_network()
    assert network.interleave([torch.tensor([1, 2, 3])], []).shape == (3, 24)


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_wrong_number_of_pieces_is_refused(frames):
    pieces = [torch.tensor([1])] * 3
    with pytest.raises(ValueError, match=f"{frames} frames need {frames + 1} prompt pieces, not 3"):
        make_network().interleave(pieces, [torch.zeros(4, 24)] * frames)


def test_an_unknown_projector_is_refused():
    with pytest.raises(ValueError, match="'linear' is not supported"):
        build_projector("linear", 4, 4)


CROP = CropConfig(live_px=64, anchor_px=32, live_tokens=6, anchor_tokens=3, neck=8, match=8, trunk=8, num_features=16)


def make_crop_network(crop=CROP, vision=None, width=16):
    config = ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig("conv_t_selector", 16, 4, 432, neck=8, out_features=width),
        crop=crop,
    )
    torch.manual_seed(0)
    return ElysiumNetwork(config, vision or EfficientNetConfig(64), LLM).eval()


@torch.no_grad()
def test_frames_and_crops_reach_the_width_of_the_llm_through_one_projector():
    network = make_crop_network()
    assert network.encode_frames(torch.randn(2, 3, 64, 64)).shape == (2, 4, 24)
    pixels, boxes = torch.randn(2, 3, 32, 32), torch.tensor([[0.2, 0.2, 0.8, 0.8], [0.1, 0.3, 0.5, 0.9]])
    live = torch.randn(2, 3, 64, 64)
    anchors = network.encode_anchors(pixels, boxes)
    tokens = network.encode_crops(live, anchors)
    assert (anchors.tokens.shape, tokens.shape) == ((2, 3, 24), (2, 6, 24))
    encoder, selector = network.crop_parts()
    plain = selector.anchor(encoder.crop_features(pixels), boxes)
    assert torch.equal(anchors.tokens, network.llm_proj(plain.tokens))
    assert torch.equal(tokens, network.llm_proj(selector.live(encoder.crop_features(live), plain).tokens))


def test_a_model_without_crops_says_so():
    network = make_network()
    assert network.target_selector is None
    for call in (
        lambda: network.encode_anchors(torch.zeros(1, 3, 64, 64), torch.zeros(1, 4)),
        lambda: network.encode_crops(torch.zeros(1, 3, 128, 128), None),
    ):
        with pytest.raises(ValueError, match="this model has no crop_config: it follows in whole frames only"):
            call()


def test_crops_need_an_encoder_that_gives_their_features():
    config = ElysiumConfig(llm="llm", vision="vision", adapter=AdapterConfig("t_selector", 16, 4, 16), crop=CROP)
    with pytest.raises(ValueError, match="needs a vision encoder with features of crops: efficientnet_lite0"):
        ElysiumNetwork(config, VISION, LLM)


def test_crops_and_frames_need_tokens_of_one_width():
    with pytest.raises(ValueError, match="num_features = 16, but the projector takes tokens of width 20"):
        make_crop_network(width=20)


@pytest.mark.parametrize("vision", [VISION, EfficientNetConfig(96)], ids=["clip", "efficientnet"])
def test_a_vision_encoder_is_what_its_settings_say(vision):
    with torch.device("meta"):
        encoder = build_vision_encoder(vision)
    assert isinstance(encoder, ImageEncoder)
    assert token_shape(vision) == (encoder.token_count, encoder.width)
    assert vision.model_type in VISION_ENCODERS
    assert all(isinstance(value, int | float | str) for value in encoder.settings().values())


def test_an_unknown_vision_encoder_is_refused_and_the_known_ones_are_named():
    vision = EfficientNetConfig(64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EfficientNetConfig, "model_type", "siglip")
        with pytest.raises(ValueError, match="'siglip' is not one of clip_vision_model, efficientnet_lite0"):
            build_vision_encoder(vision)
