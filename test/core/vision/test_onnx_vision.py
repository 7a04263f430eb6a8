from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.checkpoint.integrity import described_file, untrusted_reason
from elysium_core.checkpoint.locations import PACKAGED, checkpoint_folder
from elysium_core.errors import BackendError
from elysium_core.network.image_transform import ImageTransform
from elysium_core.vision import onnx_export, vision_choice
from elysium_core.vision.onnx_export import export_onnx
from elysium_core.vision.onnx_vision import OnnxVision, import_onnxruntime
from elysium_core.vision.torch_vision import TorchVision
from elysium_core.vision.vision_choice import build_vision

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the package onnxruntime is not installed"),
]
CPU = torch.device("cpu")


def start(graph, side_px=32):
    return OnnxVision(graph, side_px, CPU, torch.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_tokens_are_those_of_torch(exported, network, pictures, count):
    expected = TorchVision(network).encode(pictures[:count])
    found = start(exported / "vision.onnx").encode(pictures[:count])
    assert found.shape == (count, 6, 32)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_more_images_than_one_would_ever_send(exported, network, pictures):
    many = pictures * 10
    found = start(exported / "vision.onnx").encode(many)
    torch.testing.assert_close(found, TorchVision(network).encode(many), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_same_patches_are_kept(exported, network, pictures):
    transform = ImageTransform(32)
    stacked = np.stack([transform.resize(image) for image in pictures])
    session = import_onnxruntime().InferenceSession(str(exported / "vision.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["kept_index"], {"images": stacked})
    _, expected, _ = network.adapter(network.visual_encoder(transform(pictures)))
    assert np.array_equal(found, expected.numpy())
    assert len({tuple(row) for row in found.tolist()}) > 1  # not the same patches in every picture


@pytest.mark.parametrize("content", [b"", b"no graph at all", None], ids=["empty", "garbage", "half"])
def test_a_damaged_graph_is_refused_in_one_sentence(graph, content):
    graph.write_bytes(graph.read_bytes()[:9000] if content is None else content)
    with pytest.raises(BackendError, match=r"vision\.onnx") as caught:
        start(graph)
    assert "\n" not in str(caught.value)


def test_a_graph_for_another_size_is_refused(graph):
    with pytest.raises(BackendError, match="48 px"):
        start(graph, side_px=48)


def test_a_failure_while_running_is_one_sentence(graph, monkeypatch):
    vision = start(graph)
    monkeypatch.setattr(vision, "_transform", ImageTransform(16))
    with pytest.raises(BackendError, match="invalid dimensions") as caught:
        vision.encode([np.zeros((8, 8, 3), np.uint8)])
    assert "\n" not in str(caught.value)


RUN_ONE_IMAGE = """
import sys
from pathlib import Path
import numpy as np, torch
from elysium_core.vision.onnx_vision import OnnxVision
vision = OnnxVision(Path(sys.argv[1]), 32, torch.device("cpu"), torch.float32)
print(*vision.encode([np.zeros((9, 9, 3), np.uint8)]).shape)
"""


def test_it_reports_to_nobody_and_leaves_nothing_in_the_users_folders(exported, tmp_path):
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    folders = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    command = [sys.executable, "-c", RUN_ONE_IMAGE, str(exported / "vision.onnx")]
    finished = subprocess.run(command, env=kept | folders, capture_output=True, text=True, check=True)
    assert finished.stdout == "1 6 32\n"
    assert list(tmp_path.rglob("*")) == []


def test_without_onnxruntime_it_says_what_to_install(tiny_folder, graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install onnxruntime"):
        start(graph)
    with pytest.raises(BackendError, match=r"pip install onnxruntime"):
        Elysium.from_pretrained(tiny_folder, device="cpu", vision_backend="onnx")


def test_a_model_on_onnx_answers_as_on_torch(tiny_folder, cached_graph, frames):
    models = [
        Elysium.from_pretrained(tiny_folder, device="cpu", vision_backend=backend) for backend in ("torch", "onnx")
    ]
    assert [model.info.backend for model in models] == ["torch", "onnx"]
    texts = [model.ask(frames[:3], "What is happening?", max_new_tokens=8) for model in models]
    assert texts[0] == texts[1]


def test_a_graph_is_made_in_the_cache_on_first_use_and_said_to_be(network, exported, cache, monkeypatch, caplog):
    made = []

    def copy(network, folder, wanted):
        made.append(folder)
        return shutil.copytree(exported, folder) / "vision.onnx"

    monkeypatch.setattr(vision_choice, "export_described", copy)
    names = [build_vision("onnx", network).name for _ in range(2)]
    assert names == ["onnx", "onnx"]
    assert [folder.parent for folder in made] == [cache]
    assert [record.message.split(";")[1] for record in caplog.records] == [" this is done once and may take minutes"]


def test_auto_takes_a_graph_that_is_at_hand(network, cached_graph):
    assert build_vision("auto", network).name == "onnx"


def test_auto_takes_a_graph_that_is_shipped_with_the_weights(network, graph, cache):
    assert build_vision("auto", network, graph.parent).name == "onnx"
    assert not cache.exists()


@pytest.fixture
def no_export(monkeypatch):
    def refuse(*args):
        raise AssertionError("a slow export that nobody asked for")

    monkeypatch.setattr(vision_choice, "export_described", refuse)


def test_auto_never_exports(network, cache, no_export):
    assert build_vision("auto", network).name == "torch"


def test_auto_does_not_change_the_data_type_that_was_asked_for(network, cached_graph, no_export):
    assert build_vision("auto", network.to(torch.bfloat16)).name == "torch"


def test_auto_without_onnxruntime_is_torch(network, cached_graph, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert build_vision("auto", network).name == "torch"


def test_auto_leaves_a_stale_graph_alone_and_says_why(network, graph, cache, caplog, no_export):
    network.llm_proj[0].bias.data[0] += 1
    caplog.set_level(logging.INFO, logger="elysium_core")
    assert build_vision("auto", network, graph.parent).name == "torch"
    assert "is stale: weights is" in caplog.text


@pytest.mark.parametrize("vouched", ["by nobody", "by a list", "by a list of another file", "by this user"])
def test_a_graph_in_a_model_s_folder_is_used_if_it_is_listed_or_was_made_here(
    network, graph, wanted, cache, caplog, no_export, vouched
):
    """A description that fits proves nothing: who made the graph made it, too."""
    manifest = graph.with_name("SHA256SUMS")
    if vouched == "by a list of another file":
        manifest.write_text(manifest.read_text().translate(str.maketrans("0123456789abcdef", "123456789abcdef0")))
    elif vouched != "by a list":
        manifest.unlink()
    if vouched == "by this user":
        content = graph.read_bytes()
        with described_file(graph, wanted) as temporary:
            temporary.write_bytes(content)
    is_trusted = vouched in ("by a list", "by this user")
    assert build_vision("auto", network, graph.parent).name == ("onnx" if is_trusted else "torch")
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    line = f"`elysium export --model {graph.parent} --vision-backend onnx --out {graph.parent}`"
    assert [("is not listed in the SHA256SUMS" in text, line in text) for text in said] == [(True, True)] * (
        not is_trusted
    )


def test_an_export_makes_a_graph_again_that_fits_but_is_trusted_by_nobody(network, graph, exported, cache, monkeypatch):
    graph.with_name("SHA256SUMS").unlink()
    made = []

    def write(path, *rest):
        made.append(path)
        return path

    monkeypatch.setattr(onnx_export, "write_described", write)
    export_onnx(network, exported)
    assert made == []
    export_onnx(network, graph.parent)
    assert made == [graph]


@pytest.mark.parametrize("model", PACKAGED)
def test_the_graphs_that_come_with_the_package_are_listed(model, cache):
    graphs = sorted(checkpoint_folder(model).glob("*.onnx"))
    assert graphs
    assert [untrusted_reason(path) for path in graphs] == [""] * len(graphs)


def test_auto_falls_back_when_a_graph_cannot_be_run(network, wanted, tmp_path, cache, caplog):
    with described_file(tmp_path / "vision.onnx", wanted) as temporary:
        temporary.write_bytes(b"described, but no graph")
    caplog.set_level(logging.WARNING)
    assert build_vision("auto", network, tmp_path).name == "torch"
    (record,) = caplog.records
    assert "runs on torch: ONNX Runtime cannot use" in record.message


@pytest.mark.parametrize("name", ["TensorRT", "cpu", ""])
def test_an_unknown_backend_is_refused_before_weights_are_loaded(name):
    with pytest.raises(BackendError, match="auto, torch, onnx, tensorrt"):
        Elysium.from_pretrained("/no/such/model", device="cpu", vision_backend=name)


@pytest.mark.slow
def test_float16_is_close(network, pictures, tmp_path):
    found = start(export_onnx(network, tmp_path, "float16")).encode(pictures)
    expected = TorchVision(network).encode(pictures)
    # Where a near tie is decided otherwise, another patch is kept, and its token is another one.
    close = ((found - expected).abs().amax(dim=-1) < 0.02 * expected.abs().max()).float().mean()
    assert close > 0.8


@pytest.mark.slow
def test_bfloat16_is_refused_by_onnxruntime_in_one_sentence(network, tmp_path):
    with pytest.raises(BackendError, match=r"ONNX Runtime cannot use .*bfloat16"):
        start(export_onnx(network, tmp_path, "bfloat16"))


def test_a_small_model_gets_one_thread(monkeypatch, exported, network):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    vision = build_vision("onnx", network, exported)
    assert vision._session.get_session_options().intra_op_num_threads == 1


def test_nano_comes_with_the_graph_of_its_own_weights():
    """Whoever has ONNX Runtime gets it without asking: it takes half of torch's time on a CPU."""
    fast = Elysium.from_pretrained("nano", device="cpu")
    slow = Elysium.from_pretrained("nano", device="cpu", vision_backend="torch")
    assert fast.runtime.family.vision.name == "onnx", "write it again: elysium export --out elysium_core/weights/nano"
    pictures = [np.random.default_rng(n).integers(0, 255, (96, 128, 3)).astype(np.uint8) for n in range(3)]
    found, expected = (
        torch.stack([seen.rows for seen in model.runtime.encode_frames(pictures)]) for model in (fast, slow)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
