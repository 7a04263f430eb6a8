"""Devices, data types, memory and threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elysium_core.api import Elysium
from elysium_core.device import (
    DTYPES,
    SMALL_MODEL,
    check_gpu,
    current_gpu,
    device_errors,
    dtype_name,
    fit_threads,
    free_bytes,
    resolve_device,
    resolve_dtype,
    runs_on,
    synchronize,
    total_bytes,
    why_no_gpu,
)
from elysium_core.errors import GPU_LOST, BackendError
from elysium_core.vision.vision_choice import check_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


# Names.


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_there_is_found(two_gpus, name):
    assert resolve_device(name) == resolve_device(torch.device(name)) == torch.device(name)


def test_auto_takes_the_first_gpu(two_gpus):
    assert resolve_device("auto") == CUDA


def test_auto_takes_the_cpu_where_there_is_no_gpu(no_gpu):
    assert resolve_device("auto") == CPU


@pytest.mark.parametrize("name", ["cuda:2", "mps", "meta", "tpu", "", "cuda:x", "cuda:-1"])
def test_a_device_that_is_not_there_is_named(two_gpus, name):
    with pytest.raises(BackendError) as caught:
        resolve_device(name)
    assert caught.value.code == "DEVICE"
    assert repr(name) in str(caught.value)


def test_why_there_is_no_gpu(monkeypatch, no_gpu):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in why_no_gpu()
    with pytest.raises(BackendError, match="'cuda:0': this torch is built without CUDA") as caught:
        Elysium.from_pretrained("nano", device="cuda:0")
    assert caught.value.code == "DEVICE"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "no NVIDIA GPU with a working driver" in why_no_gpu()
    with pytest.raises(BackendError, match="runs on a CUDA GPU only"):
        check_backend("tensorrt", CPU)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_auto_is_half_precision_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_dtype("auto", CUDA) == expected
    assert resolve_dtype("auto", CPU) == torch.float32


def test_data_types_have_one_name_each():
    assert {name: dtype_name(resolve_dtype(name, CPU)) for name in DTYPES} == {name: name for name in DTYPES}
    with pytest.raises(BackendError) as caught:
        resolve_dtype("int8", CPU)
    assert caught.value.code == "DTYPE"
    assert "'int8'" in str(caught.value)


# GPUs.


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((7, 5), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((8, 0), ["sm_86"], False),
        ((10, 0), ["sm_100"], True),
        ((8, 0), [], False),
        ((8, 0), ["gfx90a", "sm_"], False),
    ],
)
def test_which_gpus_programs_run_on(capability, built, runs):
    assert runs_on(capability, built) is runs


def test_a_gpu_that_torch_has_no_programs_for_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (5, 2))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 980")
    with pytest.raises(BackendError, match=r"GTX 980 has compute capability 5\.2.*built for sm_80, sm_90") as caught:
        check_gpu(CUDA)
    assert caught.value.code == "GPU_ARCH"
    check_gpu(CPU)


def test_nothing_is_done_for_a_gpu_on_a_cpu():
    with current_gpu(CPU):
        synchronize(CPU)


# Memory.


def test_memory_is_that_of_the_computer():
    free, total = free_bytes(CPU), total_bytes(CPU)
    assert free is not None
    assert 0 < free < total
    first_line = Path("/proc/meminfo").read_text("ascii").splitlines()[0]
    assert total == int(first_line.split()[1]) << 10


def test_a_device_without_memory_has_none():
    assert free_bytes(torch.device("meta")) is None


def test_memory_of_a_gpu_is_what_its_driver_says_once_torch_has_given_back_its_cache(monkeypatch):
    released = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append(True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 if released else 2, 7))
    assert (free_bytes(CUDA), total_bytes(CUDA)) == (3, 7)


# Threads.


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("parameters", "expected"), [(SMALL_MODEL - 1, 1), (SMALL_MODEL, 2)])
def test_small_models_get_one_thread(two_threads, parameters, expected):
    assert fit_threads(parameters) == expected


def test_the_environment_has_priority(two_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert fit_threads(1) == 2


# Errors.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), "MEMORY"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "MEMORY"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), GPU_LOST),
        (RuntimeError("CUDA error: device-side assert triggered"), GPU_LOST),
        (RuntimeError("not implemented for 'Half'"), "BACKEND"),
        (RuntimeError(""), "BACKEND"),
    ],
)
def test_errors_of_torch_get_a_code_and_one_line(error, code):
    with pytest.raises(BackendError) as caught, device_errors("the vision encoder"):
        raise error
    assert caught.value.code == code
    assert str(caught.value).startswith("the vision encoder ")
    assert "\n" not in str(caught.value)


def test_other_errors_pass():
    with pytest.raises(ValueError, match="ours"), device_errors("the vision encoder"):
        raise ValueError("ours")
