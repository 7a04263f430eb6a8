"""Recipe files: YAML to typed settings; every key is known, and all problems are told at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml

from elysium_core.errors import ConfigError

Settings = TypeVar("Settings")


STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
# Names of other things in the folder of a run.
TAKEN_NAMES = {"tokenizer", "checkpoint"}


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or an override is not one.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold settings, not {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return raw


def read_recipe(
    path: Path, raw: dict[str, Any], kind: type[Settings], check: Callable[[Settings], Iterable[str]]
) -> Settings:
    """Make a dataclass of settings.

    Args:
        path: Where they come from, for messages.
        raw: The settings.
        kind: The dataclass.
        check: Yields every problem of one whose values have the right types.

    Raises:
        ConfigError: Keys are unknown or missing, or values wrong; all of them are named.
    """
    problems: list[str] = []
    recipe = cast("Settings", _build(kind, raw, "", problems))
    # Ranges are only looked at where every value has its type.
    problems = problems or list(check(recipe))
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return recipe


def _override(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r} is not key=value")
    *parents, leaf = key.split(".")
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent!r} has no settings below it")
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML") from error


def _build(kind: Any, raw: Any, where: str, problems: list[str]) -> Any:
    """Build a dataclass from a mapping, collecting every problem instead of stopping at the first."""
    if not isinstance(raw, dict):
        problems.append(f"{where.rstrip('.') or 'the recipe'} must be a group of settings, not {raw!r}")
        return None
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    problems += [f"unknown key {where}{key}" for key in raw if key not in known]
    values = {key: _convert(hints[key], value, f"{where}{key}", problems) for key, value in raw.items() if key in known}
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(raw))
    problems += [f"missing key {where}{key}" for key in missing]
    return None if missing else kind(**values)


def _convert(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Return a value as its type; what cannot be one is a problem."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where + ".", problems)
    if get_origin(hint) is dict:
        return _convert_group(get_args(hint)[1], value, where, problems)
    if get_origin(hint) is tuple:
        return _convert_list(get_args(hint), value, where, problems)
    if hint is float:
        value = _as_float(value)
    if not isinstance(value, hint) or isinstance(value, bool) != (hint is bool):
        problems.append(f"{where} must be {hint.__name__}, not {value!r}")
    return value


def _convert_group(kind: Any, value: Any, where: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        problems.append(f"{where} must be a group of named entries, not {value!r}")
        return {}
    return {str(name): _convert(kind, entry, f"{where}.{name}", problems) for name, entry in value.items()}


def _convert_list(kinds: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        problems.append(f"{where} must be a list, not {value!r}")
        return ()
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        problems.append(f"{where} must have {len(kinds)} entries, not {value!r}")
        return ()
    return tuple(_convert(kinds[0], entry, f"{where}[{index}]", problems) for index, entry in enumerate(value))


def _as_float(value: Any) -> Any:
    """Whole numbers are floats too, and so is 1e-3, which YAML takes for text."""
    if isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, (int, str)) else value
    except ValueError:
        return value
