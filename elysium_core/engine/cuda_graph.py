"""Recording of GPU work as CUDA graphs, which are replayed without the cost of Python calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch

Program = Callable[[], object]
"""Queues work on a device. It reads its inputs from fixed addresses and writes its outputs to fixed addresses."""

# Reasons of failed recordings in this process. After a failure torch cannot be relied on to record again.
_failures: list[str] = []


class CudaRecorder:
    """Records programs as CUDA graphs.

    The graphs of one recorder share their working memory. So they must run one at a time,
    and they must write their outputs to tensors that were allocated before the recording.
    Graphs of different recorders share nothing and may run at the same time.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[Any, Any] | None = None
        self._graphs: WeakSet[Any] = WeakSet()
        self._memory: Any = None

    def __call__(self, program: Program) -> Program:
        """Run a program once, record it, and return a function that replays it.

        Raises:
            RuntimeError: The program does something that cannot be recorded, or an earlier recording in this
                process failed.
        """
        if _failures:
            raise RuntimeError(f"an earlier recording failed: {_failures[0]}")
        with torch.cuda.device(self._device):
            # Each recorder makes its streams once. torch's default stream for recording belongs to the GPU of the
            # first recording, and libraries keep memory for every stream, so new streams would add to it each time.
            self._streams = self._streams or (torch.cuda.Stream(), torch.cuda.Stream())  # type: ignore[no-untyped-call]
            warm_up, recording = self._streams
            _warm_up(program, warm_up)
            graph = torch.cuda.CUDAGraph()
            # torch frees the pool together with the last graph that was recorded in it.
            memory = self._memory if len(self._graphs) else None
            # thread_local: other threads may use the GPU during the recording, to encode an image for example.
            capture = torch.cuda.graph(graph, pool=memory, stream=recording, capture_error_mode="thread_local")
            with _clean_up_on_failure(), _separate_workspace(), capture:
                program()
            self._memory = graph.pool()
            self._graphs.add(graph)
        return graph.replay


def _warm_up(program: Program, side: Any) -> None:
    """Run a program once before its recording: loading the kernels, in their first call, cannot be recorded."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        program()
    current.wait_stream(side)


@contextmanager
def _separate_workspace() -> Iterator[None]:
    """Make cuBLAS allocate its workspace in the memory pool of the recording.

    torch keeps one cuBLAS workspace for each stream. A graph that was recorded with the workspace of another recorder
    would write to it while graphs of that recorder run, and after it is freed.
    """
    # There is no public function for this; torch.compile calls the same one around its recordings.
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)  # noqa: SLF001
    clear()
    try:
        yield
    finally:
        clear()


@contextmanager
def _clean_up_on_failure() -> Iterator[None]:
    """Restore the thread's current stream when a recording fails, and store the reason, so that no other is tried."""
    before = torch.cuda.current_stream()
    try:
        yield
    except BaseException as error:
        torch.cuda.set_stream(before)
        _failures.append(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise
