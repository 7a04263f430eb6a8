"""Weights of YOLOX-nano are taken from a graph with its predictions, and from no other."""

from __future__ import annotations

import sys
from pathlib import Path
from runpy import run_path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.errors import DataError
from elysium_core.network.detector_encoder import DetectorEncoder, DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.yolox import YoloxFeatures
from elysium_core.training.pretrained_detector import import_detector, yolox_weights
from elysium_core.training.pretrained_encoder import load_encoder

SCRIPT = Path(__file__).parents[3] / "training" / "import_yolox.py"


def write_graph(path, network, drop=()):
    """A graph with a network's convolutions, nameless, and predictions among them; what joins them does not matter."""
    nodes, values = [], []

    def add(weight, bias, name=""):
        number = len(nodes)
        names = [f"{name}.weight", f"{name}.bias"] if name else [f"onnx::Conv_{2 * number}", f"b_{number}"]
        nodes.append(helper.make_node("Conv", ["x", *names], [f"y_{number}"]))
        parts = (part.detach().numpy() for part in (weight, bias))
        values.extend(numpy_helper.from_array(part, key) for part, key in zip(parts, names, strict=True))

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name not in drop:
            if name.endswith("object_score"):
                add(torch.zeros(80, 64, 1, 1), torch.zeros(80), f"head.cls_preds.{name.split('.')[1]}")
            add(module.weight, module.bias)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y_0")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], values)), str(path))


@pytest.fixture(scope="module")
def files(draw_weights, tmp_path_factory):
    """Folder with the weights of the crops and a detector's graph; and that detector."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(2)
    network, crops = YoloxFeatures(), EfficientNetEncoder(EfficientNetConfig())
    draw_weights(network)
    write_graph(folder / "yolox.onnx", network)
    save_file(crops.state_dict(), folder / "crops.safetensors")
    return folder, network, crops


def test_the_file_holds_both_networks(files, tmp_path, monkeypatch):
    folder, network, crops = files
    out = tmp_path / "detector.safetensors"
    names = {"--crops": folder / "crops.safetensors", "--onnx": folder / "yolox.onnx", "--out": out}
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *(str(part) for pair in names.items() for part in pair)])
    with pytest.raises(SystemExit) as ended:
        run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    encoder = DetectorEncoder(DetectorEncoderConfig())
    load_encoder(encoder, out)
    for name, value in network.state_dict().items():
        assert torch.equal(encoder.detector.state_dict()[name], value)
    assert torch.equal(encoder.blocks[10].convs[2].weight, crops.blocks[10].convs[2].weight)
    with safe_open(out, "pt") as file:
        origin = file.metadata()
    # Neither file is a published one.
    digest = hash_file(folder / "yolox.onnx")[:12]
    assert origin["source"] == f"an unnamed source (crops), and of a YOLOX-nano with sha256 {digest}... (frames)"
    assert "unknown" in origin["license"]


def test_files_that_are_not_there_are_named(files, tmp_path):
    folder = files[0]
    for crops, graph in (("crops.safetensors", "no.onnx"), ("no.safetensors", "yolox.onnx")):
        with pytest.raises(DataError, match="no\\."):
            import_detector(folder / crops, folder / graph, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_damaged_graph_is_refused(tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"\x00\xff" * 200)
    with pytest.raises(DataError, match=r"cannot read the ONNX graph .*damaged\.onnx"):
        yolox_weights(path)


def test_another_graph_is_refused(files, tmp_path):
    network = files[1]
    write_graph(tmp_path / "short.onnx", network, drop=("stem.0",))
    with pytest.raises(DataError, match="has 106 convolutions before its predictions; YOLOX-nano has 107"):
        yolox_weights(tmp_path / "short.onnx")
    larger = YoloxFeatures()
    larger.lateral = nn.Sequential(nn.Conv2d(512, 128, 1))
    write_graph(tmp_path / "larger.onnx", larger)
    with pytest.raises(DataError, match=r"lateral\.0 has the shape \(128, 512, 1, 1\) instead of \(128, 256, 1, 1\)"):
        yolox_weights(tmp_path / "larger.onnx")
