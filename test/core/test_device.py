"""One thread for small models, unless the user has said otherwise."""

import pytest
import torch

from elysium_core.device import SMALL_MODEL, fit_threads


@pytest.fixture(autouse=True)
def restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("parameters", "expected"), [(SMALL_MODEL - 1, 1), (SMALL_MODEL, 2)])
def test_small_models_get_one_thread(monkeypatch, parameters, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    assert fit_threads(parameters) == expected


def test_the_environment_goes_before(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    assert fit_threads(1) == 2
