"""The assembled network."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig

from elysium_core.network.elysium_network import ElysiumNetwork, build_projector
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
