"""The command on a recipe of fine-tuning, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elysium_core.api import Elysium


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_stages_run_in_half_precision_and_are_not_run_again(settings, write_recipe, tmp_path):
    settings |= {"precision": "bfloat16", "stored_as": "bfloat16", "export": "more"}
    settings["stages"]["all"] |= {"steps": 2, "workers": 1}
    settings["stages"]["more"] = settings["stages"]["all"] | {"init": "all", "trained": ["llm"]}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    command = [sys.executable, "-m", "elysium_core.cli", "train", str(write_recipe(settings)), "--out"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(tmp_path / "run")], env=environment, capture_output=True, text=True, check=False
        )

    first = run()
    logs = "".join(path.read_text() for path in (tmp_path / "run").glob("*.log"))
    assert first.returncode == 0, first.stderr + logs
    estimates = [line for line in first.stderr.splitlines() if "steps, time not estimated; without LoRA" in line]
    assert [line.split(":")[1].strip() for line in estimates] == ["all", "more"]
    checkpoint = tmp_path / "run" / "more" / "checkpoint"
    assert str(checkpoint) in first.stdout
    Elysium.from_pretrained(checkpoint, device="cpu").close()
    written = (checkpoint / "model.safetensors").stat().st_mtime_ns
    assert run().returncode == 0
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == written
