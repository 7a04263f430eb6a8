"""One ROS parameter: its name, default, range, and when it may change. Imports no ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from elysium_core.errors import ConfigError


class Change(Enum):
    """When a parameter may be set."""

    ANY_TIME = "D"
    INACTIVE = "I"
    READ_ONLY = "R"


@dataclass(frozen=True, slots=True)
class Spec:
    """What the table says about one parameter.

    Attributes:
        name: ROS name, such as ``tracking.lost_after``.
        attribute: Where its value is in the dataclass of settings, such as ``lost_after_s`` or ``load.device``.
        default: Default value; its type is the parameter's type (a tuple is a string array).
        change: When it may be set.
        description: One sentence for ``ros2 param describe`` and the reference page.
        limits: Smallest and largest value of a number, both allowed.
        choices: Allowed values of a text.
        unit: Unit of a number, empty for a count or a ratio.
    """

    name: str
    attribute: str
    default: Any
    change: Change
    description: str
    limits: tuple[float, float] | None
    choices: tuple[str, ...]
    unit: str

    def coerce(self, value: object) -> Any:
        """Return ``value`` as this parameter stores it.

        A whole number is taken for a real one, a list for a string array.

        Raises:
            ConfigError: Wrong type, not finite, out of range, or not one of the choices.
        """
        typed = self._as_type(value)
        if self.limits is not None:
            low, high = self.limits
            if not math.isfinite(typed) or not low <= typed <= high:
                raise ConfigError(f"{self.name} = {typed} is not in {low:g}..{high:g}{self._unit_suffix()}")
        if self.choices and typed not in self.choices:
            raise ConfigError(f"{self.name} = {typed!r} is not one of {', '.join(self.choices)}")
        return typed

    def _as_type(self, value: object) -> Any:
        wanted = type(self.default)
        if wanted is tuple and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            return tuple(value)
        if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if type(value) is wanted:
            return value
        raise ConfigError(f"{self.name} must be {self.type_name}, not {value!r}")

    @property
    def type_name(self) -> str:
        """ROS name of the type: ``bool``, ``int``, ``double``, ``string`` or ``string[]``."""
        return {bool: "bool", int: "int", float: "double", str: "string", tuple: "string[]"}[type(self.default)]

    def _unit_suffix(self) -> str:
        return f" {self.unit}" if self.unit else ""


def parameter(
    name: str,
    default: Any,
    change: Change,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Iterable[str] = (),
    unit: str = "",
) -> Any:
    """Declare a field of a dataclass that is a parameter; :class:`Spec` explains the arguments."""
    facts = {"name": name, "change": change, "description": description, "limits": limits}
    return field(default=default, metadata={**facts, "choices": tuple(choices), "unit": unit})
