"""Breaks in a long computation, in which other work of the same thread is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Breaks:
    """The places in a computation where it can be interrupted: between images, and between forward passes.

    A call is one such place. It does nothing unless somebody wants breaks. What runs in a break takes none itself.
    """

    def __init__(self) -> None:
        self._other: Callable[[], object] | None = None

    @property
    def are_wanted(self) -> bool:
        """Whether a call does anything; then work is cut into small parts."""
        return self._other is not None

    @contextmanager
    def given_to(self, other: Callable[[], object]) -> Iterator[None]:
        """Call ``other`` at every break inside the block. What it raises ends the computation."""
        before, self._other = self._other, other
        try:
            yield
        finally:
            self._other = before

    def __call__(self) -> None:
        """Take a break."""
        other = self._other
        if other is None:
            return
        self._other = None
        try:
            # The computation is in inference mode, in which other work would not expect to be.
            with torch.inference_mode(mode=False):
                other()
        finally:
            self._other = other
