"""The decoder against transformers' LlamaForCausalLM, and against itself with cache, masks and free positions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from elysium_core.network.llama import Llama, LlamaSize

SETTINGS = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
}
LENGTH = 9


def make_llama(**changes):
    torch.manual_seed(0)
    model = Llama(LlamaSize.from_dict(SETTINGS | changes)).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model


def peer_of(model, **changes):
    """The same weights in transformers."""
    peer = LlamaForCausalLM(LlamaConfig(**SETTINGS | changes)).eval()
    peer.load_state_dict(model.state_dict())
    return peer


def sequence(length=LENGTH, batch=1):
    return torch.randn(batch, length, 32, generator=torch.Generator().manual_seed(5))


def places(*ranges):
    return torch.tensor([[place for part in ranges for place in part]])


LLAMA = make_llama()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"rope_theta": 500.0},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"head_dim": 16},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
@torch.no_grad()
def test_logits_equal_those_of_transformers(changes):
    model = make_llama(**changes)
    ids = torch.randint(0, 60, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    hidden, _ = model(model.embed(ids), torch.arange(LENGTH)[None])
    torch.testing.assert_close(model.logits(hidden), peer_of(model, **changes)(ids).logits, atol=1e-5, rtol=0)


@given(cuts=st.lists(st.integers(1, LENGTH - 1), max_size=4, unique=True))
@torch.no_grad()
def test_cached_in_any_portions_equals_uncached(cuts):
    embeddings = sequence()
    expected, _ = LLAMA(embeddings, places(range(LENGTH)))
    cache, parts = LLAMA.new_cache(LENGTH), []
    edges = [0, *sorted(cuts), LENGTH]
    for start, stop in pairwise(edges):
        mask = torch.ones(stop - start, stop, dtype=torch.bool).tril(start)[None, None]
        parts.append(LLAMA(embeddings[:, start:stop], places(range(start, stop)), mask, cache)[0])
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=0)
    assert cache.length == LENGTH


@torch.no_grad()
def test_one_token_at_a_time_needs_no_mask():
    embeddings, cache = sequence(), LLAMA.new_cache(LENGTH)
    steps = [LLAMA(embeddings[:, t : t + 1], places([t]), cache=cache)[0] for t in range(LENGTH)]
    expected, _ = LLAMA(embeddings, places(range(LENGTH)))
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, atol=1e-5, rtol=0)


def test_several_tokens_behind_a_cache_need_a_mask():
    cache = LLAMA.new_cache(LENGTH)
    LLAMA(sequence(3), places(range(3)), cache=cache)
    with pytest.raises(ValueError, match="a mask is needed"):
        LLAMA(sequence(2), places(range(3, 5)), cache=cache)


@torch.no_grad()
def test_two_continuations_packed_behind_one_prefix_equal_each_alone():
    embeddings = sequence(10)
    prefix, first, second = embeddings.split([4, 3, 3], dim=1)
    mask = torch.ones(10, 10, dtype=torch.bool).tril()
    mask[7:, 4:7] = False  # the second continuation does not see the first
    packed, _ = LLAMA(embeddings, places(range(7), range(4, 7)), mask[None, None])
    for continuation, own in ((first, packed[:, 4:7]), (second, packed[:, 7:])):
        alone, _ = LLAMA(torch.cat([prefix, continuation], dim=1), places(range(7)))
        torch.testing.assert_close(own, alone[:, 4:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_only_distances_between_positions_matter():
    near, _ = LLAMA(sequence(), places(range(LENGTH)))
    far, _ = LLAMA(sequence(), places(range(300, 300 + LENGTH)))
    torch.testing.assert_close(near, far, atol=1e-4, rtol=0)
    stretched, _ = LLAMA(sequence(), places(range(0, 3 * LENGTH, 3)))
    assert (near - stretched).abs().max() > 0.01


@torch.no_grad()
def test_a_masked_token_has_no_influence():
    embeddings, mask = sequence(), torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    mask[3:, 2] = False
    changed = embeddings.clone()
    changed[:, 2] += 1.0
    before, _ = LLAMA(embeddings, places(range(LENGTH)), mask[None, None])
    after, _ = LLAMA(changed, places(range(LENGTH)), mask[None, None])
    assert torch.equal(before[:, 3:], after[:, 3:])
    assert not torch.equal(before[:, 2], after[:, 2])


@torch.no_grad()
def test_collected_layers_lead_to_the_result():
    embeddings = sequence()
    hidden, layers = LLAMA(embeddings, places(range(LENGTH)), collect=(1, 3))
    assert len(layers) == 2
    torch.testing.assert_close(LLAMA.model.norm(layers[1]), hidden)
    shallow = make_llama(num_hidden_layers=1)
    shallow.load_state_dict(LLAMA.state_dict(), strict=False)
    torch.testing.assert_close(shallow(embeddings, places(range(LENGTH)), collect=(1,))[1][0], layers[0])


def test_logits_are_float32_in_half_precision():
    model = make_llama().bfloat16()
    hidden, _ = model(sequence().bfloat16(), places(range(LENGTH)))
    assert hidden.dtype == torch.bfloat16
    assert model.logits(hidden).dtype == torch.float32
    assert model.new_cache(4).update(0, *[torch.zeros(1, 2, 1, 8).bfloat16()] * 2)[0].dtype == torch.bfloat16


def test_tied_head_is_one_tensor():
    model = make_llama(tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "'llama3'"),
    ],
)
def test_a_decoder_of_another_kind_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        LlamaSize.from_dict(SETTINGS | changes)


def test_sizes_of_older_configs():
    raw = {key: value for key, value in SETTINGS.items() if key != "num_key_value_heads"}
    size = LlamaSize.from_dict(raw | {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert (size.kv_heads, size.head_dim, size.rope_base, size.rope_factor) == (4, 8, 5000.0, 2.0)
