from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.integrity import read_description, stale_reason
from elysium_core.checkpoint.locations import PACKAGED_WEIGHTS
from elysium_core.cli.app import app
from elysium_core.errors import BackendError
from elysium_core.vision import onnx_export, onnx_writer
from elysium_core.vision.onnx_export import cache_folder, describe_graph, export_onnx, vision_hash
from elysium_core.vision.onnx_vision import import_onnxruntime
from elysium_core.vision.onnx_writer import PRECISIONS, export_graph

# An export takes seconds, but a machine may be busy with other things.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def no_exporter(monkeypatch):
    """Torch's exporter; fails the test if it is called."""

    def refuse(*args, **kwargs):
        raise AssertionError("exported although a current graph was there")

    monkeypatch.setattr(torch.onnx, "export", refuse)


@pytest.fixture
def quick_exporter(monkeypatch):
    """An export that writes what it was asked for instead of a graph."""
    asked = []

    def write(graph, path, inputs, outputs):
        asked.append((next(graph.parameters()).dtype, [*inputs], [*outputs]))
        path.write_text(f"{asked[-1]}")

    monkeypatch.setattr(onnx_writer, "export_graph", write)
    return asked


def test_the_graph_takes_any_number_of_byte_images_and_says_which_patches_it_kept(exported):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported / "vision.onnx").graph
    ends = {}
    for end in (*graph.input, *graph.output):
        kind = end.type.tensor_type
        ends[end.name] = kind.elem_type, [size.dim_value or "any" for size in kind.shape.dim]
    assert ends == {
        "images": (onnx.TensorProto.UINT8, ["any", 32, 32, 3]),
        "visual_tokens": (onnx.TensorProto.FLOAT, ["any", 6, 32]),
        "kept_index": (onnx.TensorProto.INT64, ["any", 6]),
    }


@pytest.mark.parametrize("folder", [None, PACKAGED_WEIGHTS / "nano"], ids=["new", "shipped"])
def test_a_graph_tells_nothing_of_the_machine_that_made_it(exported, folder):
    """The exporter would note for every node which line of which file it came from."""
    content = ((folder or exported) / "vision.onnx").read_bytes()
    assert str(Path(onnx_export.__file__).parents[2]).encode() not in content
    assert b".py" not in content


def test_the_layer_that_is_not_used_is_not_in_the_graph(exported, network):
    onnx = pytest.importorskip("onnx")
    tensors = onnx.load(exported / "vision.onnx").graph.initializer
    stored = sum(torch.Size(tensor.dims).numel() for tensor in tensors)
    encoder = network.visual_encoder.vision_model
    unused = [encoder.encoder.layers[2], encoder.post_layernorm, network.adapter.score_proj]
    every = [network.visual_encoder, network.adapter, network.llm_proj]
    needed, spare = (sum(w.numel() for module in modules for w in module.parameters()) for modules in (every, unused))
    constants = 100
    assert stored <= needed - spare + constants < needed


def test_a_current_graph_is_kept(graph, network, wanted, no_exporter):
    assert stale_reason(graph, wanted) == ""
    assert export_onnx(network, graph.parent) == graph


@pytest.mark.parametrize("damage", ["weights", "precision", "file", "description"])
def test_a_graph_that_is_not_current_is_made_again(graph, network, quick_exporter, damage):
    precision = "float16" if damage == "precision" else "float32"
    if damage == "weights":
        network.llm_proj[0].bias.data[0] += 1
    if damage == "file":
        graph.write_bytes(graph.read_bytes()[:-1])
    if damage == "description":
        Path(f"{graph}.json").write_text("{")
    assert export_onnx(network, graph.parent, precision) == graph
    assert quick_exporter == [(getattr(torch, precision), ["images"], ["visual_tokens", "kept_index"])]
    assert read_description(graph) == asdict(describe_graph(network, precision))
    assert graph.read_text() == f"{quick_exporter[0]}"


def test_the_hash_follows_values_and_settings_but_not_the_data_type(tiny_folder, network):
    first = vision_hash(network)
    assert len(first) == 64
    assert vision_hash(load_checkpoint(tiny_folder, dtype=torch.float64).network) == first
    assert vision_hash(load_checkpoint(tiny_folder, dtype=torch.bfloat16).network) != first  # digits are lost
    network.llm.lm_head.weight.data.zero_()  # no part of the vision half
    assert vision_hash(network) == first
    network.visual_encoder.used_layers = 1
    second = vision_hash(network)
    network.adapter.trans_bias.data[3] = 7
    assert len({first, second, vision_hash(network)}) == 3


