from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from elysium_core.api import Elysium
from elysium_core.checkpoint.integrity import described_file, read_description, stale_reason
from elysium_core.cli.app import app
from elysium_core.errors import BackendError
from elysium_core.vision import onnx_export, tensorrt_engine, vision_choice
from elysium_core.vision.onnx_export import describe_graph, export_onnx
from elysium_core.vision.tensorrt_engine import (
    build_engine,
    describe_engine,
    gpu_kind,
    import_tensorrt,
)
from elysium_core.vision.tensorrt_vision import TensorrtVision
from elysium_core.vision.torch_vision import TorchVision
from elysium_core.vision.vision_choice import build_vision

pytestmark = pytest.mark.timeout(600)
CUDA = torch.device("cuda:0")


def why_no_builder() -> str:
    """Why no engine can be built here; empty if one can."""
    try:
        name = import_tensorrt().__name__
    except BackendError as error:
        return str(error)
    return "" if torch.cuda.is_available() or "rtx" in name else "only TensorRT-RTX builds engines without a GPU"


needs_builder = pytest.mark.skipif(bool(why_no_builder()), reason=why_no_builder())


@pytest.fixture(scope="session")
def built(exported, tmp_path_factory) -> Path:
    """The folder of graph and engine; read only."""
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("engine") / "built")
    return build_engine(folder / "vision.onnx", folder).parent


@pytest.fixture
def engine(built, tmp_path) -> Path:
    """A copy of the engine that a test may damage."""
    return shutil.copytree(built, tmp_path / "built") / "vision.engine"


@needs_builder
def test_an_engine_says_what_it_was_made_from(built, wanted):
    trt = import_tensorrt()
    expected = {"version": trt.__version__, "gpu": "none", "max_batch": 8}
    found = read_description(built / "vision.engine")
    assert found == wanted | expected | {"package": found["package"]}
    assert found["package"] in ("tensorrt", "tensorrt_rtx")
    assert stale_reason(built / "vision.engine", describe_engine(wanted, "none")) == ""


@needs_builder
def test_a_current_engine_is_kept_and_another_one_built_anew(engine, wanted, monkeypatch):
    built = []
    monkeypatch.setattr(tensorrt_engine._Build, "run", lambda self, *how: built.append(how) or b"an engine")
    graph = engine.with_name("vision.onnx")
    build_engine(graph, engine.parent)
    assert built == []
    build_engine(graph, engine.parent, gpu="9.0")
    build_engine(graph, engine.parent, gpu="9.0", max_batch=4)
    monkeypatch.setattr(import_tensorrt(), "__version__", "99.0")
    build_engine(graph, engine.parent, gpu="9.0", max_batch=4)
    assert built == [(8, "float32"), (4, "float32"), (4, "float32")]
    assert stale_reason(engine, describe_engine(wanted, "9.0")) == ""


@needs_builder
def test_building_tells_how_far_it_is(graph, tmp_path):
    told = []
    build_engine(graph, tmp_path / "out", progress=lambda *step: told.append(step))
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert done[-1] <= told[0][2]


@needs_builder
def test_ctrl_c_stops_the_building_and_leaves_nothing(graph, tmp_path):
    def interrupt(*step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(graph, tmp_path / "out", progress=interrupt)
    assert not (tmp_path / "out").exists()


@needs_builder
@pytest.mark.parametrize(
    ("content", "said"), [(b"no graph", "[Pp]arse"), (b"", "it is not a graph"), (None, "[Pp]arse")]
)
def test_a_graph_that_is_none_is_refused_with_the_reason(exported, tmp_path, wanted, content, said):
    graph = tmp_path / "vision.onnx"
    half = (exported / "vision.onnx").read_bytes()[:9000]
    with described_file(graph, wanted) as temporary:
        temporary.write_bytes(half if content is None else content)
    with pytest.raises(BackendError, match=rf"vision\.onnx: .*{said}") as caught:
        build_engine(graph, tmp_path / "out")
    assert caught.value.code == "ENGINE_BUILD"
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_undescribed_graph_is_not_read(graph, tmp_path):
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BackendError, match=str(graph)) as damaged:
        build_engine(graph, tmp_path)
    Path(f"{graph}.json").unlink()
    with pytest.raises(BackendError, match=f"{graph.name}.json") as undescribed:
        build_engine(graph, tmp_path)
    assert damaged.value.code == undescribed.value.code == "ENGINE_BUILD"


