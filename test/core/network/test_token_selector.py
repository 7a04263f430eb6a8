"""T-Selector: what it keeps, and how its gate learns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.network.token_selector import GATES, TokenSelector

TOKENS, WIDTH = 12, 6


def make_selector(kept=5, gate="hard", seed=0):
    torch.manual_seed(seed)
    selector = TokenSelector(TOKENS, kept, WIDTH, gate)
    with torch.no_grad():
        selector.trans_weight += 0.5 * torch.randn(TOKENS, TOKENS)
    return selector


def frames(count=3, seed=1):
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@given(kept=st.integers(1, TOKENS), seed=st.integers(0, 1000))
def test_keeps_the_highest_logits_in_ascending_order(kept, seed):
    tokens = frames(seed=seed)
    chosen, index, logits = make_selector(kept, seed=seed).eval()(tokens)
    for row in range(len(tokens)):
        best = sorted(range(TOKENS), key=lambda place: -float(logits[row, place]))[:kept]
        assert index[row].tolist() == sorted(best)
        assert torch.equal(chosen[row], tokens[row, sorted(best)])


@pytest.mark.parametrize("gate", GATES)
def test_inference_is_the_published_one_whatever_the_gate(gate):
    tokens = frames()
    published, index, _ = make_selector(gate="hard").eval()(tokens)
    ours, our_index, _ = make_selector(gate=gate).eval()(tokens)
    assert torch.equal(index, our_index)
    assert torch.equal(published, ours)


def test_gradient_reaches_the_gate():
    selector = make_selector(gate="straight_through").train()
    selector(frames())[0].square().sum().backward()
    for name in ("pre_proj.weight", "trans_weight", "trans_bias"):
        assert selector.get_parameter(name).grad.abs().sum() > 0, name


def test_hard_gate_gets_no_gradient_but_passes_it_to_the_tokens():
    selector, tokens = make_selector(gate="hard").train(), frames().requires_grad_()
    selector(tokens)[0].sum().backward()
    assert all(parameter.grad is None for parameter in selector.parameters())
    assert int((tokens.grad != 0).any(-1).sum()) == 3 * 5


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_training_computes_what_inference_computes(gate, dtype):
    tokens = frames().to(dtype)
    selector = make_selector(gate=gate).to(dtype)
    assert torch.equal(selector.train()(tokens)[0], selector.eval()(tokens)[0])


def test_how_the_gate_learns_can_be_changed():
    selector = make_selector(gate="hard")
    selector.learn_by("straight_through")
    assert selector.gate == "straight_through"
    with pytest.raises(ValueError, match="'soft'"):
        selector.learn_by("soft")


def test_half_precision_chooses_by_its_logits():
    """In bfloat16 itself, softmax of many close logits gives equal scores, and the choice would be by chance."""
    torch.manual_seed(0)
    selector = TokenSelector(512, 100, WIDTH).bfloat16()
    logits = torch.linspace(-0.2, 0.2, 512).bfloat16()[torch.randperm(512)]
    kept = logits[selector.select(logits[None])[0]]
    threshold = logits.float().sort(descending=True).values[99]
    assert kept.float().min() >= threshold


def test_unused_layer_of_the_published_weights_is_kept():
    assert {"score_proj.weight", "score_proj.bias"} <= make_selector().state_dict().keys()


@pytest.mark.parametrize("kept", [0, -1, TOKENS + 1])
def test_a_number_of_tokens_that_cannot_be_kept_is_refused(kept):
    with pytest.raises(ValueError, match=f"out_token_num = {kept} is not in 1..{TOKENS}"):
        TokenSelector(TOKENS, kept, WIDTH)


def test_an_unknown_gate_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match="gate 'soft' is not one of " + ", ".join(GATES)):
        TokenSelector(TOKENS, 1, WIDTH, "soft")
