"""Long runs: what is counted, and that what grows is seen to grow."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import engine_workload as workload
from bench.engine_cost import Subject
from bench.engine_soak import Holdings, SoakCost, _span, measure_soak
from bench.memory import allocated_bytes
from elysium_core.api import Elysium
from elysium_core.geometry import Box

CPU = torch.device("cpu")
TRACKS = [
    [Box(0.12, 0.34, 0.56, 0.78), Box(0.12, 0.35, 0.56, 0.78), Box(0.12, 0.34, 0.56, 0.78)],
    [Box(0.2, 0.2, 0.4, 0.4)] * 3,
    [Box(0.5, 0.1, 0.9, 0.6)] * 3,
]
STEADY = Holdings(kv_tokens=512, memory_bytes=1000, allocated_bytes=1000, python_blocks=1000)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A model of random weights that answers with the truth."""
    runtime = workload.random_runtime(workload.SIZES["tiny"], CPU, torch.float32)
    scene = workload.Scene(np.zeros((3, 8, 8, 3), np.uint8), TRACKS)
    return Subject(runtime, scene, workload.random_visual_tokens(runtime, 3, 8), scripted=True)


def cost_of(early: Holdings, late: Holdings, passes: tuple[float, float] = (2.0, 2.0)) -> SoakCost:
    return SoakCost("anchor", 20, 1, 0, False, (1.0, 1.0, 1.0), 1.0, *passes, early, late)


@pytest.fixture(scope="module")
def own_words(brief_folder) -> Subject:
    """A whole model whose answers are its own."""
    runtime = Elysium.from_pretrained(brief_folder, device="cpu").runtime
    scene = workload.Scene(np.zeros((3, 32, 32, 3), np.uint8), TRACKS)
    return Subject(runtime, scene, ())


@pytest.mark.parametrize("window", ["anchor", "growing"])
def test_targets_that_come_and_go_leave_nothing_behind(own_words: Subject, window: str) -> None:
    counted: list[int] = []
    cost = measure_soak(own_words, window, 20, lambda: counted.append(1), targets=2, swap_every=6)
    assert (cost.frames, cost.targets, cost.swaps, len(counted)) == (20, 2, 3, 20)
    assert cost.vision
    assert cost.passes_early >= 1
    # The first span is too short for the allocator and the interpreter to come to rest.
    assert cost.growth["allocated"] < 0.05
    assert cost.growth["Python objects"] < 0.05


def test_a_script_knows_one_order_of_targets(subject: Subject) -> None:
    with pytest.raises(ValueError, match="swap_every = 5"):
        measure_soak(subject, "anchor", 20, targets=2, swap_every=5)
    steady = measure_soak(subject, "anchor", 20, targets=3)
    assert (steady.swaps, steady.kv_early) == (0, steady.kv_late)


@pytest.mark.parametrize(
    ("frames", "round_frames", "swap_every", "span"),
    [(10_000, 70, 50, 700), (10_000, 70, 0, 980), (1_000_000, 4, 1, 1000), (200, 70, 50, 20), (20, 4, 0, 2)],
)
def test_a_span_is_of_whole_rounds_where_one_fits(frames, round_frames, swap_every, span) -> None:
    assert _span(frames, round_frames, swap_every) == span


def test_what_grows_is_named() -> None:
    assert cost_of(STEADY, STEADY).grown == []
    assert cost_of(STEADY, replace(STEADY, kv_tokens=1024)).grown == ["KV"]
    assert cost_of(STEADY, replace(STEADY, memory_bytes=1010)).grown == ["memory"]
    assert cost_of(STEADY, replace(STEADY, memory_bytes=1009)).grown == []
    assert cost_of(STEADY, replace(STEADY, memory_bytes=None, allocated_bytes=1200)).grown == ["allocated"]
    assert cost_of(STEADY, replace(STEADY, python_blocks=1100)).grown == ["Python objects"]
    assert cost_of(STEADY, STEADY, (2.0, 2.1)).grown == ["passes"]
    assert cost_of(STEADY, replace(STEADY, kv_tokens=1), (2.0, 1.0)).grown == []


def test_a_leak_is_seen(subject: Subject) -> None:
    hoard: list[object] = []

    def leak() -> None:
        # Blocks beyond 32 MiB come from the system: smaller ones may lie in memory that earlier tests have left.
        block = np.ones(33 << 20 if len(hoard) % 5 == 0 else 1, np.uint8)
        hoard.append((block, [{} for _ in range(9000)]))

    cost = measure_soak(subject, "anchor", 30, leak)
    assert {"allocated", "Python objects", "memory"} <= set(cost.grown)


@pytest.mark.skipif(sys.platform != "linux", reason="the C allocator is asked as glibc has it")
def test_memory_in_use_is_counted_to_the_byte() -> None:
    before = allocated_bytes(CPU)
    block = np.ones(10 << 20, np.uint8)
    assert allocated_bytes(CPU) - before == pytest.approx(block.nbytes, rel=0.05)
    del block
    assert allocated_bytes(CPU) - before == pytest.approx(0, abs=1 << 20)
