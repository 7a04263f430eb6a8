"""Calls one tracker node from Python: each method is a service call that waits, with a deadline, for its answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from elysium_core.errors import ConfigError, ElysiumError
from elysium_ros.msg import Box2D
from elysium_ros.node.lifecycle import GREETING
from elysium_ros.srv import Describe, Ground, StopTracking, Track

TRANSITIONS: dict[str, int] = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}
"""Lifecycle transitions that can be asked for by name."""

STATES = ("unconfigured", "inactive", "active", "finalized")
"""Lifecycle states in which a node can stay."""

_POLL_S = 0.005
_STATE_POLL_S = 0.2
# What the service itself takes as "0 = 30 s", plus the way there and back.
_MODEL_TIMEOUT_S = 35.0


# The first reply to a new client can be lost: the service may not have discovered the client yet. What changes nothing,
# or nothing more when it is done twice, is asked again until there is an answer: the former soon at first, then less
# and less often; the latter only when its answer can hardly be under way any more.
_REPEATS_S = (0.25, 0.5, 1.0, 2.0)
_REPEATABLE = frozenset({"get_state", "pause", "reset"})
_CHANGES_NOTHING = frozenset({"get_state"})
# The node refuses these at once and does nothing. They are asked before the first request that must not be done twice.
_GREETINGS: dict[str, Any] = {
    "track": Track.Request(wait_timeout=-1.0),
    "stop": StopTracking.Request(id=2**32 - 1),
    "describe": Describe.Request(timeout=-1.0),
    "ground": Ground.Request(timeout=-1.0),
    "change_state": ChangeState.Request(transition=Transition(label=GREETING)),
}


class NoAnswerError(ElysiumError):
    """A service, a topic or a state did not appear in time."""

    code = "NO_ANSWER"


def wait_until(
    condition: Callable[[], bool],
    timeout_s: float,
    complaint: str,
    remedy: str = "",
    check: Callable[[], None] = lambda: None,
) -> None:
    """Poll until ``condition`` holds.

    Args:
        condition: Cheap and free of side effects.
        timeout_s: Longest wait [s].
        complaint: What to say when it does not hold in time; "within N s" is appended.
        remedy: What to do about it.
        check: Called while waiting; raises when there is no use in waiting longer.

    Raises:
        NoAnswerError: It did not hold in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        check()
        if time.monotonic() > deadline_s:
            raise NoAnswerError(f"{complaint} within {timeout_s:g} s{'; ' if remedy else ''}{remedy}")
        time.sleep(_POLL_S)


