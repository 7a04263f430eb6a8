"""Backends for frames and crops of a model on EfficientNet: torch, ONNX Runtime, TensorRT, and how they are chosen."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.integrity import described_file, read_description, stale_reason, write_manifest
from elysium_core.cli.app import app
from elysium_core.errors import BackendError
from elysium_core.geometry import Box
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.vision import crop_choice, vision_choice
from elysium_core.vision.crop_export import (
    ANCHOR,
    CROP,
    GRAPH_NAMES,
    CropGraphDescription,
    crop_cache_folder,
    crop_hash,
    describe_crop_graphs,
    export_crop_graphs,
)
from elysium_core.vision.onnx_crops import OnnxCrops
from elysium_core.vision.onnx_export import ONNX_NAME, export_onnx
from elysium_core.vision.onnx_vision import OnnxVision
from elysium_core.vision.tensorrt_engine import build_engine, import_tensorrt
from elysium_core.vision.torch_crops import TorchCrops
from elysium_core.vision.torch_vision import TorchVision
from elysium_core.vision.vision_choice import build_vision

pytestmark = pytest.mark.timeout(600)
CPU = torch.device("cpu")
BOXES = [Box(0.2, 0.25, 0.8, 0.7), Box(0.4, 0.4, 0.55, 0.5), Box(0.0, 0.1, 0.9, 1.0)]
needs_onnx = pytest.mark.skipif(
    not all(find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")),
    reason="the packages of the extra onnx are not installed",
)


@pytest.fixture(scope="session")
def crops() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three anchor crops and three live crops: noise over a bright square; one pair is dark, one of another size."""
    random = np.random.default_rng(4)
    anchors = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (32, 32, 40)]
    lives = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (64, 64, 90)]
    for number, (anchor, live) in enumerate(zip(anchors, lives, strict=True)):
        anchor[8:20, 8:20] = live[10 * number : 10 * number + 12, 8:20] = (40 * number, 200, 90)
    anchors[1] //= 20
    lives[1] //= 20
    return anchors, lives


@pytest.fixture(scope="session")
def exported_crops(crop_folder, tmp_path_factory) -> Path:
    """The folder of all three graphs, exported once; read only."""
    network = load_checkpoint(crop_folder, dtype=torch.float32).network
    folder = tmp_path_factory.mktemp("exported-crops")
    write_manifest(folder, [export_onnx(network, folder), *export_crop_graphs(network, folder)])
    return folder


@pytest.fixture
def graphs(exported_crops, tmp_path) -> Path:
    """A copy of the graphs that a test may damage."""
    return shutil.copytree(exported_crops, tmp_path / "graphs")


@pytest.fixture
def no_export(monkeypatch):
    def refuse(*args):
        raise AssertionError("a slow export that nobody asked for")

    monkeypatch.setattr(crop_choice, "export_crop_graph", refuse)


def on_onnx(network, folder) -> OnnxCrops:
    wanted = describe_crop_graphs(network, "float32")
    return OnnxCrops(
        {name: folder / GRAPH_NAMES[name] for name in wanted}, wanted, TorchCrops(network), CPU, torch.float32
    )


