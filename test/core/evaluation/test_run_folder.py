"""The folder of a run: what was asked, answers that survive a kill, work shared between processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elysium_core.errors import ConfigError, DataError
from elysium_core.evaluation.answer_log import AnswerLog, read_answers
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.run_folder import Manifest, open_run, read_manifest


class TestRunFolder:
    manifest = Manifest("tracking", "folder", "", "nano", "sot", mode="stream", entries={"a": 3})

    def test_it_goes_on_with_the_same_run(self, tmp_path):
        open_run(tmp_path, self.manifest)
        more = Manifest("tracking", "folder", "", "nano", "sot", mode="stream", limit=2, entries={"a": 3, "b": 4})
        open_run(tmp_path, more)
        assert read_manifest(tmp_path).entries == {"a": 3, "b": 4}

    @pytest.mark.parametrize("changes", [{"model": "identity"}, {"task": "rsot"}, {"mode": "clip"}, {"split": "val"}])
    def test_it_refuses_to_mix_two_runs(self, tmp_path, changes):
        open_run(tmp_path, self.manifest)
        ((name, value),) = changes.items()
        fields = {"kind": "tracking", "benchmark": "folder", "split": "", "model": "nano", "task": "sot"}
        with pytest.raises(ConfigError, match=rf"with {name} .*, not {value!r}; choose another --out"):
            open_run(tmp_path, Manifest(**({"mode": "stream"} | fields | changes)))

    @pytest.mark.parametrize("changed", ["backend", "precision", "weights"])
    def test_it_refuses_answers_of_another_model_of_the_same_name(self, tmp_path, changed):
        device = {"name": "nano", "device": "cpu", "backend": "torch", "precision": "float32", "weights": "abc"}
        open_run(tmp_path, replace(self.manifest, device=device))
        open_run(tmp_path, replace(self.manifest, device=device | {"device": "cuda:0"}))
        with pytest.raises(ConfigError, match=f"holds a run with {changed} '{device[changed]}', not 'other'"):
            open_run(tmp_path, replace(self.manifest, device=device | {changed: "other"}))

    def test_it_refuses_another_number_of_frames(self, tmp_path):
        open_run(tmp_path, replace(self.manifest, frames=8))
        with pytest.raises(ConfigError, match="with frames 8, not 4"):
            open_run(tmp_path, replace(self.manifest, frames=4))

    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(DataError, match=r"holds no run\.json"):
            read_manifest(tmp_path)
        (tmp_path / "run.json").write_text('{"kind": 1}')
        with pytest.raises(DataError, match="cannot be read"):
            read_manifest(tmp_path)


class TestRanks:
    def test_shares_are_disjoint_and_complete(self):
        shares = [list(Ranks(rank, 3).share(range(10))) for rank in range(3)]
        assert sorted(item for share in shares for item in share) == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_torchrun_tells_which_one_this_is(self, monkeypatch):
        assert Ranks.from_environment() == Ranks(0, 1, 0)
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert Ranks.from_environment() == Ranks(3, 4, 1)

    @pytest.mark.parametrize(("rank", "world"), [("4", "4"), ("-1", "2"), ("x", "2"), ("0", "0")])
    def test_nonsense_is_refused(self, monkeypatch, rank, world):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        with pytest.raises(ConfigError, match=f"RANK={rank}, WORLD_SIZE={world}"):
            Ranks.from_environment()

    def test_each_process_gets_its_own_gpu(self, monkeypatch):
        monkeypatch.setattr("elysium_core.evaluation.ranks._has_cuda", lambda: True)
        assert Ranks(3, 4, 1).device("auto") == "cuda:1"
        assert Ranks(3, 4, 1).device("cpu") == "cpu"
        assert Ranks().device("auto") == "auto"


class TestAnswerLog:
    def test_a_killed_run_loses_its_last_line_only(self, tmp_path):
        with AnswerLog(tmp_path, "answers") as log:
            log.append("1", {"text": "café"})
            log.append("2", {"text": "b"})
        path = tmp_path / "answers-rank-0.jsonl"
        path.write_bytes(path.read_bytes()[:-6])
        with AnswerLog(tmp_path, "answers") as log:
            assert list(log.done) == ["1"]
            log.append("2", {"text": "again"})
        assert {k: v["text"] for k, v in read_answers(tmp_path, "answers").items()} == {"1": "café", "2": "again"}

    def test_all_processes_are_read_and_each_writes_its_own_file(self, tmp_path):
        with AnswerLog(tmp_path, "answers", rank=0) as zero, AnswerLog(tmp_path, "answers", rank=1) as one:
            zero.append("a", {})
            one.append("b", {})
        assert set(AnswerLog(tmp_path, "answers", rank=2).done) == {"a", "b"}

    def test_damage_in_the_middle_is_named(self, tmp_path):
        (tmp_path / "answers-rank-0.jsonl").write_text('{"id": "1"}\nbroken\n{"id": "2"}\n')
        with pytest.raises(DataError, match=r"line 2 of .*answers-rank-0\.jsonl' is damaged"):
            read_answers(tmp_path, "answers")
