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
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.errors import ConfigError, DataError, ExpressionError
from elysium_core.training.finetune import stage
from elysium_core.training.finetune.base_model import FineTuneModel
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.finetune.memory import estimate_memory
from elysium_core.training.finetune.stage import FineTuneStageRun, stored_type
from elysium_core.training.launch import Launch
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import run_stage


class KilledError(Exception):
    """Stands for the end of the process."""


def change(recipe: FineTuneRecipe, **values) -> FineTuneRecipe:
    stages = {name: stage.model_copy(update=values) for name, stage in recipe.stages.items()}
    return recipe.model_copy(update={"stages": stages})


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "all" / "checkpoint" / "model.safetensors")


def losses_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "all" / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def run_until_killed(recipe, folder: Path, step: int, saved_at: int) -> None:
    run = FineTuneStageRun(recipe, "all", folder)
    train_step = run.loop.train_step

    def step_or_die(batches):
        if run.loop.step == saved_at:
            run.loop.save()
        if run.loop.step == step:
            raise KilledError
        return train_step(batches)

    run.loop.train_step = step_or_die
    with pytest.raises(KilledError):
        run.run()


EIGHT_BIT = pytest.param(
    {"optimizer": "adamw8bit", "trained": ("llm",)},
    marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="part of the extra [quantize]"),
)


@pytest.mark.parametrize("values", [{}, {"ema": 0.5}, EIGHT_BIT])
def test_a_killed_run_ends_as_if_nothing_had_happened(recipe, tmp_path, values):
    recipe = change(recipe, **values)
    run_stage(recipe, "all", tmp_path / "whole")
    run_until_killed(recipe, tmp_path / "killed", 3, 2)
    run_stage(recipe, "all", tmp_path / "killed")
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "whole")
    assert [line["step"] for line in losses_of(tmp_path / "whole")] == [1, 2, 3, 4]


def test_how_a_batch_is_divided_changes_no_gradient(recipe_file, tmp_path):
    runs = {
        "whole": (1, "stages.all.batch=4"),
        "two processes": (2, "stages.all.batch=2"),
        "two batches": (1, "stages.all.batch=2", "stages.all.accumulate=2"),
        "two of two": (2, "stages.all.batch=1", "stages.all.accumulate=2"),
    }
    command = [sys.executable, str(Path(__file__).with_name("dump_gradients.py")), str(recipe_file)]
    for how, settings in runs.items():
        command += [str(tmp_path / f"{how}.safetensors"), *map(str, settings), "--"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    whole, *divided = (load_file(tmp_path / f"{how}.safetensors") for how in runs)
    for how, found in zip(list(runs)[1:], divided, strict=True):
        assert found.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=f"{how}: {name}")


def test_how_a_batch_is_divided_changes_no_measure(settings, write_recipe, data_folder, tmp_path):
    """Samples with digits in their answers beside samples without any."""
    lines = [json.loads(line) for line in (data_folder / "chat.jsonl").read_text().splitlines()]
    for line in lines:
        line["conversations"] = line["conversations"][:2]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings["data"]["chat"]["path"] = str(tmp_path / "words.jsonl")
    settings["stages"]["all"] |= {"steps": 2, "mixture": {"chat": 1, "boxes": 1}}

    def measures(batch: int, accumulate: int) -> list[dict]:
        settings["stages"]["all"] |= {"batch": batch, "accumulate": accumulate}
        folder = tmp_path / f"{batch}x{accumulate}"
        run_stage(load_any_recipe(write_recipe(settings)), "all", folder)
        return losses_of(folder)

    whole = measures(4, 1)
    assert {"total", "digit_loss", "digit_accuracy", "text_loss"} < whole[0].keys()
    for divided in (measures(2, 2), measures(1, 4)):
        for line, expected in zip(divided, whole, strict=True):
            assert line == pytest.approx(expected, abs=2e-4)


def test_without_digits_there_is_no_accuracy_of_digits(settings, write_recipe, data_folder, tmp_path):
    settings["data"]["boxes"]["tasks"] = ["reg"]
    settings["stages"]["all"] |= {"steps": 1, "mixture": {"boxes": 1}}
    run_stage(load_any_recipe(write_recipe(settings)), "all", tmp_path)
    (line,) = losses_of(tmp_path)
    assert line.keys() == {"step", "total", "text_loss"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_that_were_killed_go_on_exactly(recipe_file, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[4])}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "-m", "elysium_core.cli", "train", str(recipe_file), "stages.all.save_every_s=0"]
    command += ["stages.all.steps=30", "--stage", "all", "--out"]
    whole = subprocess.run(
        [*command, str(tmp_path / "whole")], env=environment, capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr[:3000]

    log = tmp_path / "cut" / "all" / "log.jsonl"
    killed = subprocess.Popen(
        [*command, str(tmp_path / "cut")], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    while killed.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 5):
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "cut" / "all" / "done").exists()

    subprocess.run([*command, str(tmp_path / "cut")], env=environment, capture_output=True, check=True)
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weights_of(tmp_path / "cut")[name], weight), name


@pytest.mark.parametrize(
    ("trained", "moved"),
    [
        (("selector", "projector"), ("adapter.", "llm_proj.")),
        (("llm",), ("llm.",)),
        (("vision",), ("visual_encoder.",)),
    ],
)
def test_only_what_is_trained_moves(recipe, tmp_path, tiny_folder, trained, moved):
    run_stage(change(recipe, trained=trained, steps=1, warmup_share=0.0), "all", tmp_path)
    before = load_checkpoint(tiny_folder, dtype=torch.float32).network.state_dict()
    after = weights_of(tmp_path)
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(name.startswith(moved) for name in changed)


def test_rates_are_scaled_by_module(recipe, tmp_path):
    run = FineTuneStageRun(change(recipe, lr_scale={"vision": 0.1}), "all", tmp_path)
    assert {group["lr"] for group in run.loop.optimizer.shardable.param_groups} == {1e-3, 1e-4}


def test_forgotten_activations_change_no_gradient(recipe, tmp_path):
    run_stage(change(recipe, steps=2), "all", tmp_path / "kept")
    run_stage(change(recipe, steps=2, gradient_checkpointing=True), "all", tmp_path / "again")
    for name, weight in weights_of(tmp_path / "kept").items():
        torch.testing.assert_close(weights_of(tmp_path / "again")[name], weight, msg=name)


def test_evaluations_leave_values_and_pictures(settings, write_recipe, tmp_path, data_folder):
    settings["data"]["held_out"] = settings["data"]["boxes"]
    settings["validation"] = ["held_out"]
    settings["stages"]["all"] |= {"evaluate_every": 2}
    run_stage(load_any_recipe(write_recipe(settings)), "all", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "all" / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line["total"] > 0 for line in lines)
    pictures = sorted(path.name for path in (tmp_path / "all" / "pictures").iterdir())
    assert pictures[0] == "00000002-answers-0.png"
    assert len(pictures) == 8
    assert any((tmp_path / "all" / "tensorboard").iterdir())


