from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from bench import gpu_report
from bench.engine_workload import SIZES
from bench.gpu_follow import Floor, vision_flops
from bench.gpu_machine import Rates, measure_rates, percentiles
from bench.gpu_report import SECTIONS, BenchSettings, GpuBench
from bench.random_network import ROW, random_network
from bench.stage_clock import Pass
from bench.vision_cost import PAPER_SIZE, TINY_SIZE, build_row
from elysium_core.errors import BackendError
from elysium_core.network.llama import LlamaSize
from elysium_core.vision.torch_vision import TorchVision

CPU = torch.device("cpu")
PAPER_LLM = LlamaSize.from_dict(
    {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    }
)


@pytest.fixture
def run_gpu(bench, brief_folder, tmp_path):
    """Run the bench at its smallest: exit code, and the report."""

    def run(*arguments):
        out = tmp_path / "report" / "gpu.json"
        fixed = ["--size", "tiny", "--device", "cpu", "--model", brief_folder, "--out", out]
        outcome = bench("gpu", *fixed, *arguments)
        return outcome, json.loads(out.read_text()) if out.exists() else None

    return run


def test_all_of_it_but_the_export_runs_on_a_cpu_and_leaves_one_report(run_gpu):
    chosen = [section for section in SECTIONS if section != "vision"]
    outcome, report = run_gpu("--targets", "1", "--targets", "3", "--json", *(f"--only={name}" for name in chosen))
    assert outcome.code == 0, outcome.err
    assert outcome.lines == [report]
    assert report["complete"]
    assert [section for section in chosen if section not in report] == []
    assert torch.__version__.startswith(report["device"][0]["packages"]["torch"])  # a build may add +cu130
    assert report["rates"][0]["copy_gigabytes_per_s"] > 0
    one, three = report["follow"]
    assert (one["targets"], three["targets"]) == (1, 3)
    for found in (one, three):
        assert found["ms"]["p50"] <= found["ms"]["p95"] <= found["ms"]["p99"]
        assert 1 <= found["passes_per_frame"] < 10
        assert 0 < found["fraction_of_floor"] < 1
        assert set(found["stages_ms"]) == {"vision", "pass A", "pass B", "host"}
    assert three["tokens_per_frame"] > 1.5 * one["tokens_per_frame"]
    names = [part["variant"] for part in report["agreement"]]
    assert names == ["float32", "bfloat16", "float32, int8", "float32, nf4", "float32, fp8"]
    same = report["agreement"][0]
    assert (same["same_boxes"], same["same_words"]) == (same["boxes"], same["words"])
    assert [part["quantization"] for part in report["quantised"]] == ["int8", "nf4", "fp8"]
    assert report["nano"][0]["fps"] > 0


@pytest.mark.slow
def test_the_backends_of_the_encoder_are_compared(run_gpu):
    outcome, report = run_gpu("--only", "vision")
    assert outcome.code == 0, outcome.err
    vision = report["vision"][0]
    assert vision["torch"]["like_float32"] == 1
    assert "skipped" in vision["tensorrt"], "there is no GPU to run an engine on"
    if find_spec("tensorrt_rtx_bindings") and find_spec("onnxscript"):
        assert vision["tensorrt"]["build_s"] > 0, vision["tensorrt"]


def test_sections_can_be_chosen_and_are_shown(run_gpu):
    outcome, report = run_gpu("--only", "rates", "--only", "device")
    assert outcome.code == 0
    assert set(report) & set(SECTIONS) == {"device", "rates"}
    assert "copy_gigabytes_per_s" in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "speed"], "--only 'speed' is not one of device, rates"),
        (["--size", "huge"], "--size 'huge' is not one of paper, tiny"),
        (["--size", "paper"], "--size paper needs a GPU.*--size tiny runs anywhere"),
    ],
)
def test_what_cannot_be_run_is_refused(bench, tmp_path, arguments, said):
    outcome = bench("gpu", "--device", "cpu", "--out", tmp_path / "gpu.json", *arguments)
    assert outcome.code == 2
    import re

    assert re.search(said, outcome.err)
    assert not (tmp_path / "gpu.json").exists()


def settings(tmp_path, **changes):
    return BenchSettings("tiny", CPU, torch.float32, out=tmp_path / "gpu.json", **changes)


