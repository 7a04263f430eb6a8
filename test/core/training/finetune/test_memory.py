"""The memory of a stage as it is estimated, beside what a run really allocates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from elysium_core.cli.app import app
from elysium_core.training.finetune import activations, memory
from elysium_core.training.finetune.activations import Shape, activation_bytes
from elysium_core.training.finetune.memory import estimate_memory
from elysium_core.training.finetune.memory_lines import memory_line, other_memory_lines
from elysium_core.training.finetune.stage import FineTuneStageRun
from elysium_core.training.launch import Launch, read_launch
from elysium_core.training.recipes import load_any_recipe

TRAINING = Path(__file__).resolve().parents[4] / "training"


def change(recipe, **values):
    stage = recipe.stages["all"].model_copy(update=values)
    return recipe.model_copy(update={"stages": {"all": stage}})


def size(tensors) -> int:
    """Bytes of tensors; those that share memory count once."""
    kept = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


def states(optimizer) -> list[torch.Tensor]:
    parts = getattr(optimizer, "_parts", None) or [optimizer.shardable]
    found = [item for part in parts for state in part.state.values() for item in state.items()]
    # bitsandbytes' table of the 256 values is one for all weights.
    return [value for name, value in found if torch.is_tensor(value) and value.ndim and not name.startswith("qmap")]


@pytest.mark.parametrize(
    "values",
    [
        {"trained": ("selector", "llm")},
        {"trained": ("vision", "llm"), "lora_rank": 2},
        {"trained": ("projector", "llm"), "optimizer": "adamw8bit"},
    ],
)
def test_one_process_allocates_what_is_estimated(recipe, tmp_path, values, monkeypatch):
    for key, package in (("lora_rank", "peft"), ("optimizer", "bitsandbytes")):
        if key in values:
            pytest.importorskip(package, reason=f"{key} needs it")
    recipe = change(recipe, batch=1, **values)
    run = FineTuneStageRun(recipe, "all", tmp_path)
    step, found = run.loop.optimizer.step, []

    def measure() -> None:
        found.append(size(weight.grad for weight in run.loop.model.parameters() if weight.grad is not None))
        step()

    monkeypatch.setattr(run.loop.optimizer, "step", measure)
    monkeypatch.setattr(memory, "activation_bytes", lambda *_, **__: 0)
    run.loop.model.train()
    run.loop.train_step([run.batches[0]])
    needed = estimate_memory(recipe, run.stage, Launch())
    assert needed.weights == size(run.loop.model.parameters())
    assert needed.gradients == found[0]
    assert needed.optimizer == size(states(run.loop.optimizer))
    assert needed.buffers == 0


def test_activations_are_those_that_a_forward_pass_keeps(recipe, tmp_path):
    run = FineTuneStageRun(recipe, "all", tmp_path)
    model, batch = run.loop.model, run.batches[0]
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: list[torch.Tensor] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model(batch)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    real = sum(storages.values())

    answers = int((batch.label_weight[:, 1:] > 0).sum())
    shape = Shape(len(batch.token_ids), len(batch.images), batch.token_ids.shape[1], answers)
    with FakeTensorMode():
        activations.make_fake(model.network)
        estimated = activation_bytes(model.network, shape, torch.bfloat16, again=False)
        again = activation_bytes(model.network, shape, torch.bfloat16, again=True)
    assert estimated == pytest.approx(real, rel=0.05)
    assert again < 0.7 * estimated


def test_what_is_sharded_is_divided(recipe, monkeypatch):
    monkeypatch.setattr(memory, "activation_bytes", lambda *_, **__: 0)
    stage = recipe.stages["all"]
    one = estimate_memory(recipe, stage, Launch())
    half = recipe.model_copy(update={"precision": "bfloat16"})
    zero2, zero3, fsdp = (estimate_memory(half, stage, Launch(4, kind)) for kind in ("zero2", "zero3", "fsdp"))
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == pytest.approx(
        (one.weights / 2, one.gradients / 8, one.gradients * 3 / 4), rel=1e-3
    )
    assert (zero3.weights, zero3.gradients, zero3.optimizer) == pytest.approx(
        (one.weights / 8, one.gradients / 8, one.gradients * 3 / 4), rel=1e-3
    )
    assert (fsdp.weights, fsdp.gradients, fsdp.optimizer) == pytest.approx(
        (one.weights / 4, one.gradients / 4, one.gradients * 2 / 4), rel=1e-3
    )
    assert estimate_memory(recipe, stage, Launch(4)).buffers == one.gradients


@pytest.mark.parametrize(
    ("name", "sharding"), [("data_parallel", ""), ("zero2", "zero2"), ("zero3", "zero3"), ("fsdp", "fsdp")]
)
def test_the_shipped_configs_are_told_apart(name, sharding):
    path = TRAINING / "accelerate" / f"{name}.yaml"
    assert read_launch(path) == Launch(8, sharding)
    assert read_launch(path, 2) == Launch(2, sharding)


def test_a_line_says_whether_it_fits(recipe, monkeypatch):
    def line(needed: float) -> str:
        whole = memory.MemoryEstimate(int(needed), 0, 0, 0, 0, 0)
        monkeypatch.setattr("elysium_core.training.finetune.memory_lines.estimate_memory", lambda *_: whole)
        return memory_line(recipe, "all", Launch())

    assert line(1e6).endswith("GB: fits")
    assert line(1e15).endswith("GB: does not fit")
    listed = list(other_memory_lines(change(recipe, optimizer="adamw8bit"), "all", Launch(2, "fsdp")))
    assert sum("adamw8bit" in text for text in listed) == 2
    assert [text.split(":")[0].rpartition(", ")[2] for text in listed[-3:]] == ["2 processes"] * 3
    assert "cannot be sharded" in memory_line(change(recipe, optimizer="adamw8bit"), "all", Launch(2, "fsdp"))


def test_without_a_base_nothing_is_estimated():
    recipe = load_any_recipe(TRAINING / "published_long.yaml")
    assert "base.checkpoint is not filled in" in memory_line(recipe, "long", Launch())


def test_a_dry_run_tells_the_memory_of_every_way(recipe_file, monkeypatch):
    pytest.importorskip("peft", reason="LoRA is part of the extra [train]")
    monkeypatch.setattr(memory, "activation_bytes", lambda *_, **__: 0)
    outcome = CliRunner().invoke(app, ["train", str(recipe_file), "--dry-run"])
    assert outcome.exit_code == 0
    assert yaml.safe_load(outcome.stdout)["stages"]["all"]["optimizer"] == "adamw"
    ways = [line.split(": ")[2] for line in outcome.stderr.splitlines() if line.startswith("elysium: all: ")]
    assert ways[0] == "without LoRA, adamw, batch 4, one process"
    assert [way.rpartition("batch 4, ")[2] for way in ways[1:]] == ["one process"] * 3 + [
        "ZeRO-2, 8 processes",
        "ZeRO-3, 8 processes",
        "FSDP, 8 processes",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_published_recipe_is_estimated_without_its_weights():
    pytest.importorskip("peft", reason="LoRA is part of the extra [train]")
    words = ["stages.images.lora_rank=16", "stages.images.batch=1", "stages.images.trained=[selector, projector, llm]"]
    line = memory_line(load_any_recipe(TRAINING / "published_stage1.yaml", words), "images", Launch())
    assert line.startswith("LoRA of rank 16, adamw, batch 1, one process: ")
    # 7.06 thousand million weights in bfloat16, but for embeddings, selector and projector, and the adapters.
    assert "weights 14.6 GB" in line
    assert 15 < float(line.split(" GB")[0].rpartition(" ")[2]) < 20