def test_the_network_stays_as_it_is(network):
    graph = onnx_export.VisionGraph(network)
    half = onnx_writer.as_exported(graph, torch.float16)
    assert {weight.dtype for weight in half.parameters()} == {torch.float16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert onnx_writer.as_exported(graph, torch.float32) is graph


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no kernel\nfor this\nand that"), ": no kernel"),
        (RuntimeError(), ": RuntimeError"),
        (OSError(28, "No space left on device"), "vision.onnx: No space left on device"),
    ],
)
def test_an_export_that_fails_leaves_no_file(network, tmp_path, monkeypatch, error, said):
    def fail(path, **settings):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch.onnx, "export", lambda *args, **settings: SimpleNamespace(model=None, save=fail))
    monkeypatch.setattr(onnx_writer, "forget_sources", lambda model: None)
    monkeypatch.setattr(onnx_writer, "halve_weights", lambda model: None)
    with pytest.raises(BackendError, match=said) as caught:
        export_onnx(network, tmp_path / "out")
    assert caught.value.code == "EXPORT"
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(network, tmp_path, quick_exporter):
    (tmp_path / "out").write_text("")
    with pytest.raises(BackendError, match=r"vision\.onnx") as caught:
        export_onnx(network, tmp_path / "out")
    assert caught.value.code == "EXPORT"


@pytest.fixture
def saved_as(tmp_path):
    """Export two layers with weights of some precision; return the graph's size, and how wrong what it computes is."""

    def export(dtype: torch.dtype) -> tuple[int, float]:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Linear(64 * 36, 8)).to(dtype).float().eval()
        example, path = torch.randn(2, 3, 8, 8), tmp_path / f"{dtype}.onnx"
        export_graph(layers, path, {"input": example}, ("found",))
        session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": example.numpy()})
        return path.stat().st_size, float((torch.from_numpy(found) - layers(example)).abs().max())

    return export


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the package onnxruntime is not installed")
@torch.inference_mode()
def test_weights_that_were_saved_in_half_precision_take_half_the_space(saved_as):
    pytest.importorskip("onnxscript")
    (whole, error), (half, half_error) = (saved_as(dtype) for dtype in (torch.float32, torch.float16))
    assert half < 0.6 * whole
    # Of a random float32 weight, half precision would lose digits: those stay as they are.
    assert max(error, half_error) < 1e-5


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_the_packages_it_says_which(network, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=f"'{package}'.*pip install onnx onnxruntime onnxscript") as caught:
        export_onnx(network, tmp_path)
    assert caught.value.code == "EXPORT"


def test_the_cache_is_where_the_user_says(network, monkeypatch, tmp_path):
    wanted = describe_graph(network, "float32")
    name = f"{vision_hash(network)[:16]}-float32"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(wanted) == tmp_path / "elysium" / name
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(wanted) == tmp_path / ".cache" / "elysium" / name


def test_without_a_home_it_says_what_to_set(network, monkeypatch):
    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    with pytest.raises(BackendError, match="XDG_CACHE_HOME"):
        cache_folder(describe_graph(network, "float32"))


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)], catch_exceptions=False)


def test_the_command_writes_and_reports(tiny_folder, graph, no_exporter):
    result = run("--model", tiny_folder, "--out", graph.parent, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["file"] == str(graph)
    assert report["bytes"] == graph.stat().st_size
    assert report["made_from"] == read_description(graph)
    result = run("--model", tiny_folder, "--out", graph.parent)
    assert result.stdout.rstrip().endswith("float32, 6 tokens of width 32 per frame")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "torch"), "--backend 'torch' is not one of onnx, tensorrt"),
        (("--precision", "int8"), f"precision 'int8' is not one of {', '.join(PRECISIONS)}"),
        (("--dtype", "int8"), "--dtype 'int8' is not one of auto, float32, float16, bfloat16"),
        (("--model", "identity"), "--model identity has no vision encoder"),
        (("--model", "/no/such"), "there is no model '/no/such'"),
        (("--max-batch", "0"), "Invalid value for '--max-batch'"),
    ],
)
def test_the_command_refuses_in_one_sentence(tiny_folder, tmp_path, arguments, said):
    result = run("--model", tiny_folder, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the package onnxruntime is not installed")
@pytest.mark.parametrize("kind", ["cross_attention", "concatenation", "none"])
def test_every_adapter_can_be_exported(network, tmp_path, pictures, kind):
    from bench.vision_cost import ROWS, TINY_SIZE, build_row
    from elysium_core.vision.onnx_vision import OnnxVision
    from elysium_core.vision.torch_vision import TorchVision

    row = next(row for row in ROWS if row.adapter == kind)
    network = build_row(TINY_SIZE, row)
    graph = export_onnx(network, tmp_path)
    side = network.visual_encoder.side_px
    vision = OnnxVision(graph, side, torch.device("cpu"), torch.float32)
    for count in (1, 3, 7):
        expected = TorchVision(network).encode(pictures[:count])
        torch.testing.assert_close(vision.encode(pictures[:count]), expected, atol=1e-4, rtol=0)
    shutil.rmtree(tmp_path)
