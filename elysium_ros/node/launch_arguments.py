"""Values of launch arguments, which are all text: booleans and numbers, and what is neither. Imports no ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from elysium_core.errors import ConfigError

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def switch(name: str, text: str) -> str:
    """Return a boolean in one spelling: ``"true"``, ``"false"``, or ``""`` if it is not given.

    Args:
        name: The argument's name, for the message.
        text: Its value, in capitals or not.

    Raises:
        ConfigError: It is neither.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return "true"
    if word in _FALSE:
        return "false"
    if word:
        raise ConfigError(f"{name}:={text} is neither true nor false; use true, yes, on, 1, or false, no, off, 0")
    return ""


def switches(given: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return all arguments, the booleans among them (``names``) in one spelling.

    Raises:
        ConfigError: As for :func:`switch`.
    """
    return {**given, **{name: switch(name, given[name]) for name in names}}


def positive(name: str, text: str, *, or_zero: bool = False) -> float:
    """Return a number > 0.

    Args:
        name: The argument's name, for the message.
        text: Its value, such as ``"15"`` or ``"29.97"``.
        or_zero: 0 is allowed, too.

    Raises:
        ConfigError: It is not such a number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        raise ConfigError(f"{name}:={text} is not {'0 or ' * or_zero}a number above 0, such as 15 or 29.97")
    return number


def port(name: str, text: str) -> int:
    """Return the number of a port, 0..65535.

    Args:
        name: The argument's name, for the message.
        text: Its value, such as ``"8420"``.

    Raises:
        ConfigError: It is not a whole number in this range.
    """
    if text.strip().isdecimal() and len(text) < 8 and int(text) <= 65_535:
        return int(text)
    raise ConfigError(f"{name}:={text} is not a port; use a whole number in 0..65535, such as 8420")


def count(name: str, text: str) -> int:
    """Return a whole number >= 0.

    Args:
        name: The argument's name, for the message.
        text: Its value, such as ``"307200"``.

    Raises:
        ConfigError: It is not a whole number, or has more than nine digits.
    """
    if text.strip().isdecimal() and len(text.strip()) <= 9:
        return int(text)
    raise ConfigError(f"{name}:={text} is not a whole number from 0, such as 307200")
