"""AdamW with states in 8 bits."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from elysium_core.errors import BackendError, ConfigError
from elysium_core.training.finetune import eight_bit
from elysium_core.training.finetune.eight_bit import BLOCK, EightBitAdamW, embeddings_of
from elysium_core.training.finetune.stage import FineTuneStageRun, _learning
from elysium_core.training.optimizer import ScheduledAdamW
from elysium_core.training.plans import plan_of

pytest.importorskip("bitsandbytes", reason="the 8-bit optimiser is part of the extra [quantize]")


def model_of(seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(64, 80), torch.nn.Linear(80, 64))


def train(model, optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        model(torch.randint(64, (16,))).square().mean().backward()
        optimizer.step()


def optimizer_of(model, lr: float = 1e-3) -> EightBitAdamW:
    return EightBitAdamW([{"params": list(model.parameters()), "lr": lr}], 0.01, embeddings_of(model))


def test_it_learns_what_adamw_learns():
    eight, whole = model_of(0), model_of(0)
    train(eight, optimizer_of(eight), range(20))
    train(whole, ScheduledAdamW([{"params": list(whole.parameters()), "lr": 1e-3}], 0.01), range(20))
    moved = (whole[1].weight - model_of(0)[1].weight).abs().mean()
    assert (eight[1].weight - whole[1].weight).abs().mean() < 0.1 * moved
    assert (eight[0].weight - whole[0].weight).abs().mean() < 0.1 * moved


def test_states_of_matrices_take_a_byte_a_weight_and_those_of_embeddings_four():
    model = model_of(0)
    optimizer = optimizer_of(model)
    train(model, optimizer, range(1))
    matrix, embedding = ({**optimizer._parts[n].state[model[1 - n].weight]} for n in (0, 1))
    assert {matrix[name].dtype for name in ("state1", "state2")} == {torch.uint8}
    assert matrix["absmax1"].numel() == -(-model[1].weight.numel() // BLOCK)
    assert {embedding[name].dtype for name in ("exp_avg", "exp_avg_sq")} == {torch.float32}


@pytest.mark.parametrize("make", [EightBitAdamW, ScheduledAdamW])
def test_tiny_updates_arrive(make):
    """Each is smaller than half a step of bfloat16 at its weight: kept in bfloat16, the weight would never move."""
    weight = torch.nn.Parameter(torch.ones(eight_bit.SMALLEST))
    optimizer = make([{"params": [weight], "lr": 1e-5}], 0.0)
    for _ in range(400):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, 1 - 400e-5), atol=1e-4, rtol=0)


def test_a_missing_package_is_told_before_anything_starts(recipe, monkeypatch):
    stages = {name: stage.model_copy(update={"optimizer": "adamw8bit"}) for name, stage in recipe.stages.items()}
    monkeypatch.setattr(eight_bit, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install bitsandbytes") as told:
        plan_of(recipe.model_copy(update={"stages": stages})).require_inputs()
    assert told.value.code == "PACKAGE_MISSING"


def test_a_version_without_kernels_for_the_device_is_told(monkeypatch):
    class Old(torch.optim.SGD):
        def __init__(self, parameters, lr, **_):
            super().__init__(parameters, lr)

        def step(self):
            raise NotImplementedError("no kernel")

    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", SimpleNamespace(AdamW8bit=Old))
    with pytest.raises(BackendError, match="adamw8bit cannot run on cpu") as told:
        optimizer_of(model_of(0))
    assert "optimizer=adamw" in str(told.value)


def test_it_is_not_sharded(recipe, tmp_path):
    run = FineTuneStageRun(recipe, "all", tmp_path)
    stage = run.stage.model_copy(update={"optimizer": "adamw8bit"})
    with pytest.raises(ConfigError, match=r"stages\.all\.optimizer = adamw8bit") as told:
        _learning(run.loop.model, "all", stage, SimpleNamespace(sharded=True))
    assert "data_parallel.yaml" in str(told.value)
