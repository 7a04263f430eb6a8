"""One export of the tiny checkpoint for all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.integrity import write_manifest
from elysium_core.vision.onnx_export import ONNX_NAME, cache_folder, describe_graph, export_onnx


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """Of what the tests of this folder make, nothing is noted in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def exported(tiny_folder, tmp_path_factory) -> Path:
    """The folder of its graph, exported once, also for test processes side by side; read only."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    network = load_checkpoint(tiny_folder, dtype=torch.float32).network
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "exported"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_manifest(folder, [export_onnx(network, folder)])
        return folder


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
