"""Recording on a real GPU; what can be known without one is tested with the parts that record."""

from __future__ import annotations

import pytest
import torch

from elysium_core.engine import cuda_graph
from elysium_core.engine.cuda_graph import CudaRecorder

SIZE = 512


class Product:
    """A program: its output is its input times a matrix, several times."""

    def __init__(self, seed: int, device: str = "cuda:0") -> None:
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.nn.init.orthogonal_(torch.empty(SIZE, SIZE), generator=generator).to(device)
        self.given, self.found = torch.zeros(3, SIZE, device=device), torch.zeros(3, SIZE, device=device)

    def __call__(self) -> None:
        result = self.given
        for _ in range(4):
            result = result @ self.matrix
        self.found.copy_(result)

    def check(self, program) -> None:
        self.given.normal_()
        program()
        expected = self.given @ torch.linalg.matrix_power(self.matrix, 4)
        assert torch.allclose(self.found, expected, atol=1e-3)


@pytest.fixture(autouse=True)
def no_failures(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_failures", [])


def test_after_a_failure_nothing_is_recorded_any_more(monkeypatch):
    monkeypatch.setattr(cuda_graph, "_failures", ["operation not permitted"])
    with pytest.raises(RuntimeError, match="an earlier recording failed: operation not permitted"):
        CudaRecorder(torch.device("cuda:0"))(lambda: None)


@pytest.mark.gpu
def test_recorders_share_nothing():
    recorders = [CudaRecorder(torch.device("cuda:0")) for _ in range(2)]
    products = [Product(seed) for seed in range(6)]
    programs = [recorders[seed % 2](product) for seed, product in enumerate(products)]
    for product, program in zip(products, programs, strict=True):
        product.check(program)
    # The first recorder's graphs go, and with them its memory; those of the other one do not mind.
    del programs[0], programs[1], programs[2], recorders[0]
    torch.cuda.empty_cache()
    for product, program in zip(products[1::2], programs, strict=True):
        product.check(program)


@pytest.mark.gpu
def test_memory_is_made_anew_when_all_graphs_of_a_recorder_have_gone():
    recorder = CudaRecorder(torch.device("cuda:0"))
    for seed in range(3):
        product = Product(seed)
        product.check(recorder(product))


@pytest.mark.gpu
def test_graphs_of_two_recorders_run_side_by_side():
    products = [Product(seed) for seed in range(2)]
    programs = [CudaRecorder(torch.device("cuda:0"))(product) for product in products]
    side = torch.cuda.Stream()
    for _ in range(50):
        for product in products:
            product.given.normal_()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            programs[0]()
        programs[1]()
        torch.cuda.current_stream().wait_stream(side)
        for product in products:
            expected = product.given @ torch.linalg.matrix_power(product.matrix, 4)
            assert torch.allclose(product.found, expected, atol=1e-3)


@pytest.mark.gpu
def test_a_program_that_cannot_be_recorded_leaves_the_thread_on_its_stream():
    before = torch.cuda.current_stream()
    product = Product(0)
    with pytest.raises(RuntimeError):
        CudaRecorder(torch.device("cuda:0"))(lambda: product.found.sum().item())
    assert torch.cuda.current_stream() == before


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_gpu_has_its_own_recordings():
    products = [Product(0, "cuda:0"), Product(1, "cuda:1")]
    programs = [CudaRecorder(product.given.device)(product) for product in products]
    for product, program in zip(products, programs, strict=True):
        product.check(program)
