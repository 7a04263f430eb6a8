from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def same_threads():
    """The bench chooses its own; other tests keep theirs."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_window_is_run(bench, brief_folder):
    options = ("--model", brief_folder, "--frames", 20, "--targets", 1, "--swap-every", 6)
    outcome = bench("soak", *options, "--window", "anchor", "--window", "growing", "--json")
    (report,) = outcome.lines
    runs = report["runs"]
    assert [(run["window"], run["targets"], run["swaps"]) for run in runs] == [
        ("anchor", 1, 3),
        ("growing", 1, 3),
    ]
    assert all(run["early"]["kv_tokens"] > 0 for run in runs)
    assert all(set(run["grown"]) <= set(run["growth"]) for run in runs)
    # A short run says what grew while everything warmed up; the exit code tells the same.
    assert outcome.code == int(any(run["grown"] for run in runs))


def test_the_table_has_a_line_for_each_run(bench, brief_folder):
    outcome = bench("soak", "--model", brief_folder, "--frames", 20, "--targets", 1)
    header, line = outcome.out.strip().splitlines()
    assert header.split()[0] == "window"
    assert line.split()[1:4] == ["1", "0", "20"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [(("--window", "round"), "--window 'round'"), (("--model", "/nowhere/at/all"), "/nowhere/at/all")],
)
def test_bad_input_is_one_sentence(bench, options, reason):
    outcome = bench("soak", *options)
    assert outcome.code == 2
    assert reason in outcome.err
