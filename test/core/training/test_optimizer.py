from __future__ import annotations

import io

import pytest
import torch

from elysium_core.errors import BackendError
from elysium_core.training.optimizer import MixedOptimizer, ScheduledAdamW, cosine_factor, linear_factor


def make_network() -> torch.nn.ModuleDict:
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([torch.nn.Linear(6, 6)])
    return torch.nn.ModuleDict(
        {"layers_holder": torch.nn.ModuleDict({"layers": layers}), "head": torch.nn.Linear(6, 3)}
    )


def make_optimizer(network, lr=1e-2) -> MixedOptimizer:
    return MixedOptimizer([{"params": list(network.named_parameters()), "lr": lr}], weight_decay=0.01)


def train(network, optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        hidden = network["layers_holder"]["layers"][0](torch.randn(4, 6)).tanh()
        network["head"](hidden).square().mean().backward()
        optimizer.set_factor(1 / (1 + step))
        optimizer.step()


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest():
    network = make_network()
    muon, adamw = make_optimizer(network)._parts
    layer = network["layers_holder"]["layers"][0]
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(layer.weight)]
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert rest == {id(layer.bias), id(network["head"].weight), id(network["head"].bias)}


def test_a_saved_state_goes_on_exactly():
    whole = make_network()
    train(whole, make_optimizer(whole), range(6))

    halved = make_network()
    optimizer = make_optimizer(halved)
    train(halved, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = make_optimizer(halved)
    again.load_state_dict(torch.load(file, weights_only=True))
    train(halved, again, range(3, 6))
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, halved.get_parameter(name)), name


def test_the_factor_scales_every_group_from_its_peak():
    network = make_network()
    layer, head = network["layers_holder"]["layers"][0], network["head"]
    groups = [
        {"params": [("a.layers.0.weight", layer.weight)], "lr": 1.0},
        {"params": [("head.weight", head.weight)], "lr": 0.1},
    ]
    optimizer = MixedOptimizer(groups, 0.0)
    for factor in (0.5, 0.25):
        optimizer.set_factor(factor)
        rates = [group["lr"] for part in optimizer._parts for group in part.param_groups]
        assert rates == pytest.approx([factor, 0.1 * factor])


def test_a_step_clears_the_gradients():
    network = make_network()
    optimizer = make_optimizer(network)
    train(network, optimizer, range(1))
    assert all(parameter.grad is None for parameter in optimizer.parameters)


def test_a_torch_without_muon_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(BackendError, match=r"torch 2\.9 or newer"):
        make_optimizer(make_network())


class TestAdamW:
    @staticmethod
    def make(network) -> ScheduledAdamW:
        layer, head = network["layers_holder"]["layers"][0], network["head"]
        groups = [{"params": list(layer.parameters()), "lr": 1.0}, {"params": list(head.parameters()), "lr": 0.1}]
        return ScheduledAdamW(groups, weight_decay=0.5)

    def test_groups_keep_their_ratio_and_only_matrices_decay(self):
        optimizer = self.make(make_network())
        optimizer.set_factor(0.5)
        found = [(g["lr"], g["weight_decay"], g["params"][0].ndim) for g in optimizer.shardable.param_groups]
        assert found == [(0.5, 0.5, 2), (0.05, 0.5, 2), (0.5, 0.0, 1), (0.05, 0.0, 1)]

    def test_a_saved_state_goes_on_exactly(self):
        whole, halved = make_network(), make_network()
        train(whole, self.make(whole), range(6))
        optimizer = self.make(halved)
        train(halved, optimizer, range(3))
        again = self.make(halved)
        again.load_state_dict(optimizer.state_dict())
        train(halved, again, range(3, 6))
        for name, parameter in whole.named_parameters():
            assert torch.equal(parameter, halved.get_parameter(name)), name


class TestLinear:
    @pytest.mark.parametrize(
        ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (30, 1.0), (50, 1.0), (75, 0.55), (100, 0.1)]
    )
    def test_it_warms_up_stays_and_falls(self, step, factor):
        found = linear_factor(step, 100, warmup_steps=10, decay_from=0.5, final=0.1)
        assert found == pytest.approx(factor)

    def test_without_decay_it_stays_to_the_end(self):
        assert [linear_factor(step, 10, warmup_steps=0, decay_from=1.0, final=0.03) for step in range(10)] == [1.0] * 10


class TestCosine:
    @pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)])
    def test_it_warms_up_and_follows_half_a_cosine(self, step, factor):
        assert cosine_factor(step, 100, warmup_share=0.1, final=0.0) == pytest.approx(factor)

    def test_it_ends_at_the_share_that_was_asked_for(self):
        assert cosine_factor(20, 20, warmup_share=0.0, final=0.25) == pytest.approx(0.25)
