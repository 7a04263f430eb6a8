"""Declares the parameters on a node and keeps :class:`Settings` up to date."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from elysium_core.errors import ConfigError, ElysiumError
from elysium_ros.node.load_parameters import ALIASES
from elysium_ros.node.parameter_spec import Change, Spec
from elysium_ros.node.parameters import GUARDED, SPECS, Settings

_VALUE_TYPES = {kind.value for kind in Parameter.Type}
_STANDARD_PREFIXES = ("qos_overrides.", "use_sim_time", "start_type_description_service")


def answer_every_request(node: Node) -> None:
    """Have ``~/set_parameters`` refuse a parameter of an unknown type, where rclpy raises and never replies.

    The services also take the other names of parameters (:data:`elysium_ros.node.parameters.ALIASES`).

    Args:
        node: A node with parameter services.
    """
    for service in node.services:
        if service.srv_type is SetParameters:
            service.callback = partial(_set_parameters, service.callback)
        elif service.srv_type is SetParametersAtomically:
            service.callback = partial(_set_parameters_atomically, service.callback)
        elif service.srv_type is GetParameters:
            service.callback = partial(_get_parameters, service.callback)


def _get_parameters(
    callback: Callable[..., Any], request: GetParameters.Request, response: GetParameters.Response
) -> GetParameters.Response:
    request.names = [ALIASES.get(name, name) for name in request.names]
    return cast("GetParameters.Response", callback(request, response))


def _set_parameters(
    callback: Callable[..., Any], request: SetParameters.Request, response: SetParameters.Response
) -> SetParameters.Response:
    for message in request.parameters:
        message.name = ALIASES.get(message.name, message.name)
        if message.value.type in _VALUE_TYPES:
            single = callback(SetParameters.Request(parameters=[message]), SetParameters.Response())
            response.results += single.results
        else:
            response.results.append(_refused(message))
    return response


def _set_parameters_atomically(
    callback: Callable[..., Any], request: SetParametersAtomically.Request, response: SetParametersAtomically.Response
) -> SetParametersAtomically.Response:
    for message in request.parameters:
        message.name = ALIASES.get(message.name, message.name)
    unknown = [parameter for parameter in request.parameters if parameter.value.type not in _VALUE_TYPES]
    if not unknown:
        return cast("SetParametersAtomically.Response", callback(request, response))
    response.result = _refused(unknown[0])
    return response


def _refused(parameter: ParameterMessage) -> SetParametersResult:
    reason = f"{parameter.name!r} has a value of the type {parameter.value.type}, which ROS does not have"
    return SetParametersResult(successful=False, reason=reason)


class ParameterServer:
    """The parameters of one node.

    A value from a parameter file that cannot be used does not stop the node from starting: it is kept in
    :attr:`problems`, the parameter takes its default, and configuring fails with the reason until it is set right.

    Args:
        node: The node to declare on.
        is_active: Whether the node is active now, for parameters that cannot change then.
        on_change: Called with the new settings and the ROS names that changed, after they were accepted.
        check: Called with the same before; raises an ``ElysiumError`` to refuse them.
    """

    def __init__(
        self,
        node: Node,
        is_active: Callable[[], bool],
        on_change: Callable[[Settings, set[str]], None],
        check: Callable[[Settings, set[str]], None] = lambda *_: None,
    ) -> None:
        self._is_active = is_active
        self._on_change = on_change
        self._check = check
        self.problems: dict[str, str] = _unknown_overrides(node)
        accepted = {spec.name: _declare(node, spec, self.problems) for spec in SPECS.values()}
        try:
            self.settings = Settings.from_values(accepted)
        except ConfigError as error:
            # Each value is fine alone but not together with the others, so no single default would mend it.
            # Whether to start by itself holds all the same, or a lifecycle manager finds the node configuring.
            self.settings = Settings(autostart=accepted["autostart"])
            self.problems["*"] = str(error)
        node.add_on_set_parameters_callback(self._on_set)
        answer_every_request(node)
        self._node = node

    def check(self) -> None:
        """Raise if a value that was given at the start could not be used.

        Raises:
            ConfigError: Names all of them.
        """
        if self.problems:
            raise ConfigError("; ".join(self.problems.values()))

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        ours = {p.name: p.value for p in parameters if p.name in SPECS}
        if not ours:
            return SetParametersResult(successful=True)
        try:
            settings, changed = self._checked(ours)
            self._check(settings, changed)
        except ElysiumError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.settings = settings
        self.problems = {k: v for k, v in self.problems.items() if k not in ours and k != "*"}
        self._on_change(settings, changed)
        return SetParametersResult(successful=True)

    def _checked(self, ours: dict[str, Any]) -> tuple[Settings, set[str]]:
        now = self._current_values()
        settings = Settings.from_values({**now, **ours})
        changed = {name for name, value in settings.values().items() if now[name] != value}
        fixed = sorted(name for name in changed if SPECS[name].change is Change.INACTIVE)
        if fixed and self._is_active():
            raise ConfigError(f"{', '.join(fixed)} can only be set while the node is not active; deactivate it first")
        guarded = sorted(changed & {*GUARDED})
        if guarded and not settings.allow_model_change:
            raise ConfigError(
                f"{', '.join(guarded)} can only be set when the node is started; "
                "start it with allow_model_change:=true to accept them at run time"
            )
        return settings, changed

    def _current_values(self) -> dict[str, Any]:
        # What the node holds rather than self.settings: they differ while a combination is refused.
        return {name: SPECS[name].coerce(self._node.get_parameter(name).value) for name in SPECS}


def _declare(node: Node, spec: Spec, problems: dict[str, str]) -> Any:
    """Declare a parameter and return its value; one that cannot be used is noted among the problems."""
    try:
        value = _given_once(node, spec)
        value = spec.default if value is None else spec.coerce(value)
    except ConfigError as error:
        problems[spec.name] = str(error)
        value = spec.default
    node.declare_parameter(spec.name, _to_ros(value), _descriptor(spec), ignore_override=True)
    return value


def _given_once(node: Node, spec: Spec) -> Any:
    """Return the value that is given by the parameter's name or another name of it; None if there is none."""
    names = [spec.name, *(alias for alias, name in ALIASES.items() if name == spec.name)]
    given = {name: value for name in names if (value := _given_value(node, name)) is not None}
    first, *others = given or [""]
    for other in others:
        if given[other] != given[first]:
            raise ConfigError(f"{first} = {given[first]!r} and {other} = {given[other]!r} are the same parameter")
    return given.get(first)


