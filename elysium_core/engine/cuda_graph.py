"""Recording what a GPU does, to have it done again without Python: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch

Program = Callable[[], object]
"""Does something on a device; takes its input from memory that it knows and leaves its output in such."""

# Why recordings of this process have broken off: torch cannot be trusted to record any more after that.
_failures: list[str] = []


class CudaRecorder:
    """Turns programs into CUDA graphs.

    The graphs of one recorder share their working memory. So they must be run one at a
    time, and what they leave must lie outside of it: in tensors that were there before.
    Graphs of two recorders share nothing and may run side by side.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[Any, Any] | None = None
        self._graphs: WeakSet[Any] = WeakSet()
        self._memory: Any = None

    def __call__(self, program: Program) -> Program:
        """Run a program once, record it, and return what repeats it.

        Raises:
            RuntimeError: It does something that cannot be recorded, or a recording of this process has failed before.
        """
        if _failures:
            raise RuntimeError(f"an earlier recording failed: {_failures[0]}")
        with torch.cuda.device(self._device):
            # Streams of its own, made once. torch's default stream for recording belongs to the GPU that was first
            # recorded on; and what the libraries keep for each stream would be kept for each new one.
            self._streams = self._streams or (torch.cuda.Stream(), torch.cuda.Stream())  # type: ignore[no-untyped-call]
            settling, recording = self._streams
            _settle(program, settling)
            graph = torch.cuda.CUDAGraph()
            # The memory goes with the last graph that was recorded in it.
            memory = self._memory if len(self._graphs) else None
            # Other threads may use the GPU meanwhile, to encode an image for example.
            capture = torch.cuda.graph(graph, pool=memory, stream=recording, capture_error_mode="thread_local")
            with _whole_or_broken(), _own_workspace(), capture:
                program()
            self._memory = graph.pool()
            self._graphs.add(graph)
        return graph.replay


def _settle(program: Program, side: Any) -> None:
    """Libraries choose and load their kernels when these are first called, which cannot be recorded."""
    current = torch.cuda.current_stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        program()
    current.wait_stream(side)


@contextmanager
def _own_workspace() -> Iterator[None]:
    """Have cuBLAS take its working memory anew from the recording's own, and leave it there.

    torch keeps one for each stream. A graph that was recorded with that of another recorder would write into it
    while the other runs, and after it is freed.
    """
    # There is no public way; torch's own compiler does the same around its recordings.
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)  # noqa: SLF001
    clear()
    try:
        yield
    finally:
        clear()


@contextmanager
def _whole_or_broken() -> Iterator[None]:
    """Undo what torch leaves of a recording that fails: the thread on its stream; and try no more."""
    before = torch.cuda.current_stream()
    try:
        yield
    except BaseException as error:
        torch.cuda.set_stream(before)
        _failures.append(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise
