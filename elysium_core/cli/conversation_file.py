"""Earlier questions and answers, read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError, ElysiumError
from elysium_core.text.expression import clean_answer, clean_expression

_LARGEST_FILE_BYTES = 1 << 20


def read_conversation(path: Path) -> list[tuple[str, str]]:
    """Read rounds of a conversation, oldest first.

    Args:
        path: A JSON list of objects with ``question`` and ``answer``, or one such object a line,
            as ``elysium ask --json`` writes them; other keys are ignored.

    Raises:
        ConfigError: The file cannot be read, or a round is not such an object.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE_BYTES:
            raise ConfigError(f"{str(path)!r} has {size >> 20} MiB; a conversation has at most 1")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the conversation {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the conversation {str(path)!r} is not UTF-8 text") from error
    return [_round(content, place) for content, place in _entries(text, path)]


def _entries(text: str, path: Path) -> list[tuple[Any, str]]:
    """Every entry and where it is, for messages."""
    if text.lstrip().startswith("["):
        return [(entry, f"{path}, entry {number}") for number, entry in enumerate(_parse(text, str(path)), 1)]
    lines = [(line, f"{path}, line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [(_parse(line, place), place) for line, place in lines]


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is not JSON: {error}") from error


def _round(content: Any, place: str) -> tuple[str, str]:
    if not isinstance(content, dict) or not {"question", "answer"} <= content.keys():
        raise ConfigError(f'{place} is not an object {{"question": ..., "answer": ...}}')
    try:
        return clean_expression(content["question"]), clean_answer(content["answer"])
    except ElysiumError as error:
        raise ConfigError(f"{place}: {error}") from error