def assert_same(found: torch.Tensor, expected: torch.Tensor, share: float = 2e-4) -> None:
    """Compare by a share of the largest value: weights drawn at random let rounding grow from block to block."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= share * float(expected.abs().max())


def assert_same_anchors(found: AnchorTokens, expected: AnchorTokens, share: float = 2e-4) -> None:
    for mine, wanted in zip(found.parts(), expected.parts(), strict=True):
        assert_same(mine, wanted, share)


@torch.inference_mode()
def test_torch_encodes_what_the_network_does(crop_network, crops):
    vision, (anchors, lives) = TorchVision(crop_network), crops
    encoder = crop_network.visual_encoder
    pixels = ImageTransform(32, encoder.normalization)(anchors)
    boxes = torch.tensor([[b.x1, b.y1, b.x2, b.y2] for b in BOXES])
    expected = crop_network.encode_anchors(pixels, boxes)
    found = vision.encode_anchors(anchors, BOXES)
    assert_same_anchors(found, expected)
    tokens = crop_network.encode_crops(ImageTransform(64, encoder.normalization)(lives), expected)
    assert_same(vision.encode_crops(lives, found), tokens)
    assert tokens.shape == (3, 6, 32)


def test_crops_in_a_batch_are_crops_one_by_one(crop_network, crops):
    vision, (anchors, lives) = TorchVision(crop_network), crops
    alone = [vision.encode_anchors([anchor], [box]) for anchor, box in zip(anchors, BOXES, strict=True)]
    together = vision.encode_anchors(anchors, BOXES)
    assert_same_anchors(AnchorTokens.stack(alone), together)
    one_by_one = torch.cat([vision.encode_crops([live], anchor) for live, anchor in zip(lives, alone, strict=True)])
    assert_same(vision.encode_crops(lives, together), one_by_one)


def test_a_model_without_crops_refuses_them(network, crops):
    for vision in (TorchVision(network), build_vision("torch", network)):
        for call in (lambda v=vision: v.encode_anchors(crops[0], BOXES), lambda v=vision: v.encode_crops([], None)):
            with pytest.raises(BackendError, match="this model has no crop_config: it follows in whole frames only"):
                call()


@needs_onnx
@pytest.mark.parametrize("count", [1, 2, 3])
def test_onnx_gives_the_tokens_of_torch(crop_network, exported_crops, crops, count):
    torch_vision, onnx_crops = TorchVision(crop_network), on_onnx(crop_network, exported_crops)
    anchors, lives = (part[:count] for part in crops)
    expected, found = (each.encode_anchors(anchors, BOXES[:count]) for each in (torch_vision, onnx_crops))
    assert_same_anchors(found, expected)
    assert_same(onnx_crops.encode_crops(lives, found), torch_vision.encode_crops(lives, expected))


@needs_onnx
def test_onnx_gives_the_tokens_of_torch_for_frames(crop_network, exported_crops, pictures):
    vision = OnnxVision(exported_crops / "vision.onnx", 64, CPU, torch.float32)
    expected = TorchVision(crop_network).encode(pictures)
    assert expected.shape == (7, 6, 32)
    assert_same(vision.encode(pictures), expected)


@needs_onnx
def test_anchors_of_one_backend_serve_the_other(crop_network, exported_crops, crops):
    torch_vision, onnx_crops = TorchVision(crop_network), on_onnx(crop_network, exported_crops)
    expected = torch_vision.encode_crops(crops[1], torch_vision.encode_anchors(crops[0], BOXES))
    mixed = onnx_crops.encode_crops(crops[1], torch_vision.encode_anchors(crops[0], BOXES))
    assert_same(mixed, expected)


@needs_onnx
def test_graphs_take_any_number_of_crops_and_nothing_of_the_machine(exported_crops):
    onnx = pytest.importorskip("onnx")
    shapes = {}
    for name in GRAPH_NAMES.values():
        content = (exported_crops / name).read_bytes()
        assert b".py" not in content
        graph = onnx.load_from_string(content).graph
        for end in (*graph.input, *graph.output):
            kind = end.type.tensor_type
            shapes[name, end.name] = [size.dim_value or "any" for size in kind.shape.dim]
    assert shapes == {
        ("anchor.onnx", "images"): ["any", 32, 32, 3],
        ("anchor.onnx", "boxes"): ["any", 4],
        ("anchor.onnx", "visual_tokens"): ["any", 3, 32],
        ("anchor.onnx", "query"): ["any", 16, 8],
        ("anchor.onnx", "cover"): ["any", 16],
        ("anchor.onnx", "pooled"): ["any", 8],
        ("anchor.onnx", "size"): ["any", 2],
        ("crop.onnx", "images"): ["any", 64, 64, 3],
        ("crop.onnx", "query"): ["any", 16, 8],
        ("crop.onnx", "cover"): ["any", 16],
        ("crop.onnx", "pooled"): ["any", 8],
        ("crop.onnx", "size"): ["any", 2],
        ("crop.onnx", "visual_tokens"): ["any", 6, 32],
        ("crop.onnx", "kept_index"): ["any", 6],
    }


@needs_onnx
def test_graphs_of_crops_hold_no_blocks_of_whole_frames(exported_crops):
    """Blocks 11 to 15 are three quarters of the encoder's weights."""
    assert (exported_crops / "crop.onnx").stat().st_size < 0.4 * (exported_crops / "vision.onnx").stat().st_size


def test_the_hash_follows_weights_and_settings_of_crops(crop_folder, crop_network):
    first = crop_hash(crop_network)
    assert crop_hash(load_checkpoint(crop_folder, dtype=torch.float64).network) == first
    crop_network.adapter.place.data.zero_()  # no part of the way of crops
    assert crop_hash(crop_network) == first
    crop_network.target_selector.neck.norm.running_mean += 1
    second = crop_hash(crop_network)
    crop_network.visual_encoder.stem.bias.data += 1
    assert len({first, second, crop_hash(crop_network)}) == 3


def test_a_model_without_crops_has_no_graphs_of_them(network, tmp_path):
    assert describe_crop_graphs(network, "float32") == {}
    assert export_crop_graphs(network, tmp_path) == []


@needs_onnx
def test_auto_takes_all_graphs_that_are_at_hand(crop_network, graphs, cache, crops, no_export):
    vision = build_vision("auto", crop_network, graphs)
    assert vision.name == "onnx"
    assert isinstance(vision._crops, OnnxCrops)
    expected = TorchVision(crop_network)
    found = vision.encode_crops(crops[1], vision.encode_anchors(crops[0], BOXES))
    wanted = expected.encode_crops(crops[1], expected.encode_anchors(crops[0], BOXES))
    assert_same(found, wanted)


