"""``elysium ask``: answer questions about an image or video."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from elysium_core.cli.conversation_file import read_conversation
from elysium_core.cli.models import DEFAULT_MODEL, load_model
from elysium_core.cli.options import (
    ClipFramesOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PickleOption,
    QuantizeOption,
    VideoArgument,
    VisionBackendOption,
)
from elysium_core.cli.output import emit, say
from elysium_core.errors import ConfigError, ExpressionError
from elysium_core.io.sampling import sample_recording
from elysium_core.io.video import open_video
from elysium_core.text.expression import clean_expression

# The paper's VideoQA evaluation shows 16 frames.
_QUESTION_FRAMES = 16


def command(
    video: VideoArgument,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", metavar="Q", help="What to ask; repeat to ask on in the same conversation."),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Go on with questions that you type, one a line.")] = False,
    history: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="Rounds before: what this verb wrote with --json."),
    ] = None,
    frames: ClipFramesOption = _QUESTION_FRAMES,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    vision_backend: VisionBackendOption = "auto",
    quantize: QuantizeOption = "none",
    allow_pickle_weights: PickleOption = False,
    json: JsonOption = False,
) -> None:
    """Answer questions about an image or video.

    Each question is asked in the light of those before it and their answers.
    """
    if not question and not chat:
        raise ConfigError("say what to ask: --question 'What happens?', or --chat to type questions")
    questions = [clean_expression(text) for text in question or ()]
    rounds = read_conversation(history) if history else []
    with open_video(video) as recording:
        clip = sample_recording(recording, frames)
    loaded = load_model(model, device, dtype, vision_backend, quantize, allow_pickle_weights=allow_pickle_weights)

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
    """Answer what is typed until the input ends; a question that cannot be asked does not end the talk."""
    for line in _typed_lines():
        try:
            ask(clean_expression(line))
        except ExpressionError as error:
            sys.stderr.write(f"elysium: {error}\n")


def _typed_lines() -> Iterator[str]:
    """Lines of standard input that hold something; a person is prompted for each."""
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
