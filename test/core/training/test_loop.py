from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elysium_core.errors import BackendError, DataError
from elysium_core.training.acceleration import Acceleration
from elysium_core.training.nano.clip_batches import ClipBatches, step_seed
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.scratch import StageRun
from elysium_core.training.snapshots import Snapshots, find_weights

STEPS = 6


def changed(part, **values):
    """A part of a recipe with other values."""
    return part.model_copy(update=values)


@pytest.fixture(scope="module")
def short(tiny_recipe: Recipe) -> Recipe:
    """The tiny recipe with one stage, of 6 steps, in which every source of randomness takes part."""
    recipe = tiny_recipe
    stage = changed(recipe.stages["language"], steps=STEPS, warmup_steps=2)
    return changed(recipe, stages={"language": stage}, export="language")


class KilledError(Exception):
    """Stands for the end of the process."""


def stage_run(recipe: Recipe, folder: Path, name: str = "language") -> StageRun:
    run = StageRun(recipe, name, folder)
    run.loop.settings = replace(run.loop.settings, log_every=1, workers=0)
    run.start()
    return run


def run_until_killed(recipe: Recipe, folder: Path, step: int, saved_at: int) -> None:
    """Run a stage, save at one step, and be killed at a later one."""
    run = stage_run(recipe, folder)
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


