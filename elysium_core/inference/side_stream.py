"""Work on a GPU beside other work: vision for the next frame, while the language model reads this one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Take = Callable[[], Tensor]
"""Gives the result of some work to the stream that is current when it is called."""


class SideStream:
    """A queue of a GPU of its own; on a CPU, work is done when it is submitted.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]

    @property
    def runs_beside(self) -> bool:
        """Whether :meth:`submit` comes back before the work is done."""
        return self._stream is not None

    def submit(self, work: Callable[[], Tensor]) -> Take:
        """Start some work behind all that is queued on the current stream.

        Args:
            work: Queues the work on the stream that is current while it is called.
        """
        stream = self._stream
        if stream is None:
            result = work()
            return lambda: result
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            result = work()
            done = stream.record_event()

        def take() -> Tensor:
            # Its memory belongs to the side stream, which uses it again for later work alone, and later work begins
            # behind all that is queued here by then.
            torch.cuda.current_stream(self._device).wait_event(done)
            return result

        return take
