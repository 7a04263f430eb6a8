"""FSDP, ZeRO-2 and ZeRO-3 in two processes on a CPU, with the configs that are shipped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.training.finetune.memory import estimate_memory
from elysium_core.training.launch import read_launch
from elysium_core.training.run import run_stage

ROOT = Path(__file__).resolve().parents[4]
ZERO = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is the extra [deepspeed]")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(params=["fsdp", pytest.param("zero2", marks=ZERO), pytest.param("zero3", marks=ZERO)])
def command(request, recipe_file, tmp_path) -> list[str]:
    """The command of two processes; settings and ``--out`` are added."""
    config = yaml.safe_load((ROOT / "training" / "accelerate" / f"{request.param}.yaml").read_text())
    launcher = tmp_path / "launcher.yaml"
    launcher.write_text(yaml.safe_dump(config | {"num_processes": 2}))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launcher)]
    return [*launch, str(Path(__file__).with_name("sharded_on_cpu.py")), "train", str(recipe_file), "--stage", "all"]


def start(command: list[str], folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [*command, "--out", str(folder), *overrides]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(words, env=environment, start_new_session=True, stdout=log, stderr=log)


def run(command: list[str], folder: Path, *overrides: str) -> None:
    ended = start(command, folder, *overrides).wait()
    assert ended == 0, folder.with_suffix(".log").read_text()[-5000:]


def losses_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "all" / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_losses_are_those_of_one_process_and_a_killed_run_goes_on(command, recipe, tmp_path):
    steps = {"steps": 12, "batch": 4, "save_every_s": 0.0}
    stage = recipe.stages["all"].model_copy(update=steps)
    run_stage(recipe.model_copy(update={"stages": {"all": stage}}), "all", tmp_path / "one")

    overrides = ("stages.all.steps=12", "stages.all.batch=2", "stages.all.save_every_s=0")
    cut = tmp_path / "cut"
    log = cut / "all" / "log.jsonl"
    killed = start(command, cut, *overrides)
    while killed.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 4):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list((cut / "all").glob("step-*"))
    assert not (cut / "all" / "done").exists()
    run(command, cut, *overrides)

    expected = losses_of(tmp_path / "one")
    assert len(expected) == 12
    for line, alone in zip(losses_of(cut), expected, strict=True):
        assert line == pytest.approx(alone, abs=2e-3)
    for name, weight in load_file(tmp_path / "one/all/checkpoint/model.safetensors").items():
        found = load_file(cut / "all/checkpoint/model.safetensors")[name]
        torch.testing.assert_close(found, weight, atol=2e-3, rtol=0, msg=name)
    Elysium.from_pretrained(cut / "all" / "checkpoint", device="cpu").close()


def test_updates_too_small_for_half_precision_arrive(command, recipe, tmp_path, tiny_folder):
    overrides = ("precision=bfloat16", "stages.all.trained=[selector, llm]", "stages.all.lr=1e-7")
    overrides += ("stages.all.steps=2", "stages.all.batch=2", "stages.all.warmup_share=0")
    run(command, tmp_path / "run", *overrides)
    launch = read_launch(tmp_path / "launcher.yaml")
    stage = recipe.stages["all"].model_copy(update={"trained": ("selector", "llm")})
    needed = estimate_memory(recipe.model_copy(update={"precision": "bfloat16"}), stage, launch)
    for rank in range(2):
        found = json.loads((tmp_path / "run" / "all" / f"memory-{rank}.json").read_text())
        assert found == pytest.approx({"weights": needed.weights, "optimizer": needed.optimizer}, rel=0.05)

    before = load_checkpoint(tiny_folder, dtype=torch.float32).network.state_dict()
    after = load_file(tmp_path / "run/all/checkpoint/model.safetensors")
    distance = {name: float((weight - before[name]).abs().max()) for name, weight in after.items()}
    assert max(distance.values()) < 3e-7
    moved = {name for name, far in distance.items() if far > 0}
    assert {"llm.lm_head.weight", "llm.model.layers.0.mlp.up_proj.weight"} <= moved
    assert all(name.startswith(("llm.", "adapter.")) for name in moved)
