from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from elysium_core.api import Elysium
from elysium_core.cli.app import app
from elysium_core.errors import ConfigError, DataError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.training import run as run_module
from elysium_core.training.nano import scratch
from elysium_core.training.nano.nano_model import export_stage
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import claim_run, run_recipe, run_stage, steps_done
from elysium_core.training.stage_work import LoopSettings

ONE_STAGE = ["stages.vision.steps=2", "stages.vision.batch_frames=2"]


def changed(part, **values):
    """A part of a recipe with other values."""
    return part.model_copy(update=values)


@pytest.fixture
def one_stage_file(recipe_file):
    """The tiny recipe with its first stage alone."""
    raw = yaml.safe_load(recipe_file.read_text())
    raw |= {"stages": {"vision": raw["stages"]["vision"]}, "export": "vision"}
    recipe_file.write_text(yaml.safe_dump(raw))
    return recipe_file


@pytest.fixture(autouse=True)
def batches_drawn_here(monkeypatch):
    """Stages draw their batches in this process: another one imports everything anew, which takes seconds."""
    monkeypatch.setattr(scratch, "LoopSettings", partial(LoopSettings, workers=0))


@pytest.fixture
def images() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 255, (48, 64, 3)).astype(np.uint8) for n in range(3)]


def check_checkpoint(folder, images) -> None:
    """Load a checkpoint as a user would, and use every task of it."""
    model = Elysium.from_pretrained(folder, device="cpu")
    assert model.info.clip_length == 3  # the longest clips of the recipe
    assert 0 <= model.ground(images[0], "the apple").score <= 1
    assert isinstance(model.describe(images, Box(0.1, 0.1, 0.5, 0.5)), str)
    tracker = model.tracker()
    tracker.add(box=Box(0.2, 0.2, 0.6, 0.6))
    updates = [tracker.step(Frame(image, index=n))[0] for n, image in enumerate(images)]
    assert [update.frame_index for update in updates] == [0, 1, 2]
    assert updates[0].box == Box(0.2, 0.2, 0.6, 0.6)


class TestStages:
    def test_all_four_stages_lead_to_a_checkpoint_that_works(self, recipe, tmp_path, images):
        for name in recipe.stages:
            run_stage(recipe, name, tmp_path)
        assert steps_done(recipe, tmp_path) == {name: stage.steps for name, stage in recipe.stages.items()}
        check_checkpoint(export_stage(recipe, tmp_path), images)

    def test_a_language_stage_takes_its_names_from_the_encoder(self, recipe, tmp_path):
        aligned = changed(recipe.stages["language"], init=("vision",), parts=(("patch_heads",),), align_names=True)
        recipe = changed(recipe, stages=recipe.stages | {"language": aligned})
        for name in ("vision", "language"):
            run_stage(recipe, name, tmp_path)
        heads = load_file(tmp_path / "vision" / "state.safetensors")["patch_heads.name.weight"][:-1]
        names = load_file(tmp_path / "language" / "state.safetensors")["oracle.names"]
        torch.testing.assert_close(names, F.normalize(heads - heads.mean(0), dim=-1))

    def test_a_finished_stage_is_not_run_again(self, recipe, tmp_path):
        run_stage(recipe, "vision", tmp_path)
        before = (tmp_path / "vision" / "state.safetensors").stat().st_mtime_ns
        run_stage(recipe, "vision", tmp_path)
        assert (tmp_path / "vision" / "state.safetensors").stat().st_mtime_ns == before

    def test_progress_is_read_from_the_logs(self, recipe, tmp_path):
        assert steps_done(recipe, tmp_path) == {}
        (tmp_path / "language").mkdir()
        log = tmp_path / "language" / "log.jsonl"
        log.write_text('{"step": 1}\n{"step": 2}\n{"st')
        assert steps_done(recipe, tmp_path) == {"language": 2}
        (tmp_path / "vision").mkdir()
        (tmp_path / "vision" / "done").touch()
        assert steps_done(recipe, tmp_path) == {"vision": recipe.stages["vision"].steps, "language": 2}


class TestFolders:
    def test_a_folder_is_for_one_model(self, recipe_file, tmp_path):
        claim_run(load_any_recipe(recipe_file), tmp_path / "run")
        claim_run(load_any_recipe(recipe_file, ["stages.joint.lr=0.1", "data.absent_share=0"]), tmp_path / "run")
        with pytest.raises(ConfigError, match="llm_mlp 48, not 64; names 6, not 5"):
            claim_run(load_any_recipe(recipe_file, ["model.llm_mlp=64", "data.names=5"]), tmp_path / "run")

    def test_a_setting_younger_than_the_folder_had_its_default(self, recipe_file, tmp_path):
        run_stage(load_any_recipe(recipe_file, ["stages.vision.steps=1"]), "vision", tmp_path)
        for name, key in (("model.json", "system_text"), ("vision/settings.json", "model.system_text")):
            settings = json.loads((tmp_path / name).read_text())
            del settings[key]
            (tmp_path / name).write_text(json.dumps(settings))
        claim_run(load_any_recipe(recipe_file, ["stages.vision.steps=1"]), tmp_path)
        with pytest.raises(ConfigError, match=r"system_text None, not 'Hello\. '"):
            claim_run(load_any_recipe(recipe_file, ["stages.vision.steps=1", "model.system_text='Hello. '"]), tmp_path)

    def test_a_finished_stage_is_not_passed_off_as_another_recipe_s(self, recipe_file, tmp_path):
        run_stage(load_any_recipe(recipe_file, ["stages.vision.steps=1"]), "vision", tmp_path)
        claim_run(
            load_any_recipe(recipe_file, ["stages.vision.steps=1", "stages.joint.lr=0.1", "stages.vision.threads=2"]),
            tmp_path,
        )
        for change, told in [
            ("stages.vision.vision_lr=0.5", "stages.vision.vision_lr 0.0015, not 0.5"),
            ("data.seed=77", "data.seed 1, not 77"),
        ]:
            with pytest.raises(ConfigError, match=f"stage vision .* was trained with {told}; choose another --out, or"):
                claim_run(load_any_recipe(recipe_file, ["stages.vision.steps=1", change]), tmp_path)
        (tmp_path / "vision" / "done").unlink()
        claim_run(load_any_recipe(recipe_file, ["stages.vision.steps=2"]), tmp_path)

    def test_a_stage_that_goes_on_with_other_settings_says_so(self, recipe_file, tmp_path, caplog):
        run_stage(load_any_recipe(recipe_file, ["stages.vision.steps=1"]), "vision", tmp_path)
        (tmp_path / "vision" / "done").unlink()
        run_stage(load_any_recipe(recipe_file, ["stages.vision.steps=2"]), "vision", tmp_path)
        assert "started with stages.vision.steps 1, not 2; it continues with the new settings" in caplog.text

    def test_without_weights_there_is_nothing_to_export(self, recipe, tmp_path):
        with pytest.raises(DataError, match="stage joint has left no weights"):
            export_stage(recipe, tmp_path)

    def test_weights_of_another_model_are_not_exported(self, recipe_file, tmp_path):
        recipe = load_any_recipe(recipe_file, ["export=vision", "stages.vision.steps=1"])
        run_stage(recipe, "vision", tmp_path)
        for change in ("model.llm_mlp=64", "model.llm_layers=2"):
            with pytest.raises(DataError, match="than the recipe's"):
                export_stage(load_any_recipe(recipe_file, ["export=vision", change]), tmp_path)


class TestProcesses:
    def test_stages_find_the_elysium_command(self):
        shown = subprocess.run([sys.executable, "-m", "elysium_core.cli", "--version"], capture_output=True, check=True)
        assert shown.stdout.startswith(b"elysium ")

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_a_recipe_runs_and_goes_on(self, one_stage_file, tmp_path, images):
        told: list[int] = []
        recipe = load_any_recipe(one_stage_file, ONE_STAGE)
        checkpoint = run_recipe(recipe, one_stage_file, ONE_STAGE, tmp_path / "run", 2, told.append)
        assert told[0] == 0
        check_checkpoint(checkpoint, images)
        # Everything is done: no process is started, the checkpoint is written again.
        assert run_recipe(recipe, one_stage_file, ONE_STAGE, tmp_path / "run", 2) == checkpoint

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_all_stages_run_side_by_side(self, recipe_file, tmp_path, images):
        recipe = load_any_recipe(recipe_file)
        check_checkpoint(run_recipe(recipe, recipe_file, [], tmp_path / "run", 2), images)

    @pytest.fixture
    def started(self, monkeypatch):
        """Replace the training processes by ``sh -c COMMAND``; returns their handles."""
        processes = []

        def use(command: str):
            def start(*arguments: object) -> subprocess.Popen[bytes]:
                processes.append(subprocess.Popen(["/bin/sh", "-c", command]))
                return processes[-1]

            monkeypatch.setattr(run_module, "_start", start)
            monkeypatch.setattr(run_module, "_POLL_S", 0.02)
            return processes

        return use

    @pytest.mark.parametrize("command", ["exit 3", "exit 0"])
    def test_a_stage_that_ends_without_result_is_told(self, started, recipe, recipe_file, tmp_path, command):
        processes = started(command)
        with pytest.raises(DataError, match=r"stage (vision|language) failed with exit code"):
            run_recipe(recipe, recipe_file, [], tmp_path, 1)
        assert len(processes) == 1

    def test_why_a_stage_failed_is_told(self, started, recipe, recipe_file, tmp_path):
        log = tmp_path / "vision.log"
        started(f"echo 'elysium: the disk is full' >> {log}; exit 2")
        with pytest.raises(DataError, match="stage vision failed with exit code 2: the disk is full; see "):
            run_recipe(recipe, recipe_file, [], tmp_path, 1)

    def test_stages_may_save_before_they_end(self, started, recipe, recipe_file, tmp_path, caplog):
        saved = tmp_path / "saved"
        on_end = f"trap 'sleep 0.2; touch {saved}; exit 130' TERM"
        processes = started(f"{on_end}; touch {tmp_path}/up; while :; do sleep 0.02; done")

        def interrupt(steps: int) -> None:
            if (tmp_path / "up").exists():
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, recipe_file, [], tmp_path, 1, interrupt)
        assert saved.exists()
        assert processes[0].returncode == 130
        assert "the same command goes on from there" in caplog.text

    def test_stopping_ends_the_processes(self, started, recipe, recipe_file, tmp_path):
        processes = started("exec sleep 60")

        def interrupt(steps: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, recipe_file, [], tmp_path, 2, interrupt)
        # The two that need nothing were started; distil and joint wait for them.
        assert len(processes) == 2
        assert all(process.returncode is not None for process in processes)

    def test_stages_wait_for_those_they_start_from(self, recipe, tmp_path):
        ready = [name for name in recipe.stages if run_module._ready(recipe, name, tmp_path)]
        assert ready == ["vision", "language"]
        for name in ready:
            (tmp_path / name).mkdir()
            (tmp_path / name / "done").touch()
        assert run_module._ready(recipe, "distil", tmp_path)
        assert not run_module._ready(recipe, "joint", tmp_path)

    def test_the_command_of_a_stage_is_the_elysium_command(self, monkeypatch, recipe_file, tmp_path):
        calls = []
        monkeypatch.setattr(run_module.subprocess, "Popen", lambda command, **options: calls.append((command, options)))
        run_module._start("vision", recipe_file, ["name=x"], tmp_path, 3)
        ((command, options),) = calls
        assert command[1:] == [
            "-m", "elysium_core.cli", "train", str(recipe_file), "name=x", "--stage", "vision", "--out", str(tmp_path),
        ]  # fmt: skip
        assert options["env"] == os.environ | {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"}


class TestCommand:
    @staticmethod
    def train(*arguments: object):
        return CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)

    def test_a_dry_run_prints_every_setting_and_starts_nothing(self, recipe_file, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        outcome = self.train(recipe_file, "stages.joint.steps=77", "--dry-run")
        assert outcome.exit_code == 0
        assert outcome.stderr == ""
        resolved = yaml.safe_load(outcome.stdout)
        assert resolved["stages"]["joint"]["steps"] == 77
        assert resolved["stages"]["joint"]["warmup_steps"] == 60
        assert resolved["data"]["max_turns"] == 4
        assert not (tmp_path / "runs").exists()

    def test_what_it_prints_is_a_recipe(self, recipe_file, tmp_path):
        printed = tmp_path / "printed.yaml"
        printed.write_text(self.train(recipe_file, "--dry-run").stdout)
        assert load_any_recipe(printed) == load_any_recipe(recipe_file)

    def test_one_stage_runs_in_this_process(self, recipe_file, tmp_path):
        outcome = self.train(recipe_file, *ONE_STAGE, "--stage", "vision", "--out", tmp_path / "run")
        assert outcome.exit_code == 0
        assert json.loads((tmp_path / "run" / "vision" / "log.jsonl").read_text())["step"] == 2

    def test_the_cost_is_told_before_it_starts(self, recipe_file, tmp_path, monkeypatch):
        (tmp_path / "run" / "vision").mkdir(parents=True)
        (tmp_path / "run" / "vision" / "done").touch()
        monkeypatch.setattr(run_module, "run_recipe", lambda *arguments: tmp_path / "checkpoint")
        outcome = self.train(recipe_file, "--out", tmp_path / "run")
        assert outcome.exit_code == 0
        lines = [line for line in outcome.stderr.splitlines() if "steps of" in line]
        assert [line.split(":")[1].strip() for line in lines] == ["language", "distil", "joint"]
        assert "joint: 4 steps of" in lines[2]
        assert not (tmp_path / "run" / "language").exists()

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [(["--stage", "none"], "has no stage 'none'"), (["x=1", "y=2"], "unknown key x; unknown key y")],
    )
    def test_bad_input_gets_one_line(self, recipe_file, arguments, reason):
        outcome = self.train(recipe_file, *arguments)
        assert outcome.exit_code == 2
        assert reason in outcome.stderr
        assert outcome.stderr.count("\n") == 1
