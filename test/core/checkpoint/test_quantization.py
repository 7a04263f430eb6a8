from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.quantization import (
    QUANTIZATIONS,
    check_quantization,
    check_room,
    count_parameters,
    needed_bytes,
    quantize,
)
from elysium_core.engine.recorded_decoder import COLUMN_STEP, RecordedDecoder, build_decoder
from elysium_core.errors import BackendError
from elysium_core.network.llama import Llama
from elysium_core.types import TrackState

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GIB = 1 << 30
KINDS = [kind for kind in QUANTIZATIONS if kind != "none"]

needs_packages = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes (the extra quantize)")


@pytest.fixture
def network(tiny_folder):
    """The tiny network with a language model whose rows nf4 can divide."""
    network = load_checkpoint(tiny_folder, dtype=torch.float32).network
    size = replace(network.llm.size, width=64, mlp_width=128, head_dim=16)
    torch.manual_seed(3)
    network.llm = Llama(size).eval()
    return network


@torch.inference_mode()
def hidden_of(llm, decoder=None, tokens=12):
    weight, run = llm.lm_head.weight, decoder or llm
    new = torch.randn(1, tokens, llm.size.width, generator=torch.Generator().manual_seed(1)).to(weight)
    place = torch.arange(tokens, device=weight.device)[None]
    mask = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=weight.device).tril()
    return run(new, place, mask, run.new_cache(tokens))[0].float()


@needs_packages
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantised_model_is_nearly_the_same_and_smaller(network, kind, dtype):
    expected, parameters = hidden_of(network.llm), count_parameters(network)
    network.to(dtype)
    quantize(network, kind, CPU)
    found = hidden_of(network.llm)
    error = float((found - expected).norm() / expected.norm())
    assert 1e-4 < error < {"int8": 0.05, "fp8": 0.1, "nf4": 0.2}[kind]
    assert count_parameters(network) == parameters
    assert network.llm.lm_head.weight.dtype == dtype
    assert network.llm.quantization == kind
    again = hidden_of(network.llm)
    assert again.equal(found), "the same every time"


@needs_packages
@pytest.mark.parametrize("kind", KINDS)
def test_padded_passes_of_a_quantised_model_are_the_passes(network, kind):
    quantize(network, kind, CPU)
    decoder = RecordedDecoder(network.llm, lambda program: program, capacity=COLUMN_STEP)
    plain = hidden_of(network.llm)
    for _ in range(2):
        found = hidden_of(network.llm, decoder)
        assert torch.allclose(found, plain, atol=1e-4)
    assert (decoder.replayed, decoder.padded_tokens) == (1, 4)


@needs_packages
def test_a_model_is_loaded_quantised_and_tracks(tiny_folder, frames):
    model = Elysium.from_pretrained(tiny_folder, device="cpu", quantization="int8")
    plain = Elysium.from_pretrained(tiny_folder, device="cpu")
    assert model.info.precision == "float32, int8 language model"
    assert plain.info.precision == "float32"
    assert model.info.parameters == plain.info.parameters
    tracker = model.tracker()
    tracker.add("the red mug")
    for frame in frames[:3]:
        (update,) = tracker.step(frame)
        assert isinstance(update.state, TrackState)


@needs_packages
def test_sides_that_fp8_cannot_multiply_are_named_before_anything_is_changed(network):
    network.llm = Llama(replace(network.llm.size, mlp_width=120)).eval()
    with pytest.raises(BackendError, match=r"\b120\b") as caught:
        quantize(network, "fp8", CUDA)
    assert caught.value.code == "QUANTIZATION"
    assert network.llm.quantization == "none"


def test_rows_that_nf4_cannot_divide_are_named(tiny_folder):
    with pytest.raises(BackendError, match="32, 64") as caught:
        Elysium.from_pretrained(tiny_folder, device="cpu", quantization="nf4")
    assert caught.value.code == "QUANTIZATION"


@needs_packages
def test_a_quantised_model_is_not_saved(tiny_folder, tmp_path):
    model = Elysium.from_pretrained(tiny_folder, device="cpu", quantization="fp8")
    with pytest.raises(BackendError, match="fp8") as caught:
        model.save_pretrained(tmp_path / "saved")
    assert caught.value.code == "QUANTIZATION"
    assert not (tmp_path / "saved").exists()


def test_an_unknown_quantisation_is_named_before_anything_is_loaded():
    with pytest.raises(BackendError, match="'int3'") as caught:
        Elysium.from_pretrained("/no/such/model", device="cpu", quantization="int3")
    assert caught.value.code == "QUANTIZATION"


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_missing_package_is_named(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BackendError, match=rf"'{kind}'.*'bitsandbytes'.*pip install bitsandbytes") as caught:
        check_quantization(kind, CPU, torch.float32)
    assert caught.value.code == "QUANTIZATION"


def test_a_torch_without_fp8_is_named(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "scaled_mm")
    with pytest.raises(BackendError, match=r"'fp8'.*2\.10") as caught:
        check_quantization("fp8", CPU, torch.float32)
    assert caught.value.code == "QUANTIZATION"


@pytest.mark.parametrize(
    ("capability", "dtype", "said"),
    [
        ((8, 6), torch.bfloat16, r"8\.9 .* cuda:0 has 8\.6"),
        ((9, 0), torch.float16, "float16"),
        ((9, 0), torch.bfloat16, ""),
    ],
)
def test_fp8_on_a_gpu_that_has_none(monkeypatch, capability, dtype, said):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if not said:
        check_quantization("fp8", CUDA, dtype)
        return
    with pytest.raises(BackendError, match=said) as caught:
        check_quantization("fp8", CUDA, dtype)
    assert caught.value.code == "QUANTIZATION"


def test_a_gpu_without_room_is_refused_with_the_numbers(network, monkeypatch):
    weights, working = needed_bytes(network, "none", torch.float16)
    smaller, _ = needed_bytes(network, "nf4", torch.float16)
    assert smaller < weights < 2 * count_parameters(network) + 1
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (weights + working, 8 * GIB))
    check_room(network, kind="none", device=CUDA, dtype=torch.float16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (weights + working - 1, 8 * GIB))
    with pytest.raises(BackendError, match=r"float16 .* 8192 MiB .* cuda:0") as caught:
        check_room(network, kind="none", device=CUDA, dtype=torch.float16)
    assert caught.value.code == "MEMORY"
    check_room(network, kind="nf4", device=CUDA, dtype=torch.float16)
    check_room(network, kind="none", device=CPU, dtype=torch.float32)


def test_room_is_looked_for_before_weights_are_read(tiny_folder, monkeypatch):
    def refuse(network):
        assert all(weight.is_meta for weight in network.parameters())
        raise BackendError("no room", code="MEMORY")

    monkeypatch.setattr("elysium_core.checkpoint.checkpoint.fill_network", None)
    with pytest.raises(BackendError, match="no room"):
        load_checkpoint(tiny_folder, check=refuse)


@pytest.mark.gpu
@needs_packages
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_runs_a_quantised_model(network, kind):
    if kind == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("fp8 needs compute capability 8.9")
    expected = hidden_of(network.llm, tokens=40)
    network.to(torch.bfloat16)
    quantize(network, kind, CUDA)
    assert network.llm.lm_head.weight.device.type == "cuda"
    decoder = build_decoder(network.llm)
    for _ in range(3):
        found = hidden_of(network.llm, decoder, tokens=40).cpu()
        assert float((found - expected).norm() / expected.norm()) < 0.25
    assert decoder.replayed == 2, decoder.description
