"""The bench of the node: a short run, its arithmetic, and bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.camera import pictures
from bench.node import BAD_INPUT, main
from bench.node_result import slope_per_hour


def test_a_short_run_counts_every_image(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.node._WARM_UP_S", 0.4)
    arguments = ["--model", "identity", "--rate", "20", "--seconds", "1", "--size", "64x48", "--json"]
    assert main(arguments) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["sent"] == 20
    assert run["answered"] + run["superseded"] + run["lost"] == 20
    assert 0 < run["answered"] <= 20
    assert 0 < run["latency_p50_ms"] <= run["latency_p95_ms"] <= run["latency_p99_ms"]
    assert run["node_latency_p50_ms"] <= run["latency_p99_ms"]
    assert run["rss_start_mib"] > 0
    assert run["rss_slope_mib_per_h"] is None
    assert 0 < run["return_ms"][0] <= run["return_ms"][1]
    stages = run["stages_ms"]
    assert set(stages) == {"transport", "wait", "decode", "node"}
    assert all(0 < p50 <= p95 for p50, p95 in stages.values())
    assert stages["wait"][0] < stages["node"][0] < run["latency_p99_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("pages", [0, 2])
def test_the_viewer_may_look_on(pages: int, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (the extra `viewer`)")
    arguments = ["--model", "identity", "--rate", "20", "--seconds", "1", "--size", "64x48", "--json"]
    assert main([*arguments, "--pages", str(pages)]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["pages"], run["sent"]) == (pages, 20)
    assert run["answered"] > 0


def test_the_slope_is_that_of_the_last_two_thirds() -> None:
    # Warming up takes a lot at once; then 1 MiB a minute.
    samples = [(float(t), 2**20 * (100 if t < 40 else 200) + t * 2**20 // 60) for t in range(181)]
    assert slope_per_hour(samples) == pytest.approx(60.0, rel=1e-3)


def test_a_few_odd_samples_do_not_change_the_slope() -> None:
    # 100 MiB more for 20 s at the end, as a burst of work leaves; a fitted line would say 2,469 MiB/h.
    samples = [(float(t), 2**20 * (100 + 100 * (t > 160)) + t * 2**20 // 600) for t in range(181)]
    assert slope_per_hour(samples) == pytest.approx(6.0, rel=0.2)
    assert slope_per_hour([(float(t), 2**20) for t in range(30_000)]) == 0.0


@pytest.mark.parametrize("samples", [[], [(0.0, 1)], [(float(t), t) for t in range(80)]])
def test_a_short_run_has_no_slope(samples: list[tuple[float, int]]) -> None:
    assert slope_per_hour(samples) is None


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (33, 71)])
def test_pictures_have_the_size_and_differ(size: tuple[int, int]) -> None:
    made = pictures(*size)
    assert {picture.shape for picture in made} == {(size[1], size[0], 3)}
    assert size == (1, 1) or not np.array_equal(made[0], made[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "big"],
        ["--size", "0x5"],
        ["--size", "99999x1"],
        ["--rate", "0"],
        ["--seconds", "-1"],
        ["--pages", "99"],
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
