"""The services and the topic of a managed node's lifecycle, with queues that keep a burst of calls.

rclpy's own have queues of ten, which nothing can change, and lose the rest of a burst without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lifecycle_msgs.msg import State, Transition, TransitionDescription, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from elysium_ros.node.executors import SERVICE_QOS

_EVENT_QOS = QoSProfile(depth=10)

_Edge = tuple[int, str, int, str, int, str]


class AnnouncedStateMachine:
    """The state machine of a node, which publishes each change of its state on ``~/transition_event``.

    Everything else is that of rclpy's state machine. After the node was destroyed, which may happen while a callback
    still runs, it raises ``InvalidHandle``; rclpy's would end the process by a segmentation fault.

    Args:
        node: The node.
        machine: Its state machine, without communication of its own.
    """

    def __init__(self, node: Node, machine: Any) -> None:
        self._machine = machine
        self._publisher = node.create_publisher(TransitionEvent, "~/transition_event", _EVENT_QOS)
        self._clock = node.get_clock()

    def __getattr__(self, name: str) -> Any:
        with self._machine:
            return getattr(self._machine, name)

    def trigger_transition_by_id(self, transition_id: int, publish: bool) -> None:
        """Change the state; see rclpy."""
        self._announce(lambda: self._machine.trigger_transition_by_id(transition_id, False))

    def trigger_transition_by_label(self, label: str, publish: bool) -> None:
        """Change the state; see rclpy."""
        self._announce(lambda: self._machine.trigger_transition_by_label(label, False))

    def _announce(self, change: Callable[[], None]) -> None:
        with self._machine:
            before, edges = self._machine.current_state, list(self._machine.available_transitions)
            change()
            after = self._machine.current_state
        transition = next((_edge(e).transition for e in edges if e[4] == after[0]), Transition())
        self._publisher.publish(
            TransitionEvent(
                timestamp=self._clock.now().nanoseconds,
                transition=transition,
                start_state=_state(before),
                goal_state=_state(after),
            )
        )


def create_services(
    node: Node,
    machine: Any,
    change_state: Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response],
    group: CallbackGroup,
) -> None:
    """Create the five services of the lifecycle on a node.

    Args:
        node: The node.
        machine: Its state machine.
        change_state: Answers ``~/change_state``.
        group: Group of the callbacks.
    """

    def get_state(_: GetState.Request, response: GetState.Response) -> GetState.Response:
        response.current_state = _state(machine.current_state)
        return response

    def get_states(_: Any, response: GetAvailableStates.Response) -> GetAvailableStates.Response:
        response.available_states = [_state(state) for state in machine.available_states]
        return response

    def get_transitions(_: Any, response: GetAvailableTransitions.Response) -> GetAvailableTransitions.Response:
        response.available_transitions = _edges(machine.available_transitions)
        return response

    def get_graph(_: Any, response: GetAvailableTransitions.Response) -> GetAvailableTransitions.Response:
        response.available_transitions = _edges(machine.transition_graph)
        return response

    for service_type, name, callback in (
        (ChangeState, "change_state", change_state),
        (GetState, "get_state", get_state),
        (GetAvailableStates, "get_available_states", get_states),
        (GetAvailableTransitions, "get_available_transitions", get_transitions),
        (GetAvailableTransitions, "get_transition_graph", get_graph),
    ):
        node.create_service(service_type, f"~/{name}", callback, qos_profile=SERVICE_QOS, callback_group=group)


def _state(state: tuple[int, str]) -> State:
    return State(id=state[0], label=state[1])


def _edges(edges: Iterable[_Edge]) -> list[TransitionDescription]:
    return [_edge(edge) for edge in edges]


def _edge(edge: _Edge) -> TransitionDescription:
    number, label, start_id, start_label, goal_id, goal_label = edge
    return TransitionDescription(
        transition=Transition(id=number, label=label),
        start_state=State(id=start_id, label=start_label),
        goal_state=State(id=goal_id, label=goal_label),
    )