def made_by(vision, name):
    """Which backend runs a graph of crops: the first of the chain that has it."""
    backend = vision._crops
    while isinstance(backend, OnnxCrops):
        if name in backend._sessions:
            return "onnx"
        backend = backend._otherwise
    assert isinstance(backend, TorchCrops)
    return "torch"


@needs_onnx
@pytest.mark.parametrize("missing", ["vision.onnx", "anchor.onnx", "crop.onnx"])
def test_torch_does_the_work_of_the_graph_that_is_missing(crop_network, graphs, cache, crops, no_export, missing):
    (graphs / missing).unlink()
    vision = build_vision("auto", crop_network, graphs)
    used = {"vision.onnx": vision.name, **{f"{name}.onnx": made_by(vision, name) for name in (ANCHOR, CROP)}}
    assert used == {name: "torch" if name == missing else "onnx" for name in used}
    found = vision.encode_crops(crops[1], vision.encode_anchors(crops[0], BOXES))
    assert found.shape == (3, 6, 32)


@needs_onnx
def test_stale_and_damaged_graphs_are_left_and_named(crop_network, graphs, cache, caplog, no_export):
    caplog.set_level(logging.INFO, logger="elysium_core")
    crop_network.target_selector.gate.bias.data += 1
    vision = build_vision("auto", crop_network, graphs)
    assert (vision.name, made_by(vision, ANCHOR), made_by(vision, CROP)) == ("onnx", "torch", "torch")
    assert "crop.onnx is stale: weights is" in caplog.text
    wanted = describe_crop_graphs(crop_network, "float32")
    with described_file(graphs / "crop.onnx", asdict(wanted[CROP])) as temporary:
        temporary.write_bytes(b"described, but no graph")
    assert made_by(build_vision("auto", crop_network, graphs), CROP) == "torch"
    assert "crop.onnx is not used: ONNX Runtime cannot use" in caplog.text


@needs_onnx
def test_graphs_of_other_sizes_are_refused(crop_network, graphs):
    (graphs / "anchor.onnx").write_bytes((graphs / "crop.onnx").read_bytes())
    with pytest.raises(BackendError, match=r"anchor.onnx is not the graph of a vision encoder for 32 px"):
        on_onnx(crop_network, graphs)


@needs_onnx
def test_onnx_by_name_makes_missing_graphs_in_the_cache(crop_network, exported_crops, cache, monkeypatch, caplog):
    made = []

    def copy(network, folder, wanted):
        name = GRAPH_NAMES[wanted.graph] if isinstance(wanted, CropGraphDescription) else ONNX_NAME
        made.append(name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(exported_crops / f"{name}.json", folder)
        return Path(shutil.copy(exported_crops / name, folder))

    monkeypatch.setattr(crop_choice, "export_crop_graph", copy)
    monkeypatch.setattr(vision_choice, "export_described", copy)
    for _ in range(2):
        vision = build_vision("onnx", crop_network, exported_crops.parent)
        assert (made_by(vision, ANCHOR), made_by(vision, CROP)) == ("onnx", "onnx")
        assert vision.name == "onnx"
    assert sorted(made) == ["anchor.onnx", "crop.onnx", "vision.onnx"]
    wanted = describe_crop_graphs(crop_network, "float32")[CROP]
    assert stale_reason(crop_cache_folder(wanted) / "crop.onnx", asdict(wanted)) == ""


@needs_onnx
def test_the_command_exports_all_three(crop_folder, graphs):
    result = CliRunner().invoke(
        app, ["export", "--model", str(crop_folder), "--out", str(graphs), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    files = [report, *report["crops"]]
    assert [Path(each["file"]).name for each in files] == ["vision.onnx", "anchor.onnx", "crop.onnx"]
    assert all(each["made_from"] == read_description(Path(each["file"])) for each in files)
    result = CliRunner().invoke(app, ["export", "--model", str(crop_folder), "--out", str(graphs)])
    assert result.stdout.rstrip().endswith("6 tokens of width 32 per crop")


@pytest.mark.slow
@needs_onnx
def test_float16_is_close(crop_network, crops, tmp_path):
    export_crop_graphs(crop_network, tmp_path, "float16")
    wanted = describe_crop_graphs(crop_network, "float16")
    graphs = {name: tmp_path / GRAPH_NAMES[name] for name in wanted}
    half = OnnxCrops(graphs, wanted, TorchCrops(crop_network), CPU, torch.float32)
    found, expected = half.encode_anchors(crops[0], BOXES), TorchVision(crop_network).encode_anchors(crops[0], BOXES)
    assert_same_anchors(found, expected, share=0.05)


def why_no_builder() -> str:
    try:
        name = import_tensorrt().__name__
    except BackendError as error:
        return str(error)
    return "" if torch.cuda.is_available() or "rtx" in name else "only TensorRT-RTX builds engines without a GPU"


@needs_onnx
@pytest.mark.skipif(bool(why_no_builder()), reason=why_no_builder())
def test_an_engine_of_the_convolutional_encoder_can_be_built(graphs):
    engine = build_engine(graphs / "vision.onnx", graphs)
    assert read_description(engine)["side_px"] == 64
