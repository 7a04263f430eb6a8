"""Executors and callback groups of the node, and its end on SIGINT and SIGTERM.

One thread runs the callbacks of the cameras and nothing else; a pool of threads runs all other callbacks. An executor
checks everything it serves after each callback: with services, actions, parameters and timers in the same executor, an
image waited for milliseconds. In a pool, each image is received by another thread, and each thread keeps heap memory.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

SERVICE_QOS = QoSProfile(depth=1000)
"""For services: rclpy's default of 10 loses the rest of a burst of calls without a word."""


class BoundedCallbackGroup(CallbackGroup):
    """Lets a fixed number of its callbacks run at the same time; the others wait in the middleware's queues.

    A service that waits for the model blocks a thread of the executor. Without a bound, a burst of such calls would
    hold all threads, and no image would be taken.

    Args:
        limit: Callbacks at the same time, >= 1.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._running = 0
        self._lock = threading.Lock()

    def can_execute(self, entity: Any) -> bool:
        """Whether another callback may run now."""
        with self._lock:
            return self._running < self._limit

    def beginning_execution(self, entity: Any) -> bool:
        """Take a place; false if there is none."""
        with self._lock:
            if self._running >= self._limit:
                return False
            self._running += 1
            return True

    def ending_execution(self, entity: Any) -> None:
        """Give the place back."""
        with self._lock:
            self._running -= 1


CAMERA_THREAD = "elysium_cameras"
"""Name of the thread that takes images."""

_JOIN_S = 1.0


class CameraGroup(MutuallyExclusiveCallbackGroup):
    """Group of callbacks that the camera thread runs. They must not wait for anything."""


class CameraExecutor(SingleThreadedExecutor):
    """Runs only callbacks of a :class:`CameraGroup`.

    The node belongs to another executor, the one that it wakes; that one passes the call on.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(context=node.context)
        self._node = node

    def get_nodes(self) -> list[Node]:
        """Return the node."""
        return [self._node]

    def can_execute(self, entity: Any) -> bool:
        """Whether a callback may run now."""
        return isinstance(entity.callback_group, CameraGroup) and bool(super().can_execute(entity))


class PoolExecutor(MultiThreadedExecutor):
    """Runs all other callbacks, in a pool of threads.

    Args:
        node: The node; it is added.
        threads: Callbacks at the same time.
    """

    def __init__(self, node: Node, threads: int) -> None:
        self.cameras = CameraExecutor(node)
        super().__init__(num_threads=threads, context=node.context)
        self.add_node(node)

    def can_execute(self, entity: Any) -> bool:
        """Whether a callback may run now."""
        return not isinstance(entity.callback_group, CameraGroup) and bool(super().can_execute(entity))

    def wake(self) -> None:
        """Look again at what there is; the node calls this when it subscribes to a camera."""
        super().wake()
        self.cameras.wake()


def spin(executor: PoolExecutor, report: Callable[[Exception], object]) -> None:
    """Run the node's callbacks until its context is shut down.

    Args:
        executor: The executor of the node.
        report: Called with each exception of a callback; the callbacks go on.
    """
    # A daemon, like the inference thread: what hangs in the middleware must not keep the process alive.
    thread = threading.Thread(target=_spin, args=(executor.cameras, report), name=CAMERA_THREAD, daemon=True)
    thread.start()
    _spin(executor, report)
    thread.join(_JOIN_S)


def _spin(executor: SingleThreadedExecutor | MultiThreadedExecutor, report: Callable[[Exception], object]) -> None:
    while executor.context.ok():
        try:
            executor.spin_once()
        except ExternalShutdownException:
            return
        except InvalidHandle:
            # A subscription was destroyed by another thread while the executor was waiting for it.
            continue
        except Exception as error:  # noqa: BLE001 - such as a reply to a client that has gone
            # What fails because all is being taken down is of no interest.
            if executor.context.ok():
                report(error)


NO_HANDLERS = SignalHandlerOptions.NO
"""For ``rclpy.init``: no signal handlers of rclpy before :meth:`SignalGate.open` installs them."""


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