def test_bad_lines_are_skipped_counted_and_named(settings, write_recipe, tmp_path, data_folder):
    lines = [json.loads(line) for line in (data_folder / "boxes.jsonl").read_text().splitlines()]
    lines[1]["image"] = "gone.png"
    lines[2]["objects"][0]["box"] = [0.5, 0.2, 0.1, 0.6]
    path = tmp_path / "damaged.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), "{not json"]))
    settings["data"]["boxes"]["path"] = str(path)
    settings["stages"]["all"]["mixture"] = {"boxes": 1}
    run_stage(load_any_recipe(write_recipe(settings)), "all", tmp_path / "run")
    skipped = (tmp_path / "run" / "all" / "skipped.jsonl").read_text()
    reasons = [json.loads(line)["reason"] for line in skipped.splitlines()]
    assert len(reasons) == 3
    for number, word in ((2, "gone.png"), (3, "reversed"), (5, "valid JSON")):
        assert any(f"line {number} of" in reason and word in reason for reason in reasons), reasons


def test_data_that_is_all_bad_ends_the_run(settings, write_recipe, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text('{"image": "gone.png", "objects": []}\n')
    settings["data"]["boxes"]["path"] = str(path)
    settings["stages"]["all"]["mixture"] = {"boxes": 1}
    with pytest.raises(DataError, match=r"samples of data.boxes in a row cannot be used; the last: line 1 of"):
        run_stage(load_any_recipe(write_recipe(settings)), "all", tmp_path / "run")


def test_a_stage_without_anything_to_learn_is_refused(recipe, tmp_path):
    with pytest.raises(ConfigError, match="has nothing to learn: gate is hard"):
        FineTuneStageRun(change(recipe, trained=("selector",), gate="hard"), "all", tmp_path)


def test_a_stage_that_is_not_finished_is_named(settings, write_recipe, tmp_path):
    settings["stages"]["more"] = settings["stages"]["all"] | {"init": "all"}
    with pytest.raises(DataError, match="stage more starts from all, which is not finished"):
        run_stage(load_any_recipe(write_recipe(settings)), "more", tmp_path)


class TestLowRank:
    @pytest.fixture
    def lora(self, recipe):
        pytest.importorskip("peft", reason="LoRA is part of the extra [train]")
        return change(recipe, lora_rank=2, trained=("selector", "llm"))

    def test_a_killed_run_goes_on_and_its_merged_checkpoint_loads(self, lora, tmp_path, tiny_folder):
        run_stage(lora, "all", tmp_path / "whole")
        run_until_killed(lora, tmp_path / "killed", step=3, saved_at=2)
        run_stage(lora, "all", tmp_path / "killed")
        after, before = weights_of(tmp_path / "killed"), load_file(tiny_folder / "model.safetensors")
        assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "whole")
        assert all(torch.equal(weight, after[name]) for name, weight in weights_of(tmp_path / "whole").items())
        assert after.keys() == before.keys()
        moved = {name for name in after if not torch.equal(after[name].float(), before[name].float())}
        assert all("_proj." in name or name.startswith("adapter.") for name in moved)
        change_of = after["llm.model.layers.0.mlp.up_proj.weight"] - before["llm.model.layers.0.mlp.up_proj.weight"]
        assert 1 <= torch.linalg.matrix_rank(change_of.float(), atol=1e-6) <= 2
        Elysium.from_pretrained(tmp_path / "killed/all/checkpoint", device="cpu").close()

    def test_the_merged_weights_answer_as_the_adapters_did(self, lora, tmp_path):
        run = FineTuneStageRun(lora, "all", tmp_path)
        model = run.loop.model
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        batch = run.batches[0]
        with torch.no_grad():
            adapted = float(model(batch)["total"].value)
            run.finish(model.state_dict())
            loaded = load_checkpoint(tmp_path / "all/checkpoint", dtype=torch.float32).network
            merged = float(FineTuneModel(loaded)(batch)["total"].value)
        assert merged == pytest.approx(adapted, abs=1e-5)

    @pytest.fixture
    def another_precision(self):
        """accelerate keeps the precision of the first run in a process."""
        AcceleratorState._reset_state()
        yield
        AcceleratorState._reset_state()

    def test_frozen_weights_in_half_precision_change_nothing(
        self, settings, write_recipe, tmp_path, tiny_folder, monkeypatch, another_precision
    ):
        pytest.importorskip("peft", reason="LoRA is part of the extra [train]")
        settings["precision"] = "bfloat16"
        settings["data"]["held_out"] = settings["data"]["boxes"]
        settings["validation"] = ["held_out"]
        settings["stages"]["all"] |= {"steps": 2, "batch": 1, "lora_rank": 2, "trained": ["selector", "llm"]}
        recipe = load_any_recipe(write_recipe(settings))
        run_stage(change(recipe, evaluate_every=2), "all", tmp_path / "half")
        held = FineTuneStageRun(recipe, "all", tmp_path / "again").loop.model
        layer = held.get_parameter("network.visual_encoder.vision_model.encoder.layers.0.mlp.fc1.weight")
        assert layer.dtype == torch.bfloat16
        assert {weight.dtype for weight in held.parameters() if weight.requires_grad} == {torch.float32}
        needed = estimate_memory(recipe, recipe.stages["all"], Launch())
        assert needed.weights == sum(weight.numel() * weight.element_size() for weight in held.parameters())
        monkeypatch.setattr(stage, "cast_frozen", lambda *_: None)
        run_stage(recipe, "all", tmp_path / "whole")
        assert losses_of(tmp_path / "half") == losses_of(tmp_path / "whole")
        expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "half")
        assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
        before = load_file(tiny_folder / "model.safetensors")
        assert torch.equal(found["llm.lm_head.weight"], before["llm.lm_head.weight"].float())

    def test_fewer_weights_are_trained(self, lora, tmp_path):
        groups = FineTuneStageRun(lora, "all", tmp_path).loop.optimizer.shardable.param_groups
        names = {id(weight) for group in groups for weight in group["params"]}
        model = FineTuneStageRun(lora, "all", tmp_path / "again").loop.model
        trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert len(names) == len(trained)
        assert all("lora_" in name for name in trained if ".llm." in name)