def test_a_run_that_is_cut_leaves_what_it_has_found(tmp_path, monkeypatch):
    def cut(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(GpuBench, "_ingest", cut)
    with pytest.raises(KeyboardInterrupt):
        GpuBench(settings(tmp_path)).run()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert not report["complete"]
    assert set(report) & set(SECTIONS) == {"device", "rates"}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_a_section_that_fails_is_named_and_the_next_one_runs(tmp_path, monkeypatch):
    def fail(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 13 GiB")

    monkeypatch.setattr(gpu_report, "full_runtime", fail)
    report = GpuBench(settings(tmp_path, sections=("follow", "ingest"))).run()
    assert "the section 'follow' ran out of memory" in report["follow"][0]["skipped"]
    assert report["ingest"][0]["pil_ms"]


def test_no_part_begins_for_which_no_time_is_left(tmp_path):
    ticks = iter(range(0, 10_000, 100))
    report = GpuBench(settings(tmp_path, sections=("device", "ingest"), budget_s=150), clock=lambda: next(ticks)).run()
    assert report["device"][0]["processor"]
    assert report["ingest"] == [{"skipped": "0 s are left, and it may need 0 s"}]


def test_quantisations_that_cannot_be_had_are_named(tmp_path, monkeypatch):
    def refuse(kind, device, dtype):
        raise BackendError(f"no {kind} here")

    monkeypatch.setattr(gpu_report, "check_quantization", refuse)
    report = GpuBench(settings(tmp_path, sections=("quantised",))).run()
    assert [part["skipped"] for part in report["quantised"]] == ["no int8 here", "no nf4 here", "no fp8 here"]


def test_the_floor_is_that_of_the_published_sizes():
    with torch.device("meta"):
        network = build_row(PAPER_SIZE, ROW, PAPER_LLM).to(torch.bfloat16)
    floor = Floor(network, Rates(4.3e12, 790e12))
    assert floor.bytes(Pass(1, 0)) == pytest.approx(13.21e9, rel=0.001)
    assert floor.bytes(Pass(1, 951)) - floor.bytes(Pass(1, 0)) == 951 << 19
    assert floor.flops(Pass(1, 0)) == pytest.approx(12.95e9, rel=0.001)
    assert floor.pass_ms(Pass(20, 300)) == pytest.approx(3.1, abs=0.05), "bound by reading"
    assert floor.pass_ms(Pass(1184, 1400)) == pytest.approx(20.5, abs=0.6), "bound by arithmetic"
    assert vision_flops(network) == pytest.approx(371e9, rel=0.02)


def test_random_networks_are_made_in_place_and_give_numbers():
    network = random_network(TINY_SIZE, PAPER_LLM_SMALL, CPU, torch.bfloat16)
    assert {weight.dtype for weight in network.parameters()} == {torch.bfloat16}
    assert not any(weight.is_meta for weight in network.parameters())
    images = list(np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8))
    tokens = TorchVision(network).encode(images)
    assert tokens.isfinite().all()
    assert float(tokens.std()) > 0
    again = random_network(TINY_SIZE, PAPER_LLM_SMALL, CPU, torch.bfloat16)
    assert all(a.equal(b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


PAPER_LLM_SMALL = LlamaSize.from_dict(
    {
        "vocab_size": SIZES["tiny"].vocab,
        "hidden_size": TINY_SIZE.llm_width,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
)


def test_rates_count_what_is_read_and_written():
    rates = measure_rates(CPU, torch.float32, 1 << 22, 64, repeats=5)
    assert 1e8 < rates.bytes_per_s < 1e13
    assert 1e7 < rates.flops_per_s < 1e14


def test_percentiles_of_nothing_and_of_much():
    assert percentiles([]) == {}
    assert percentiles([float(value) for value in range(101)]) == {"p50": 50, "p95": 95, "p99": 99}


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_it_at_full_size_on_a_gpu(bench, tmp_path):
    outcome = bench("gpu", "--out", tmp_path / "gpu.json", "--json")
    assert outcome.code == 0, outcome.err
    (report,) = outcome.lines
    assert report["complete"]
    assert report["seconds"] < 600
    assert all("skipped" not in part for part in report["follow"])