def losses_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "language" / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped; read only."""
    folder = tmp_path_factory.mktemp("whole")
    stage_run(short, folder).run()
    return folder


class TestResume:
    @pytest.mark.parametrize(("killed_at", "saved_at"), [(3, 3), (5, 2)])
    def test_a_killed_run_ends_as_if_nothing_had_happened(self, short, whole, tmp_path, killed_at, saved_at):
        run_until_killed(short, tmp_path / "killed", killed_at, saved_at)
        again = stage_run(short, tmp_path / "killed")
        assert again.loop.step == saved_at
        again.run()
        expected = load_file(whole / "language" / "state.safetensors")
        found = load_file(tmp_path / "killed" / "language" / "state.safetensors")
        assert expected.keys() == found.keys()
        for name, weights in expected.items():
            assert torch.equal(weights, found[name]), name
        assert losses_of(tmp_path / "killed") == losses_of(whole)
        assert [line["step"] for line in losses_of(whole)] == [1, 2, 3, 4, 5, 6]

    def test_a_half_written_log_line_is_dropped(self, short, tmp_path):
        run_until_killed(short, tmp_path, 3, 2)
        with (tmp_path / "language" / "log.jsonl").open("a") as log:
            log.write('{"step": 4, "sec')
        run = stage_run(short, tmp_path)
        run.run()
        assert [line["step"] for line in losses_of(tmp_path)] == [1, 2, 3, 4, 5, 6]

    def test_a_batch_depends_on_its_step_alone(self, short, tokenizer_folder):
        batches, others = (ClipBatches(short, "language", tokenizer_folder) for _ in range(2))
        first = batches[4]
        assert torch.equal(first.images, others[4].images)
        assert torch.equal(first.token_ids, batches[4].token_ids)
        assert step_seed(short, "language", 4) != step_seed(short, "language", 5)

    def test_stages_see_different_clips(self, recipe):
        assert step_seed(recipe, "language", 1) != step_seed(recipe, "vision", 1)

    def test_weights_of_other_sizes_are_told(self, short, tmp_path):
        run = stage_run(short, tmp_path)
        run.loop.save()
        wider = changed(short, model=changed(short.model, llm_mlp=64))
        with pytest.raises(DataError, match="other sizes"):
            stage_run(wider, tmp_path)


class TestStart:
    def test_a_stage_starts_from_the_named_parts(self, recipe, tmp_path):
        for name in ("vision", "language"):
            run = StageRun(recipe, name, tmp_path)
            for parameter in run.model.parameters():
                torch.nn.init.constant_(parameter, 1.0 if name == "vision" else 2.0)
            run.loop._finish()
        model = stage_run(recipe, tmp_path, "distil").model
        assert (model.patch_heads.name.weight == 1).all()
        assert (model.network.visual_encoder.vision_model.embeddings.class_embedding == 1).all()
        assert (model.network.llm.model.embed_tokens.weight == 2).all()
        assert (model.oracle.background == 2).all()
        # Not named: as it was made.
        assert len(model.pointing.query["0_1"].weight.unique()) > 2

    def test_an_unfinished_stage_is_named(self, recipe, tmp_path):
        with pytest.raises(DataError, match="starts from vision"):
            stage_run(recipe, tmp_path, "distil")


class TestFailures:
    def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(self, short, tmp_path):
        run = stage_run(short, tmp_path)
        run.loop.save()
        torch.nn.init.constant_(run.model.network.llm.model.norm.weight, float("nan"))
        with pytest.raises(DataError, match=r"the loss of step 0 is nan; its batch is saved as .*bad_batch\.pt"):
            run.run()
        saved = torch.load(tmp_path / "language" / "bad_batch.pt", weights_only=True)
        batch = ClipBatches(short, "language", tmp_path / "tokenizer")[0]
        assert saved["step"] == 0
        assert torch.equal(saved["token_ids"], batch.token_ids)
        assert torch.equal(saved["images"], batch.images)
        assert not run.done
        weights = load_file(Snapshots(run.folder).newest() / "state.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())

    def test_a_gradient_that_is_not_finite_changes_no_weight(self, short, tmp_path):
        run = stage_run(short, tmp_path)
        weight = run.model.network.llm.model.norm.weight
        weight.register_hook(lambda gradient: gradient * float("inf"))
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        with pytest.raises(DataError, match="the gradient of step 0 is"):
            run.run()
        assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())

    def test_a_save_that_fails_leaves_the_one_before_it(self, short, tmp_path, monkeypatch):
        run = stage_run(short, tmp_path)
        run.loop.save()
        before = {path.name: path.read_bytes() for path in Snapshots(run.folder).newest().iterdir()}
        run.loop.step = 3

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            run.loop.save()
        newest = Snapshots(run.folder).newest()
        assert {path.name: path.read_bytes() for path in newest.iterdir()} == before
        assert [path.name for path in run.folder.iterdir()] == [newest.name]


class TestStopping:
    @pytest.mark.parametrize(
        ("number", "workers"),
        [
            (signal.SIGINT, 0),
            (signal.SIGTERM, 0),
            (signal.SIGINT, 1),
            pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
        ],
    )
    def test_the_state_is_saved_and_the_run_goes_on(self, short, whole, tmp_path, caplog, number, workers):
        run = stage_run(short, tmp_path / "stopped")
        run.loop.settings = replace(run.loop.settings, workers=workers)
        train_step, next_batches = run.loop.train_step, run.loop._next

        def next_after_ctrl_c(batches):
            # A terminal sends Ctrl-C to all processes, also to one that has just been started.
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGINT)
            return next_batches(batches)

        def stopped(batches):
            # A forked process can hang on a lock that a thread of this one held.
            assert [type(child) for child in multiprocessing.active_children()] == [SpawnProcess] * workers
            if run.loop.step == 2:
                signal.raise_signal(number)
            return train_step(batches)

        run.loop.train_step, run.loop._next = stopped, next_after_ctrl_c
        handler = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert signal.getsignal(number) is handler
        assert "language: stopped at step 3 of 6" in caplog.text
        again = stage_run(short, tmp_path / "stopped")
        assert again.loop.step == 3
        again.run()
        assert losses_of(tmp_path / "stopped") == losses_of(whole)

    def test_a_thread_that_gets_no_signals_can_train(self, short, whole, tmp_path):
        with ThreadPoolExecutor() as threads:
            threads.submit(lambda: stage_run(short, tmp_path).run()).result()
        assert losses_of(tmp_path) == losses_of(whole)

    def test_a_second_ctrl_c_does_not_wait(self, short, tmp_path):
        run = stage_run(short, tmp_path)

        def stopped(batches):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it waited")

        run.loop.train_step = stopped
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert Snapshots(run.folder).newest() is None


class TestEvaluation:
    @pytest.mark.parametrize(("name", "pictures"), [("vision", 4), ("language", 0), ("joint", 2)])
    def test_it_leaves_losses_and_pictures_and_changes_nothing(self, recipe, tmp_path, name, pictures):
        stage = changed(recipe.stages[name], steps=3, init=(), frames=3, evaluate_every=0)
        plain, looked = (changed(recipe, stages={name: changed(stage, evaluate_every=n)}, export=name) for n in (0, 2))
        for folder, kind in (("plain", plain), ("looked", looked)):
            stage_run(kind, tmp_path / folder, name).run()
        weights = [load_file(tmp_path / folder / name / "state.safetensors") for folder in ("plain", "looked")]
        assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
        (line,) = (tmp_path / "looked" / name / "evaluations.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == 2
        assert json.loads(line)["total"] > 0
        drawn = tmp_path / "looked" / name / "pictures"
        assert len(list(drawn.iterdir()) if drawn.exists() else []) == pictures
        assert any((tmp_path / "looked" / name / "tensorboard").iterdir())


class TestSnapshots:
    @staticmethod
    def write(text: str):
        return lambda folder: (folder / "state.safetensors").write_text(text)

    def test_only_the_newest_is_kept(self, tmp_path):
        snapshots = Snapshots(tmp_path)
        assert snapshots.newest() is None
        for step in (5, 40, 100):
            snapshots.save(step, self.write(str(step)))
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000100"]
        snapshots.clear()
        assert snapshots.newest() is None

    def test_a_state_that_was_cut_off_is_never_the_newest(self, tmp_path):
        snapshots = Snapshots(tmp_path)
        snapshots.save(5, self.write("whole"))
        draft = tmp_path / ".step-00000009.partial"
        draft.mkdir()
        (draft / "state.safetensors").write_text("ha")
        assert snapshots.newest().name == "step-00000005"
        snapshots.save(9, self.write("whole again"))
        assert not draft.exists()

    def test_a_process_killed_between_rename_and_removal_is_harmless(self, tmp_path, monkeypatch):
        snapshots = Snapshots(tmp_path)
        snapshots.save(5, self.write("old"))
        with monkeypatch.context() as patch:
            patch.setattr(Snapshots, "_remove", lambda self, keep: None)
            snapshots.save(6, self.write("new"))
        assert len(list(tmp_path.iterdir())) == 2
        assert (snapshots.newest() / "state.safetensors").read_text() == "new"

    def test_a_finished_stage_has_its_own_weights(self, tmp_path):
        assert find_weights(tmp_path) is None
        Snapshots(tmp_path).save(5, self.write("running"))
        assert find_weights(tmp_path).read_text() == "running"
        (tmp_path / "state.safetensors").write_text("finished")
        assert find_weights(tmp_path).read_text() == "finished"


class TestDevice:
    @pytest.mark.parametrize("name", ["cuda:7", "toaster", "meta"])
    def test_a_device_that_is_not_there_is_told(self, monkeypatch, name):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(BackendError, match=name) as caught:
            Acceleration(name)
        assert caught.value.code == "DEVICE"

    @pytest.mark.gpu
    def test_a_stage_learns_on_a_gpu_and_goes_on(self, short, tmp_path):
        on_gpu = changed(short, device="cuda")
        run_until_killed(on_gpu, tmp_path, 4, 3)
        run = stage_run(on_gpu, tmp_path)
        run.run()
        assert run.done
        assert load_file(tmp_path / "language" / "state.safetensors")
