"""``elysium ask``: answer questions about an image or video, with an earlier conversation read from a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    ClipFramesOption,
    JsonOption,
    TopicOption,
    VideoArgument,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import emit, say, warn
from elysium_core.errors import ConfigError, ElysiumError, ExpressionError
from elysium_core.io.sampling import QUESTION_FRAMES, sample_recording
from elysium_core.io.video import open_video
from elysium_core.prompt.expression import clean_answer, clean_expression
from elysium_core.settings import LoadOptions

_LARGEST_FILE_BYTES = 1 << 20


def read_conversation(path: Path) -> list[tuple[str, str]]:
    """Read the rounds (question and answer) of a conversation, oldest first.

    Args:
        path: A JSON list of objects with ``question`` and ``answer``, or one such object per line,
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
    """Yield each entry and its place in the file, for messages."""
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


@with_load_options
def command(
    video: VideoArgument,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question", "-q", metavar="Q", help="A question; repeat for more questions in the same conversation."
        ),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Then read questions from standard input, one per line.")
    ] = False,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history", metavar="FILE", help="Earlier conversation: a file that this verb wrote with --json."
        ),
    ] = None,
    frames: ClipFramesOption = QUESTION_FRAMES,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Answer questions about an image or video.

    The model sees the earlier questions and answers of the conversation with each question.
    """
    if not question and not chat:
        raise ConfigError("say what to ask: --question 'What happens?', or --chat to type questions")
    questions = [clean_expression(text) for text in question or ()]
    rounds = read_conversation(history) if history else []
    with open_video(video, topic=topic) as recording:
        clip = sample_recording(recording, frames)
        warn(recording.problems(), json)
    loaded = load_model(load)

    def ask(asked: str) -> None:
        answer = loaded.ask(clip, asked, history=rounds)
        rounds.append((asked, answer))
        if json:
            emit({"question": asked, "answer": answer, "frames": [picture.index for picture in clip]})
        else:
            say(answer)

    for text in questions:
        ask(text)
    if chat:
        _chat(ask)


def _chat(ask: Callable[[str], None]) -> None:
    """Answer typed questions until the input ends. A bad question prints its error, and the next one is read."""
    for line in _typed_lines():
        try:
            ask(clean_expression(line))
        except ExpressionError as error:
            sys.stderr.write(f"elysium: {error}\n")


def _typed_lines() -> Iterator[str]:
    """Yield the non-blank lines of standard input; on a terminal, print a prompt for each."""
    is_person = sys.stdin.isatty()
    if is_person:
        sys.stderr.write("Ask a question and press Enter; Ctrl-D ends.\n")
    while True:
        if is_person:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            break
        if line.strip():
            yield line
    if is_person:
        sys.stderr.write("\n")
