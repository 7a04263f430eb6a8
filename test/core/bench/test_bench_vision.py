from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from bench import memory, vision_cost
from bench.vision_cost import (
    PAPER_SIZE,
    ROWS,
    TINY_SIZE,
    AblationRow,
    CostSettings,
    build_row,
    measure_vision,
    row_shape,
)

CPU = torch.device("cpu")


def test_the_paper_size_has_the_papers_tokens_and_resolutions():
    shapes = [row_shape(PAPER_SIZE, row) for row in ROWS]
    assert [(config.type, side, config.out_token_num) for config, side in shapes] == [
        ("none", 224, 256),
        ("none", 336, 576),
        ("cross_attention", 336, 144),
        ("concatenation", 336, 144),
        *(("t_selector", 336, tokens) for tokens in (1, 36, 72, 108, 144, 256, 288)),
    ]


def test_the_tiny_size_has_the_same_shares_of_tokens():
    shapes = [row_shape(TINY_SIZE, row)[0].out_token_num for row in ROWS]
    assert shapes == [64, 144, 36, 36, 1, 9, 18, 27, 36, 64, 72]


def test_weights_at_the_paper_size_are_those_of_its_parts():
    facts = vision_cost._facts(PAPER_SIZE, AblationRow("t_selector", 336, 108))
    vision, projector = 303_507_456, 1024 * 4096 + 4096 + 4096 * 4096 + 4096  # CLIP ViT-L/14-336 as published
    gate = 1024 + 1 + 576 * 576 + 576 + 576 * 108 + 108
    assert facts.adapter_parameters == gate
    assert facts.parameters == vision + gate + projector


def test_the_table_has_a_line_a_row(bench, monkeypatch):
    monkeypatch.setattr(vision_cost, "ROWS", ROWS[:2])
    outcome = bench("vision", "--size", "tiny", "--device", "cpu", "--repeats", "2")
    assert outcome.code == 0
    head, *lines = outcome.out.splitlines()
    assert head.split()[:3] == ["adapter", "input", "tokens"]
    assert [line.split()[:3] for line in lines[:2]] == [["none", "32", "64"], ["none", "48", "144"]]
    assert len(lines) == 2


def test_json_is_one_object(bench, monkeypatch):
    monkeypatch.setattr(vision_cost, "ROWS", ROWS[:10:3])
    outcome = bench("vision", "--size", "tiny", "--device", "cpu", "--repeats", "2", "--batch", "3", "--json")
    (report,) = outcome.lines
    assert (report["size"], report["device"], report["dtype"], report["batch"]) == ("tiny", "cpu", "float32", 3)
    assert [row["tokens"] for row in report["rows"]] == [64, 36, 18, 64]
    for row in report["rows"]:
        low, middle, high = row["ms"]
        assert 0 < low <= middle <= high
        assert row["memory_mib"] is None or row["memory_mib"] >= 0
        assert (row["speedup"], row["skipped"]) == ([], "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "huge"), "--size 'huge' is not one of paper, nano, tiny"),
        (("--backend", "tensorrt"), "--backend 'tensorrt' is not one of torch, onnx"),
        (("--dtype", "int8"), "dtype 'int8' is not one of"),
        (("--device", "tpu"), "'tpu' is not a device"),
    ],
)
def test_bad_input_is_one_sentence(bench, arguments, said):
    outcome = bench("vision", *arguments)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_what_does_not_fit_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(vision_cost, "free_bytes", lambda device: 1 << 20)
    costs = list(measure_vision(CostSettings(PAPER_SIZE, ("torch", "onnx"), rows=ROWS[:1])))
    assert [(cost.backend, cost.ms) for cost in costs] == [("torch", ()), ("onnx", ())]
    assert all("MiB, 1 MiB are free" in cost.skipped for cost in costs)


def test_running_out_of_memory_skips_one_row(monkeypatch, bench):
    def build(size, row):
        if row.adapter == "concatenation" and torch.empty(0).device != torch.device("meta"):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return build_row(size, row)

    monkeypatch.setattr(vision_cost, "build_row", build)
    monkeypatch.setattr(vision_cost, "ROWS", ROWS[2:5])
    outcome = bench("vision", "--size", "tiny", "--device", "cpu", "--repeats", "2")
    assert [line.split()[0] for line in outcome.out.splitlines() if "not run: " in line] == ["concatenation"]
    assert len(outcome.out.splitlines()) == 1 + 3


def test_memory_is_what_was_taken_since():
    kept = []
    taken = memory.MemoryMeter(CPU).peak_mib(lambda: kept.append(torch.ones(16 << 20, dtype=torch.uint8)))
    if taken is None:
        pytest.skip("this system does not tell how much memory a process had")
    assert 15 < taken < 64


def test_a_peak_that_the_system_does_not_count_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "file")
    ran = []
    assert memory.MemoryMeter(CPU).peak_mib(lambda: ran.append(1)) is None
    assert ran == [1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the package onnxruntime is not installed")
def test_onnx_is_compared_with_torch_in_the_same_run():
    settings = CostSettings(TINY_SIZE, ("torch", "onnx"), repeats=3, rows=ROWS[-1:])
    on_torch, on_onnx = measure_vision(settings)
    assert (on_torch.backend, on_torch.speedup) == ("torch", ())
    assert on_onnx.backend == "onnx"
    assert 0 < on_onnx.speedup[0] <= on_onnx.speedup[1] <= on_onnx.speedup[2]