def test_adapters_need_the_language_model_among_the_trained(settings, write_recipe):
    settings["stages"]["all"] |= {"lora_rank": 2, "trained": ["selector"]}
    with pytest.raises(ConfigError, match="lora_rank"):
        load_any_recipe(write_recipe(settings))


def test_small_updates_reach_the_next_stage(settings, write_recipe, tmp_path, tiny_folder):
    settings["stored_as"] = "bfloat16"
    settings["stages"]["all"] |= {"steps": 1, "batch": 1, "lr": 1e-7, "warmup_share": 0.0}
    settings["stages"]["more"] = settings["stages"]["all"] | {"init": "all"}
    settings["export"] = "more"
    recipe = load_any_recipe(write_recipe(settings))
    run_stage(recipe, "all", tmp_path)
    before = load_checkpoint(tiny_folder, dtype=torch.float32).network.state_dict()
    after = weights_of(tmp_path)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    moved = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert moved
    # The same update would be lost in the type of the result.
    assert all(torch.allclose(after[name], before[name], rtol=0, atol=1e-6) for name in moved)
    assert stored_type(recipe, "more") == "bfloat16"


def test_a_model_of_few_names_knows_what_it_was_taught(settings, write_recipe, closed_folder, tmp_path):
    settings["base"] = {"checkpoint": str(closed_folder)}
    settings["stages"]["all"]["steps"] = 1
    before = load_checkpoint(closed_folder).config.vocabulary
    recipe = load_any_recipe(write_recipe(settings))
    run_stage(recipe, "all", tmp_path)
    folder = tmp_path / "all" / "checkpoint"
    assert set(load_checkpoint(folder).config.vocabulary) >= {*before, "apple", "mug"}
    hound = {"image": "000.png", "objects": [{"expression": "the black hound", "box": [0.1, 0.2, 0.5, 0.6]}]}
    lines = tmp_path / "hound.jsonl"
    lines.write_text(json.dumps(hound) + "\n")
    settings["base"] = {"checkpoint": str(folder)}
    settings["data"] = {"own": {"reader": "grounding", "path": str(lines), "media": settings["data"]["boxes"]["media"]}}
    settings["stages"]["all"]["mixture"] = {"own": 1}
    run_stage(load_any_recipe(write_recipe(settings, "own.yaml")), "all", tmp_path / "own")
    model = Elysium.from_pretrained(tmp_path / "own" / "all" / "checkpoint", device="cpu")
    assert model.clean_words("the black hound") == "the black hound"
    with pytest.raises(ExpressionError):
        model.clean_words("the white cat")