@pytest.mark.parametrize("max_batch", [0, -1, 65])
def test_a_batch_that_the_graph_does_not_take_is_refused(graph, tmp_path, max_batch):
    with pytest.raises(BackendError, match=f"max_batch = {max_batch} ") as caught:
        build_engine(graph, tmp_path, max_batch=max_batch)
    assert caught.value.code == "ENGINE_BUILD"


def test_without_a_package_it_says_what_to_install(monkeypatch):
    for package in tensorrt_engine._PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=r"pip install tensorrt"):
        import_tensorrt()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_library_that_is_missing", "lacks the module a_library_that_is_missing"),
        ("raise OSError('libcudart.so: cannot open shared object file')", "libcudart.so: cannot open"),
    ],
)
def test_a_package_that_does_not_work_is_named(tmp_path, monkeypatch, code, reason):
    (tmp_path / "a_broken_tensorrt.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tensorrt_engine, "_PACKAGES", ("a_broken_tensorrt",))
    with pytest.raises(BackendError, match=f"a_broken_tensorrt.*{reason}"):
        import_tensorrt()


@needs_builder
@pytest.mark.parametrize("damage", ["gpu", "version", "file", "description", "nobody"])
def test_a_stale_foreign_or_damaged_engine_is_never_loaded(engine, wanted, damage, monkeypatch):
    needed = describe_engine(wanted, "none")
    if damage in needed:
        needed[damage] = "another"
    if damage == "file":
        engine.write_bytes(engine.read_bytes()[:100])
    if damage == "description":
        Path(f"{engine}.json").unlink()
    if damage == "nobody":
        engine.with_name("SHA256SUMS").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(engine.parent / "cache of another user"))
    monkeypatch.setattr(import_tensorrt(), "Runtime", None)  # calling it would be another error
    with pytest.raises(BackendError, match=r"vision\.engine ") as caught:
        TensorrtVision(engine, needed, 32, CUDA, torch.float32)
    assert caught.value.code == "ENGINE_STALE"


def test_a_cpu_is_refused_before_weights_are_loaded():
    with pytest.raises(BackendError, match="cpu"):
        Elysium.from_pretrained("/no/such/model", device="cpu", vision_backend="tensorrt")


def test_auto_on_a_gpu_falls_back_to_torch_and_says_why(network, cache, monkeypatch, caplog):
    def fail(*args):
        raise BackendError("TensorRT could not build an engine of it")

    monkeypatch.setattr(vision_choice, "_device", lambda network: CUDA)
    monkeypatch.setattr(vision_choice, "import_tensorrt", lambda: None)
    monkeypatch.setattr(vision_choice, "_tensorrt_vision", fail)
    assert build_vision("auto", network).name == "torch"
    assert [record.message for record in caplog.records] == [
        "the vision encoder runs on torch: TensorRT could not build an engine of it"
    ]
    with pytest.raises(BackendError, match="could not build an engine of it"):
        build_vision("tensorrt", network)


def test_auto_on_a_gpu_without_tensorrt_is_torch(network, cache, monkeypatch, caplog):
    def missing():
        raise BackendError("TensorRT is not installed")

    monkeypatch.setattr(vision_choice, "_device", lambda network: CUDA)
    monkeypatch.setattr(vision_choice, "import_tensorrt", missing)
    assert build_vision("auto", network).name == "torch"
    assert caplog.records == []  # nothing is wrong


@needs_builder
def test_the_first_use_on_a_gpu_builds_in_the_cache_and_the_second_finds_it(cached_graph, network, monkeypatch):
    used, built = [], []
    monkeypatch.setattr(vision_choice, "_device", lambda network: CUDA)
    monkeypatch.setattr(
        vision_choice, "TensorrtVision", lambda engine, wanted, *rest, **named: used.append((engine, wanted))
    )
    monkeypatch.setattr(vision_choice, "graph_precision", lambda network: "float32")
    monkeypatch.setattr(
        vision_choice, "build_engine", lambda *how: built.append(how) or tensorrt_engine.build_engine(*how)
    )
    for _ in range(2):
        build_vision("tensorrt", network)
    assert used == 2 * [(cached_graph.parent / "none" / "vision.engine", used[0][1])]
    assert len(built) == 1
    assert stale_reason(*used[0]) == ""


