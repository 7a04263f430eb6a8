"""A node ends cleanly on SIGINT and SIGTERM, at whatever moment they come."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

NO_HANDLERS = SignalHandlerOptions.NO
"""For ``rclpy.init``, so that rclpy hears of signals only from :meth:`SignalGate.open` on."""


class SignalGate:
    """Notes signals while a node is being made, and hands them to rclpy afterwards.

    On a signal rclpy makes its context unusable from another thread, and Python raises ``KeyboardInterrupt`` wherever
    it is. What is half made at that moment fails in one of many ways, some of them in destructors, which nobody can
    catch.

    Make it in the main thread, first of all. Further signals, also those during the clean-up, disturb nothing.
    """

    def __init__(self) -> None:
        self._is_noted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def open(self) -> bool:
        """Have rclpy end on a signal from now on; return whether none has come so far."""
        install_signal_handlers(SignalHandlerOptions.ALL)
        return not self._is_noted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_noted = True


@contextmanager
def ends_with_rclpy() -> Iterator[None]:
    """Leave the block when the context is shut down, which rclpy reports in more than one way."""
    try:
        yield
    except ExternalShutdownException:
        pass
    except RCLError:
        # A signal that arrives while rclpy prepares to wait ends in this error instead of the one above.
        if rclpy.ok():
            raise
