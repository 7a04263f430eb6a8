"""The benchmarks as commands, run in this process."""

from __future__ import annotations

from functools import partial

import pytest

from bench.app import app


@pytest.fixture
def bench(invoke):
    """Run a benchmark: ``bench("engine", "--json")``."""
    return partial(invoke, app)
