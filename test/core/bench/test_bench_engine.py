from __future__ import annotations

import pytest

from bench import engine, engine_workload

SHORT = ("--frames", 33, "--turns", 0, "--soak", 20, "--targets", 2, "--rate", 30, "--window", "anchor")


@pytest.fixture(autouse=True)
def same_threads():
    """The bench chooses its own; other tests keep theirs."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def half(monkeypatch, few_frames):
    """Scenes are half as long as was asked for."""
    draw = engine_workload.draw_scene
    monkeypatch.setattr(engine_workload, "draw_scene", lambda seed, frames, *rest: draw(seed, frames // 2, *rest))


@pytest.fixture
def small(monkeypatch, half):
    """Streams are measured in one scene, not in eight, too."""
    monkeypatch.setattr(engine, "_STREAMS", 1)


def test_json_is_one_object(bench, half, no_transformers):
    outcome = bench("engine", "--model", "random", "--size", "tiny", "--layers", 1, "--things", 5, *SHORT, "--json")
    assert outcome.code == 0
    (report,) = outcome.lines
    wanted = {"model": "random", "answers": "scripted", "visual_tokens": 8, "threads": 1, "things": 5}
    assert {key: report[key] for key in wanted} == wanted
    (stream,) = report["streams"]
    assert (stream["window"], stream["rate_hz"], stream["frames"]) == ("anchor", 30, 8 * 15)
    assert 1 <= stream["passes"] <= stream["passes_max"]
    assert stream["vision_encodes"] == 1
    (packing,) = report["packing"]
    assert packing["identical"] == packing["boxes"] == 2 * 16
    assert packing["token_ratio"] < 1
    peers = report["peers"]
    assert (peers["ratios"], peers["clip_length"]) == ([], 8)
    assert [peer["identical"] for peer in peers["peers"]] == [None] * 5
    (soak,) = report["soak"]
    assert soak["early"]["kv_tokens"] == soak["late"]["kv_tokens"]


def test_a_model_of_ones_own_is_compared_with_transformers(bench, brief_folder, small):
    outcome = bench("engine", "--model", brief_folder, *SHORT, "--clip-length", 3)
    assert outcome.code == 0
    assert "hf, prompts of stream, anchor" in outcome.out
    assert "15/15" in outcome.out
    assert "8/8" in outcome.out
    assert "Long run" in outcome.out


def test_what_was_measured_is_drawn(bench, tmp_path, small, no_transformers):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    plot = tmp_path / "engine.png"
    options = ("--model", "random", "--size", "tiny", "--draft-tokens", 0, "--clip-length", 4)
    outcome = bench("engine", *options, *SHORT, "--plot", plot, "--json")
    assert outcome.code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert outcome.lines[0]["peers"]["clip_length"] == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--size", "huge", "--model", "random"), "--size 'huge'"),
        (("--window", "round"), "--window round"),
        (("--targets", 17), "--targets 17"),
        (("--rate", 0), "--rate 0"),
        (("--soak", 5), "--soak 5 is too short"),
        (("--visual-tokens", 9), "go with --model random"),
        (("--clock", "sun"), "--clock 'sun'"),
        (("--layers", 2), "go with --model random"),
        (("--plot", "engine.svg"), "engine.svg is not a PNG file"),
        (("--draft-tokens", 257), "--draft-tokens"),
        (("--model", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--frames", 8), "--frames"),
        (("--device", "abacus", "--model", "random"), "'abacus'"),
    ],
)
def test_bad_options_are_told_in_one_line(bench, options, reason):
    outcome = bench("engine", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
