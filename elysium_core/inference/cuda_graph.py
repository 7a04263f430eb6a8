"""Recording what a GPU does, to have it done again without Python: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Program = Callable[[], object]
"""Does something on a device; takes its input from memory that it knows and leaves its output in such."""


class CudaRecorder:
    """Turns programs into CUDA graphs.

    The graphs of one recorder share their working memory. So they must be run one at a
    time, and what they leave must lie outside of it: in tensors that were there before.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory: Any = None

    def __call__(self, program: Program) -> Program:
        """Run a program once, record it, and return what repeats it.

        Raises:
            RuntimeError: It does something that cannot be recorded.
        """
        with torch.cuda.device(self._device):
            self._settle(program)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile, to encode an image for example.
            with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
                program()
            if self._memory is None:
                self._memory = graph.pool()
        return graph.replay

    def _settle(self, program: Program) -> None:
        """Libraries choose and load their kernels when these are first called, which cannot be recorded."""
        current = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            program()
        current.wait_stream(side)
