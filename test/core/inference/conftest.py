"""One export of the tiny checkpoint for all tests, and a cache folder that is not the user's."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from elysium_core.inference.export import ONNX_NAME, cache_folder, describe_graph, export_onnx
from elysium_core.model.checkpoint import load_checkpoint
from elysium_core.model.elysium import ElysiumNetwork


class Recordings:
    """Records nothing, but counts."""

    def __init__(self):
        self.made = self.run = 0

    def __call__(self, program):
        self.made += 1

        def replay():
            self.run += 1
            program()

        return replay


@pytest.fixture
def record() -> Recordings:
    """Stands in for CUDA graphs where there is no GPU."""
    return Recordings()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "elysium"


@pytest.fixture
def network(tiny_folder) -> ElysiumNetwork:
    """The network of the checkpoint, float32; a test may change it."""
    return load_checkpoint(tiny_folder, dtype=torch.float32).network


@pytest.fixture(scope="session")
def exported(tiny_folder, tmp_path_factory) -> Path:
    """The folder of its graph, exported once; read only."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    network = load_checkpoint(tiny_folder, dtype=torch.float32).network
    return export_onnx(network, tmp_path_factory.mktemp("exported")).parent


@pytest.fixture
def graph(exported, tmp_path) -> Path:
    """A copy of the graph that a test may damage."""
    return shutil.copytree(exported, tmp_path / "exported") / ONNX_NAME


@pytest.fixture
def cached_graph(exported, network, cache) -> Path:
    """The graph in the user's cache."""
    return shutil.copytree(exported, cache_folder(describe_graph(network, "float32"))) / ONNX_NAME


@pytest.fixture
def wanted(network) -> dict[str, object]:
    """What the graph's description must say."""
    return asdict(describe_graph(network, "float32"))


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Pictures of noise, each of another odd size; one is of the encoder's own."""
    random = np.random.default_rng(2)
    sizes = [(31, 57), (32, 32), (119, 33), (7, 5), (64, 1), (45, 91), (13, 200)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