def _given_value(node: Node, name: str) -> Any:
    """Return the value from a parameter file or the command line, of any type; None if there is none."""
    try:
        return node.declare_parameter(name, descriptor=ParameterDescriptor(dynamic_typing=True)).value
    except ParameterException:
        return None
    finally:
        if node.has_parameter(name):
            node.undeclare_parameter(name)


def _unknown_overrides(node: Node) -> dict[str, str]:
    """Find values given for parameters that do not exist; rclpy has no public way to list them."""
    given = getattr(node, "_parameter_overrides", {})
    unknown = [name for name in given if name not in {*SPECS, *ALIASES} and not name.startswith(_STANDARD_PREFIXES)]
    return {name: _unknown(name) for name in unknown}


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, SPECS, n=1)
    return f"there is no parameter {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(spec: Spec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.description, read_only=spec.change is Change.READ_ONLY)
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    if spec.change is Change.INACTIVE:
        descriptor.additional_constraints += "; only while the node is not active"
        descriptor.additional_constraints = descriptor.additional_constraints.removeprefix("; ")
    if spec.limits is not None and isinstance(spec.default, int):
        low, high = (int(limit) for limit in spec.limits)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    elif spec.limits is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=spec.limits[0], to_value=spec.limits[1])]
    return descriptor
