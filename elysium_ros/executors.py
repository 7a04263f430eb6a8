"""How the callbacks of the tracker node are run: images by a thread of their own, everything else by a pool.

An executor looks at all that it serves again after every callback, which takes longer the more there is: services,
actions, parameters and timers made an image wait for milliseconds. And a pool takes each image in another of its
threads, whose share of the heap keeps what the picture has left behind. A thread that serves nothing but cameras does
neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

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
    """Run the node's callbacks until the process is told to end.

    Args:
        executor: The executor of the node.
        report: Hears of exceptions, which end nothing.
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
