"""A managed node whose lifecycle services always answer.

rclpy's own ``LifecycleNode`` raises on a transition that is not possible now, which ends the process or loses the
reply; it answers nothing while a transition runs; it swallows the exception of a transition; and its services lose a
burst of calls. This class keeps its state machine and repairs these four.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from elysium_core.errors import ElysiumError
from elysium_ros.node.guard import EventLog, Guard
from elysium_ros.node.lifecycle_services import AnnouncedStateMachine, create_services

Step = Callable[[], None]

# The transitions that may be asked for; the state machine has others, for the outcome of these.
_REQUESTS: Final = ("configure", "activate", "deactivate", "cleanup", "shutdown")

EXIT_RESTART = 75
"""Exit code of a process that cannot go on but can be started again (EX_TEMPFAIL of sysexits.h)."""

GREETING = "none"
"""Label of a transition that does not exist: a client's first request, which makes the service discover it."""


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node; a subclass overrides :meth:`configure`, :meth:`activate`, :meth:`deactivate`, :meth:`cleanup`.

    Each of the four raises an exception to say that the transition failed, and why.

    Attributes:
        events: Counts and logs events by code.
        guard: Wraps callbacks.
        failure: Why the last transition failed, starting with a code; empty if it did not.
        exit_code: What the process should end with.

    Args:
        name: Default name of the node.
        options: Further arguments of ``rclpy.node.Node``.
    """

    def __init__(self, name: str, **options: Any) -> None:
        Node.__init__(self, name, **options)
        LifecycleNodeMixin.__init__(self, enable_communication_interface=False)
        machine: Any = vars(self)["_state_machine"]
        self._state_machine: Any = AnnouncedStateMachine(self, machine)
        self.events = EventLog(self.get_logger())
        self.guard = Guard(self.events, is_shutting_down=lambda: self.is_shutting_down)
        self.failure = ""
        self.exit_code = 0
        self._transition_lock = threading.Lock()
        change_state = self.guard.service(self._change_state, _refuse_transition)
        create_services(self, self._state_machine, change_state, ReentrantCallbackGroup())

    @property
    def state(self) -> str:
        """Present lifecycle state, such as ``active`` or ``configuring``."""
        return str(self._state_machine.current_state[1])

    @property
    def is_shutting_down(self) -> bool:
        """Whether the process is ending; nobody waits for an answer then."""
        return not self.context.ok()

    @property
    def namesakes(self) -> int:
        """How many other nodes have the same name and namespace: callers would reach any one of them."""
        own = (self.get_name(), self.get_namespace())
        names: list[tuple[str, str]] = self.get_node_names_and_namespaces()
        return max(0, names.count(own) - 1)

    def destroy_node(self) -> None:
        """Take the node down, and with it the participant in DDS, whose last user is the state machine."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def give_up(self, reason: str) -> None:
        """End the process with the exit code that asks for a restart.

        Args:
            reason: One sentence for the log.
        """
        if self.exit_code:
            return
        self.get_logger().fatal(f"{reason}; the node ends (respawn:=true of the launch file starts it again)")
        self.exit_code = EXIT_RESTART
        rclpy.try_shutdown(context=self.context)

    def why_inactive(self) -> str:
        """Say for a caller why the node cannot do anything now, and what to do."""
        state = self.state
        if state not in ("unconfigured", "inactive"):
            return f"the node is {state}; try again later"
        step = "activate" if state == "inactive" else "configure"
        return f"the node is {state}" + (f" ({self.failure})" if self.failure else f"; {step} it first")

    def configure(self) -> None:
        """Prepare: check parameters, load the model."""

    def activate(self) -> None:
        """Start to work."""

    def deactivate(self) -> None:
        """Stop working; everything can be started again."""

    def cleanup(self) -> None:
        """Free all that :meth:`configure` took; called in any state, also after a failure."""

    def start_by_itself(self) -> None:
        """Configure and activate, unless someone else has begun to."""
        with self._transition_lock:
            if self.state != "unconfigured":
                return
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`configure`; see rclpy."""
        return self._run("configure", self.configure, undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`activate`; see rclpy."""
        return self._run("activate", self.activate, undo=self.deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`deactivate`; see rclpy."""
        return self._run("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run :meth:`cleanup`; see rclpy."""
        return self._run("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; see rclpy."""
        return self._run("shut down", self._free)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again; see rclpy."""
        reason = self.failure
        result = self._run("recover", self._free)
        self.failure = reason
        return result

    def _run(self, verb: str, step: Step, undo: Step | None = None) -> TransitionCallbackReturn:
        self.failure = ""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - rclpy would swallow it
            self.failure = self.guard.explain(error)
            if not self.is_shutting_down:
                self.get_logger().error(f"cannot {verb}: {self.failure}")
            if undo is not None:
                self.guard.callback(undo)()
            expected = isinstance(error, ElysiumError)
            return TransitionCallbackReturn.FAILURE if expected else TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _free(self) -> None:
        self.deactivate()
        self.cleanup()

    def _change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        """Refuse a transition that is not possible now, or while another one runs."""
        if not self._transition_lock.acquire(blocking=False):
            return self._refuse(request, response, f"the node is {self.state}")
        try:
            transition = self._find_transition(request.transition)
            if transition is None:
                return self._refuse(request, response, f"that is not possible while it is {self.state}")
            response.success = getattr(self, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
            return response
        finally:
            self._transition_lock.release()

    def _find_transition(self, wanted: Transition) -> str | None:
        """Return the name of a transition that is possible now, None if it is not; a label goes before an id."""
        for number, label, *_ in self._state_machine.available_transitions:
            if label in _REQUESTS and (label == wanted.label if wanted.label else number == wanted.id):
                return str(label)
        return None

    def _refuse(self, request: ChangeState.Request, response: ChangeState.Response, why: str) -> ChangeState.Response:
        if request.transition.label != GREETING:
            wanted = _transition_name(request.transition)
            self.events.report("TRANSITION", f"asked to change state by {wanted}, but {why}")
        response.success = False
        return response


def _transition_name(transition: Transition) -> str:
    return repr(transition.label) if transition.label else f"transition {transition.id}"


def _refuse_transition(response: ChangeState.Response, _: str) -> None:
    response.success = False
