"""Recipe files: YAML settings checked against a schema, with all problems of a file in one error message.

The schema of a recipe is a tree of :class:`RecipePart`. Pydantic checks each value, the parts check values against
each other, and this module turns the problems into sentences with key and value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from elysium_core.errors import ConfigError, printable

STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
# Names of other files in a run folder.
TAKEN_NAMES = ("tokenizer", "checkpoint")

_LONGEST_VALUE = 80
_PROBLEM = "recipe"
_SENTENCES = {
    _PROBLEM: "{problem}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a group of settings",
    "model_type": "must be a group of settings",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be under {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


class RecipePart(BaseModel):
    """A group of settings: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_number(value: Any) -> Any:
    """Convert text such as 1e-3, which YAML does not read as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def one_of(names: Collection[str]) -> AfterValidator:
    """Return a validator that accepts only these names."""

    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError(_PROBLEM, "{problem}", {"problem": f"is not one of {', '.join(names)}"})
        return value

    return AfterValidator(check)


Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[Whole, Field(ge=1)]
NotNegative = Annotated[Whole, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_as_number), Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]

Part = TypeVar("Part", bound=RecipePart)
Problem = tuple[tuple[str | int, ...], str]
"""Keys from a part to a value, and the problem with the value, such as "must be at least 1"."""


def checked(part: Part, problems: Iterable[Problem]) -> Part:
    """Return the part if there are no problems; for validators that compare values with each other.

    Raises:
        ValidationError: There are problems.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError(_PROBLEM, "{problem}", {"problem": sentence}), loc=keys, input=_at(part, keys)
        )
        for keys, sentence in problems
    ]
    if details:
        raise ValidationError.from_exception_data(type(part).__name__, details)
    return part


def stage_problems(stages: Iterable[str], export: str) -> Iterable[Problem]:
    """Yield the problems with the names of a recipe's stages."""
    names = list(stages)
    for name in names:
        if not STAGE_NAME.match(name) or name in TAKEN_NAMES:
            yield (
                ("stages", name),
                f"cannot be the name of a stage; use letters, digits, - and _, and not {' or '.join(TAKEN_NAMES)}",
            )
    if export not in names:
        yield ("export",), f"is not one of the stages {', '.join(names)}"


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or an override is not ``key=value``.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold settings, not {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return raw


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    return " ".join(str(error).split())


def read_recipe(path: Path, raw: dict[str, Any], schema: type[Part]) -> Part:
    """Check settings against a schema.

    Args:
        path: File of the settings, for messages.
        raw: The settings.
        schema: The schema.

    Raises:
        ConfigError: Keys are unknown or missing, or values wrong; all of them are named.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        sentences = [_sentence(schema, problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{path}: " + "; ".join(sentences)) from error


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


def _sentence(schema: type[RecipePart], problem: ErrorDetails) -> str:
    """Return a problem from pydantic as a sentence with key, value and requirement."""
    keys = problem["loc"]
    if problem["type"] == "missing":
        return f"missing key {_dotted(keys)}"
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key {_dotted(keys)}{_suggestion(schema, keys)}"
    template = _SENTENCES.get(problem["type"])
    words = problem["msg"] if template is None else template.format(**problem.get("ctx", {}))
    if keys[-1:] == ("[key]",):
        return f"the key {_dotted(keys[:-1])} {words}"
    value = problem["input"]
    shown = "" if isinstance(value, BaseModel) else f" = {printable(repr(_as_yaml(value)), _LONGEST_VALUE)}"
    return f"{_dotted(keys) or 'the recipe'}{shown} {words}"


def _dotted(keys: Sequence[str | int]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def _suggestion(schema: type[RecipePart], keys: Sequence[str | int]) -> str:
    """Return a hint with the known key that is most similar to an unknown one."""
    place: Any = schema
    for key in keys[:-1]:
        # The values of a mapping from names to parts are parts.
        place = place.model_fields[key].annotation if hasattr(place, "model_fields") else get_args(place)[-1]
    near = get_close_matches(str(keys[-1]), list(place.model_fields), n=1)
    return f" (did you mean {_dotted([*keys[:-1], *near])}?)" if near else ""


def _at(part: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        part = getattr(part, str(key)) if isinstance(part, BaseModel) else part[key]
    return part


def _as_yaml(value: Any) -> Any:
    """Convert tuples to lists, as they are in a file."""
    return [_as_yaml(item) for item in value] if isinstance(value, tuple) else value
