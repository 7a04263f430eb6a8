from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from elysium_core.cli.app import app
from elysium_core.errors import BackendError, ConfigError
from elysium_core.training import acceleration, records
from elysium_core.training.acceleration import Acceleration, check_launcher, launcher_for

TRAINING = Path(__file__).resolve().parents[3] / "training"
CONFIGS = sorted((TRAINING / "accelerate").glob("*.yaml"))


def without(monkeypatch, package: str) -> None:
    """Let a package look as if it were not installed."""
    found = acceleration.find_spec
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None if name == package else found(name))


class TestLauncher:
    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_the_shipped_configs_are_what_accelerate_reads(self, monkeypatch, path):
        monkeypatch.setattr(acceleration, "find_spec", lambda name: object())
        check_launcher(path)
        from accelerate.commands.config.config_args import load_config_from_file

        assert load_config_from_file(str(path)).distributed_type.value in path.read_text()

    @pytest.mark.parametrize("name", ["zero2", "zero3"])
    def test_without_deepspeed_one_sentence_says_so(self, monkeypatch, name):
        without(monkeypatch, "deepspeed")
        with pytest.raises(BackendError, match=r"DeepSpeed, which is not installed; run `.*pip install"):
            check_launcher(TRAINING / "accelerate" / f"{name}.yaml")
        check_launcher(TRAINING / "accelerate" / "fsdp.yaml")

    @pytest.mark.parametrize(("content", "reason"), [("a: [", "not YAML"), ("a: 1", "not an accelerate config")])
    def test_other_files_are_refused(self, tmp_path, content, reason):
        path = tmp_path / "config.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=reason):
            check_launcher(path)
        with pytest.raises(ConfigError, match="cannot read"):
            check_launcher(tmp_path / "none.yaml")


class TestProcess:
    def test_one_process_holds_whole_weights(self):
        place = Acceleration("cpu")
        assert (place.rank, place.world, place.is_main, place.kind) == (0, 1, True, "single")
        assert place.whole_weights
        assert not place.sharded
        assert place.mean({"a": 2.0}) == {"a": 2.0}

    @pytest.mark.parametrize(("variable", "name"), [("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")])
    def test_sharding_that_accelerate_leaves_out_on_a_cpu_is_refused(self, monkeypatch, variable, name):
        place = Acceleration("cpu")
        monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
        with pytest.raises(ConfigError, match=f"asks for {name}, which accelerate does not use on cpu") as told:
            place._require_sharding()
        assert told.value.code == "CONFIG"

    def test_without_accelerate_one_sentence_says_so(self, monkeypatch):
        without(monkeypatch, "accelerate")
        with pytest.raises(BackendError, match=r"accelerate; run: .* -m pip install accelerate") as told:
            Acceleration("cpu")
        assert told.value.code == "BACKEND"

    def test_without_tensorboard_everything_else_is_recorded(self, monkeypatch, tmp_path, caplog):
        monkeypatch.setattr(records, "find_spec", lambda name: None)
        stage = records.StageRecords(tmp_path)
        for step in (1, 2):
            stage.losses(step, 0.5, {"total": 3.0})
        stage.close()
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
        assert [record.name for record in caplog.records] == ["elysium_core.training.records"]

    def test_a_failure_of_the_main_process_is_raised(self):
        def full() -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            Acceleration("cpu").on_main(full)


class TestGpus:
    """``elysium train --gpus N`` writes the config of accelerate itself."""

    @pytest.fixture(autouse=True)
    def four_gpus(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 4)

    def test_the_written_config_is_one_that_accelerate_reads(self, tmp_path):
        from accelerate.commands.config.config_args import load_config_from_file

        path = launcher_for(4, None, tmp_path / "run")
        read = load_config_from_file(str(path))
        assert (read.num_processes, str(read.distributed_type).rpartition(".")[2]) == (4, "MULTI_GPU")
        shipped = yaml.safe_load((TRAINING / "accelerate" / "data_parallel.yaml").read_text())
        assert yaml.safe_load(path.read_text()) == shipped | {"num_processes": 4}

    def test_another_config_gets_the_number_of_gpus(self, tmp_path):
        base = TRAINING / "accelerate" / "fsdp.yaml"
        written = yaml.safe_load(launcher_for(3, base, tmp_path).read_text())
        assert written == yaml.safe_load(base.read_text()) | {"num_processes": 3}

    def test_one_gpu_needs_no_launcher_and_too_many_are_refused(self, tmp_path):
        assert launcher_for(1, None, tmp_path) is None
        with pytest.raises(ConfigError) as caught:
            launcher_for(5, None, tmp_path)
        assert "--gpus 5" in str(caught.value)
        assert not list(tmp_path.iterdir())

    def test_the_command_starts_the_stages_with_it(self, monkeypatch, tmp_path):
        given = []
        monkeypatch.setattr("elysium_core.training.run.run_recipe", lambda *words: given.append(words[-1]) or tmp_path)
        monkeypatch.setattr("elysium_core.cli.train._estimate", lambda *words: None)
        words = ["train", str(TRAINING / "nano.yaml"), "--out", str(tmp_path / "run"), "--gpus", "2"]
        assert CliRunner().invoke(app, words).exit_code == 0
        assert given == [tmp_path / "run" / "accelerate.yaml"]
        assert CliRunner().invoke(app, [*words, "--stage", "vision"]).exit_code == 2


class TestCommand:
    def test_a_launcher_starts_one_stage(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        outcome = CliRunner().invoke(app, ["train", str(TRAINING / "nano.yaml")])
        assert outcome.exit_code == 2
        assert "launch one stage with --stage" in outcome.stderr

    def test_without_accelerate_the_command_ends_with_one_line(self, monkeypatch, tmp_path):
        without(monkeypatch, "accelerate")
        outcome = CliRunner().invoke(app, ["train", str(TRAINING / "nano.yaml"), "--out", str(tmp_path / "run")])
        assert outcome.exit_code == 2
        assert outcome.stderr.count("\n") == 1
        assert "pip install accelerate" in outcome.stderr
        assert not (tmp_path / "run").exists()

    def test_unfilled_paths_end_the_command_with_one_line(self, tmp_path):
        outcome = CliRunner().invoke(
            app, ["train", str(TRAINING / "published_stage2.yaml"), "--out", str(tmp_path / "run")]
        )
        assert outcome.exit_code == 2
        assert outcome.stderr.count("\n") == 1
        assert "base.checkpoint is not filled in" in outcome.stderr
        assert "data.videochat.path is not filled in; data.cogvlm.path is not filled in" in outcome.stderr
        assert not (tmp_path / "run").exists()
