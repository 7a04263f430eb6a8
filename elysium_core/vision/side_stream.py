"""Work on the GPU beside the language model, such as the encoding of the next image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


class SideStream:
    """A second CUDA stream for work in parallel; on a CPU, work is done at once.

    Args:
        device: Device of the work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]

    @property
    def runs_beside(self) -> bool:
        """Whether :meth:`submit` returns before the work is done."""
        return self._stream is not None

    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Start work that waits for everything queued on the current stream so far.

        Args:
            work: Queues the work on the CUDA stream that is current during its call.

        Returns:
            A function that returns the result and makes the current stream wait for it.
        """
        stream = self._stream
        if stream is None:
            result = work()
            return lambda: result
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            result = work()
            done = stream.record_event()

        def take() -> Result:
            # Only later work of the side stream can reuse the memory of the result. That work waits for everything that
            # is queued on the current stream by then, so the result is not overwritten too early.
            torch.cuda.current_stream(self._device).wait_event(done)
            return result

        return take
