"""Serves the page of a tracker node: ``ros2 run elysium_ros viewer_node``, or ``viewer:=true`` in the launch files.

It is a process of its own, so the tracker does not wait for a browser. The topic ``image`` is remapped as that of the
tracker. The token is not a parameter, because everyone on the network can read those: it comes from the environment
variable ``ELYSIUM_VIEWER_TOKEN``, or is made and logged.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidHandle, InvalidTopicNameException, ParameterException
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from elysium_core.errors import ConfigError, ElysiumError, packages_needed
from elysium_core.viewer.access import DEFAULT_HOST, DEFAULT_PORT, Access
from elysium_ros.node.executors import NO_HANDLERS
from elysium_ros.node.parameter_spec import Change, Spec
from elysium_ros.viewer.node_backend import NodeBackend

_TRANSPORTS = ("raw", "compressed", "auto")


def _spec(name: str, default: Any, description: str, limits: tuple[float, float] | None = None) -> Spec:
    choices = _TRANSPORTS if name == "image_transport" else ()
    return Spec(name, name, default, Change.READ_ONLY, description, limits, choices, "")


VIEWER_SPECS = {
    spec.name: spec
    for spec in (
        _spec("tracker", "elysium", "Name of the tracker node; with its namespace if it begins with a slash."),
        _spec("cameras", ("",), "Names of its cameras, as in the parameter of the tracker."),
        _spec("image_transport", "auto", "How images come here; auto prefers those that are compressed already."),
        _spec("host", DEFAULT_HOST, "Address to listen on; 0.0.0.0 = all networks, then with a token."),
        _spec("port", DEFAULT_PORT, "Port of the page; 0 = any that is free.", (0, 65535)),
    )
}


class ViewerNode(Node):
    """The node around a :class:`NodeBackend`.

    Attributes:
        backend: What the page shows.
        access: Who may look.
        port: The port that is asked for.

    Raises:
        ConfigError: A parameter or the token cannot be used.
    """

    def __init__(self) -> None:
        super().__init__("viewer")
        values = {name: _declare(self, spec) for name, spec in VIEWER_SPECS.items()}
        self.access = Access.choose(values["host"], os.environ)
        self.port: int = values["port"]
        tracker = values["tracker"]
        name = tracker if tracker.startswith("/") else f"{self.get_namespace().rstrip('/')}/{tracker}"
        _check_names(name, values["cameras"])
        self.backend = NodeBackend(self, name, values["cameras"], values["image_transport"])

    def announce(self, port: int) -> None:
        """Log the address of the page."""
        self.get_logger().info(f"open {self.access.address(port)}")


def _declare(node: Node, spec: Spec) -> Any:
    descriptor = ParameterDescriptor(description=spec.description, read_only=True, dynamic_typing=True)
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    return spec.coerce(node.declare_parameter(spec.name, default, descriptor).value)


def _check_names(tracker: str, cameras: Sequence[str]) -> None:
    if not cameras:
        raise ConfigError("cameras is empty; leave it out for one camera without a name")
    for camera in cameras:
        try:
            validate_full_topic_name(f"{tracker}/{camera}/objects" if camera else f"{tracker}/objects")
        except InvalidTopicNameException as error:
            named = f"camera {camera!r}" if camera else f"tracker {tracker!r}"
            raise ConfigError(f"{named} cannot be a name in ROS; use letters, digits, _ and, for nodes, /") from error


def main(args: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        args: Command line without the program's name; that of the process if omitted.

    Returns:
        The exit code: 0, or 2 for a bad parameter, token or port.
    """
    rclpy.init(args=None if args is None else list(args), signal_handler_options=NO_HANDLERS)
    executor = SingleThreadedExecutor()
    thread: threading.Thread | None = None
    try:
        with packages_needed():
            from elysium_core.viewer.server import serve

        node = ViewerNode()
        executor.add_node(node)
        thread = threading.Thread(target=_spin, args=(executor, node), name="viewer_spin", daemon=True)
        thread.start()
        serve(node.backend, node.access, node.port, node.announce)
    except (ElysiumError, ParameterException) as error:
        sys.stderr.write(f"viewer_node: {error}\n")
        return 2
    finally:
        executor.shutdown(timeout_sec=1.0)
        if thread is not None:
            thread.join(2.0)
        rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor, node: Node) -> None:
    while executor.context.ok():
        try:
            executor.spin_once()
        except (ExternalShutdownException, ShutdownException):
            return
        except InvalidHandle:
            # A subscription was destroyed, because nobody looks any more, while the executor was waiting for it.
            continue
        except Exception as error:  # noqa: BLE001 - a message that cannot be used must not end the others
            if executor.context.ok():
                node.get_logger().error(f"a message was not used: {error}", throttle_duration_sec=5.0)


if __name__ == "__main__":
    sys.exit(main())