class TrackerClient:
    """The services of a tracker node as methods.

    The node handed in must be spinning in another thread: see :func:`spinning`.

    Args:
        node: What the clients are made on.
        tracker: Name of the tracker node, with its namespace.
        timeout_s: How long to wait for a service to appear, and for quick answers [s].
        check: Called while waiting; raises when there is no use in waiting longer.
    """

    def __init__(
        self,
        node: Node,
        tracker: str = "elysium",
        timeout_s: float = 10.0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.tracker = tracker if tracker.startswith("/") else f"/{tracker}"
        self._node = node
        self._timeout_s = timeout_s
        self._check = check
        # A client that lives long cannot lose a reply to discovery, so each is made once.
        self._clients: dict[str, Any] = {}
        self._met: set[str] = set()

    def track(
        self,
        expression: str = "",
        box: Box2D | None = None,
        *,
        box_stamp: Time | None = None,
        camera: str = "",
        add: bool = False,
        wait_s: float = 0.0,
    ) -> Track.Response:
        """Start following; ``srv/Track`` says what each argument means."""
        request = Track.Request(expression=expression, camera=camera, add=add, wait_timeout=float(wait_s))
        request.box = box or Box2D()
        request.box_stamp = box_stamp or Time()
        return self.call(Track, "track", request, wait_s + self._timeout_s)

    def stop(self, target_id: int = 0, camera: str = "") -> StopTracking.Response:
        """Stop one target, or with 0 all of them."""
        return self.call(StopTracking, "stop", StopTracking.Request(id=target_id, camera=camera))

    def describe(
        self,
        target_id: int = 0,
        box: Box2D | None = None,
        *,
        question: str = "",
        camera: str = "",
        timeout_s: float = 0.0,
    ) -> Describe.Response:
        """Ask for a text; ``srv/Describe`` says what each argument means."""
        request = Describe.Request(id=target_id, question=question, camera=camera, timeout=float(timeout_s))
        request.box = box or Box2D()
        return self.call(Describe, "describe", request, (timeout_s or _MODEL_TIMEOUT_S) + self._timeout_s)

    def ground(
        self, expression: str, image: Image | None = None, *, camera: str = "", timeout_s: float = 0.0
    ) -> Ground.Response:
        """Find words in one image, by default the newest of the camera."""
        request = Ground.Request(expression=expression, camera=camera, timeout=float(timeout_s))
        request.image = image or Image()
        return self.call(Ground, "ground", request, (timeout_s or _MODEL_TIMEOUT_S) + self._timeout_s)

    def pause(self, paused: bool) -> SetBool.Response:
        """Stop inference but keep the model and the targets, or go on."""
        return self.call(SetBool, "pause", SetBool.Request(data=paused))

    def reset(self) -> Trigger.Response:
        """Drop all buffers and targets."""
        return self.call(Trigger, "reset", Trigger.Request())

    def lifecycle_state(self) -> str:
        """Return the lifecycle state, such as ``active``."""
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def wait_for_state(self, state: str, timeout_s: float) -> None:
        """Wait until the node is in a lifecycle state; loading a model can take long.

        Args:
            state: One of :data:`STATES`.
            timeout_s: Longest wait [s], also for a node that is not there yet.

        Raises:
            NoAnswerError: It was not in that state in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while (present := self.lifecycle_state()) != state:
            if time.monotonic() > deadline_s:
                raise NoAnswerError(f"{self.tracker} was not {state} within {timeout_s:g} s, it is {present}")
            time.sleep(_STATE_POLL_S)

    def change_state(self, transition: str, timeout_s: float = 120.0) -> bool:
        """Ask for a lifecycle transition; return whether it succeeded.

        Args:
            transition: One of :data:`TRANSITIONS`.
            timeout_s: Loading a model can take long [s].

        Raises:
            ConfigError: There is no such transition.
        """
        if transition not in TRANSITIONS:
            raise ConfigError(f"there is no lifecycle transition {transition!r}; use one of {', '.join(TRANSITIONS)}")
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        return bool(self.call(ChangeState, "change_state", request, timeout_s).success)

    def call(self, service_type: Any, name: str, request: Any, timeout_s: float = 0.0) -> Any:
        """Call any service of the node.

        Args:
            service_type: Class of the service.
            name: Name below the node's own.
            request: The request.
            timeout_s: Longest wait for the answer [s]; 0 = the client's own.

        Raises:
            NoAnswerError: The service is not there, or does not answer in time.
        """
        full_name = f"{self.tracker}/{name}"
        client = self._clients.get(name) or self._node.create_client(service_type, full_name)
        self._clients[name] = client
        remedy = "is the node running, under this name and in this ROS_DOMAIN_ID?"
        complaint = f"there was no service {full_name}"
        wait_until(client.service_is_ready, self._timeout_s, complaint, remedy, self._check)
        if name in _REPEATABLE:
            repeats_s = _REPEATS_S if name in _CHANGES_NOTHING else _REPEATS_S[-1:]
            return self._ask_until_answered(client, full_name, request, timeout_s or self._timeout_s, repeats_s)
        if name in _GREETINGS and name not in self._met:
            self._ask_until_answered(client, full_name, _GREETINGS[name], self._timeout_s, _REPEATS_S)
            self._met.add(name)
        return self._ask(client, full_name, request, timeout_s or self._timeout_s)

    def _ask_until_answered(
        self, client: Any, full_name: str, request: Any, timeout_s: float, repeats_s: Sequence[float]
    ) -> Any:
        """Send a request again and again; see :data:`_REPEATABLE`."""
        deadline_s = time.monotonic() + timeout_s
        waits_s = chain(repeats_s, repeat(repeats_s[-1]))
        while (left_s := deadline_s - time.monotonic()) > (repeat_s := next(waits_s)):
            try:
                return self._ask(client, full_name, request, repeat_s)
            except NoAnswerError:
                continue
        try:
            return self._ask(client, full_name, request, max(0.0, left_s))
        except NoAnswerError:
            raise NoAnswerError(f"service {full_name} did not answer within {timeout_s:g} s") from None

    def _ask(self, client: Any, full_name: str, request: Any, timeout_s: float) -> Any:
        future = client.call_async(request)
        try:
            wait_until(future.done, timeout_s, f"service {full_name} did not answer", check=self._check)
        finally:
            client.remove_pending_request(future)
        return future.result()


@contextmanager
def spinning(name: str, domain_id: int | None = None) -> Iterator[Node]:
    """Make a node in a separate context that spins in a thread until the block ends.

    Args:
        name: Name of the node.
        domain_id: ROS domain; that of the environment if omitted.
    """
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain_id)
    node = Node(name, context=context, enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, name=f"{name}_spin", daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=2.0)
        thread.join(timeout=5.0)
        node.destroy_node()
        rclpy.try_shutdown(context=context)
