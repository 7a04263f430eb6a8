from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from elysium_core.network.llama import Llama, LlamaSize
from elysium_core.training.real.attention_losses import attention_loss

SIZE = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROWS, LENGTH = 2, 9


@pytest.fixture
def llm() -> Llama:
    torch.manual_seed(0)
    llm = Llama(LlamaSize.from_dict(SIZE))
    for weight in llm.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.4)
    return llm


@pytest.fixture
def sequence() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    # Positions of two branches after three tokens; the second branch does not see the first one.
    branch = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    mask = torch.ones(LENGTH, LENGTH).tril().bool() & ((branch == branch[:, None]) | (branch == 0))
    return {
        "embedded": torch.randn(ROWS, LENGTH, 32),
        "positions": torch.tensor([[0, 1, 2, 3, 4, 5, 3, 4, 5]]).expand(ROWS, -1),
        "mask": mask.expand(ROWS, 1, -1, -1),
    }


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_it_is_the_attention_that_the_decoder_pays(llm, sequence, monkeypatch, layer):
    paid, inputs = [], []
    attend = F.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **options):
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        paid.append(scores.masked_fill(~attn_mask, float("-inf")).softmax(-1))
        return attend(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    hook = llm.model.layers[layer].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    llm(sequence["embedded"], sequence["positions"], sequence["mask"])
    hook.remove()
    looks = (torch.tensor([0, 1, 1]), torch.tensor([5, 8, 7]))
    wanted = torch.zeros(3, LENGTH, dtype=torch.bool)
    wanted[0, [0, 4]] = wanted[1, [1, 2, 6]] = wanted[2, 7] = True
    heads = (0, 3)
    found = attention_loss(llm, layer, inputs[0], sequence["positions"], sequence["mask"], looks, wanted, heads)
    expected = torch.stack([(paid[layer][looks[0], head, looks[1]] * wanted).sum(-1) for head in heads])
    torch.testing.assert_close(found, -expected.log(), rtol=1e-4, atol=1e-5)


def test_only_what_the_place_may_see_counts(llm, sequence):
    wanted = torch.zeros(1, LENGTH, dtype=torch.bool)
    wanted[0, [2, 4]] = True
    looks = (torch.tensor([0]), torch.tensor([6]))  # of the second branch, which does not see place 4
    parts = (llm, 0, sequence["embedded"], sequence["positions"], sequence["mask"], looks)
    both = attention_loss(*parts, wanted, (1,))
    wanted[0, 4] = False
    torch.testing.assert_close(both, attention_loss(*parts, wanted, (1,)))


def test_it_teaches_the_heads_that_are_named(llm, sequence):
    wanted = torch.zeros(1, LENGTH, dtype=torch.bool)
    wanted[0, 2] = True
    looks = (torch.tensor([0]), torch.tensor([5]))
    attention_loss(
        llm, 1, sequence["embedded"], sequence["positions"], sequence["mask"], looks, wanted, (2,)
    ).sum().backward()
    projection = llm.model.layers[1].self_attn.q_proj.weight.grad.view(4, -1).abs().amax(1)
    assert (projection > 0).tolist() == [False, False, True, False]
    assert llm.model.layers[0].self_attn.q_proj.weight.grad is None


def test_nothing_to_look_at_costs_nothing(llm, sequence):
    nothing = torch.zeros(0, dtype=torch.int64)
    parts = (llm, 0, sequence["embedded"], sequence["positions"], sequence["mask"])
    assert attention_loss(*parts, (nothing, nothing), torch.zeros(0, LENGTH, dtype=torch.bool), (0, 1)).shape == (2, 0)