def test_gpus_that_share_a_cache_keep_their_own_engines(cached_graph, network, monkeypatch):
    """Both have one compute capability: an engine of the other one would be loaded, and be slow or fail."""
    gpu, built, used = ["NVIDIA L4 8.9"], [], []
    fake = SimpleNamespace(__name__="tensorrt", __version__="10.0")
    for module in (tensorrt_engine, vision_choice):
        monkeypatch.setattr(module, "import_tensorrt", lambda: fake)
    monkeypatch.setattr(vision_choice, "_device", lambda network: CUDA)
    monkeypatch.setattr(vision_choice, "graph_precision", lambda network: "float32")
    monkeypatch.setattr(vision_choice, "gpu_kind", lambda device: gpu[0])
    monkeypatch.setattr(vision_choice, "TensorrtVision", lambda engine, *rest, **named: used.append(engine))
    monkeypatch.setattr(tensorrt_engine._Build, "__init__", lambda self, *how: None)
    monkeypatch.setattr(tensorrt_engine._Build, "run", lambda self, *how: built.append(gpu[0]) or gpu[0].encode())
    for name in ("NVIDIA L4 8.9", "NVIDIA RTX 4090 8.9", "NVIDIA L4 8.9", "NVIDIA RTX 4090 8.9"):
        gpu[0] = name
        build_vision("tensorrt", network)
        assert used[-1].read_bytes() == name.encode()
    assert built == ["NVIDIA L4 8.9", "NVIDIA RTX 4090 8.9"]
    # As if one were copied into the place of the other.
    shutil.copytree(used[0].parent, used[1].parent, dirs_exist_ok=True)
    build_vision("tensorrt", network)
    assert used[-1].read_bytes() == b"NVIDIA RTX 4090 8.9"


@needs_builder
def test_the_command_builds_an_engine(tiny_folder, graph, exported, monkeypatch):
    def copy(network, folder, precision):
        assert (folder != graph.parent, precision) == (True, "float32")
        return shutil.copytree(exported, folder, dirs_exist_ok=True) / graph.name

    # The export itself takes seconds, and is tested in test_onnx_export.py.
    monkeypatch.setattr(onnx_export, "export_onnx", copy)
    arguments = ["--model", tiny_folder, "--backend", "tensorrt", "--precision", "float32", "--dtype", "float32"]
    command = ["export", *map(str, arguments), "--out", str(graph.parent), "--max-batch", "2", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["file"] == str(graph.with_name("vision.engine"))
    assert report["made_from"]["max_batch"] == 2
    assert report["made_from"]["gpu"] == gpu_kind()


@pytest.mark.slow
@needs_builder
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_can_be_built(network, tmp_path, precision):
    engine = build_engine(export_onnx(network, tmp_path, precision), tmp_path)
    assert read_description(engine)["precision"] == precision


@pytest.mark.gpu
@needs_builder
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 0.02)])
def test_an_engine_gives_the_tokens_of_torch(network, pictures, tmp_path, precision, tolerance):
    gpu = gpu_kind(CUDA)
    graph = export_onnx(network, tmp_path, precision)
    engine = build_engine(graph, tmp_path, gpu, max_batch=4)
    needed = describe_engine(read_description(graph), gpu)
    vision = TensorrtVision(engine, needed, 32, CUDA, torch.float32)
    expected = TorchVision(network).encode(pictures)
    found = vision.encode(pictures).cpu()  # seven images are more than the engine takes at once
    assert found.shape == expected.shape
    close = ((found - expected).abs().amax(dim=-1) <= tolerance * max(1, float(expected.abs().max()))).float().mean()
    assert close == 1 if precision == "float32" else close > 0.8


@pytest.mark.gpu
@needs_builder
def test_a_model_on_a_gpu_runs_on_tensorrt(tiny_folder, cache, frames):
    model = Elysium.from_pretrained(tiny_folder, device="cuda:0", dtype="float32")
    assert model.info.backend == "tensorrt"
    torch_model = Elysium.from_pretrained(tiny_folder, device="cuda:0", dtype="float32", vision_backend="torch")
    tokens = [each.runtime.encode_frames([frames[0].image])[0].rows.cpu().numpy() for each in (model, torch_model)]
    assert np.allclose(*tokens, atol=1e-3)
    assert describe_graph(model.runtime.family.network, "float32").tokens == len(tokens[0])
