"""Prompts: the published conversation template with image slots. Knows no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

USER = "USER: "
ASSISTANT = "ASSISTANT:"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt cut at its image slots.

    Attributes:
        pieces: One more than there are frames: text, frame, text, ..., frame, text.
    """

    pieces: tuple[str, ...]

    @property
    def frame_count(self) -> int:
        """Number of image slots."""
        return len(self.pieces) - 1

    @property
    def text(self) -> str:
        """The prompt as one string, slots written as ``<image>``."""
        return "<image>".join(self.pieces)


def frame_pieces(frame_count: int, system_text: str) -> tuple[str, ...]:
    """The text before each frame: it depends on nothing but the number of frames.

    One frame: the opening. Several: ``Frame 1: ``, ``, Frame 2: ``, ... (the paper's
    timestamps).

    Args:
        frame_count: Frames, >= 1.
        system_text: Opening of every conversation, with its closing blank.
    """
    opening = system_text + USER
    if frame_count == 1:
        return (opening,)
    return (opening + "Frame 1: ", *(f", Frame {number}: " for number in range(2, frame_count + 1)))


def question_piece(question: str) -> str:
    """The text behind the last frame, up to where the answer begins."""
    return f"\n{question}{ASSISTANT}"


def follow_up(question: str) -> str:
    """A further round of the same conversation, behind the answer before it."""
    return f"{USER}{question}{ASSISTANT}"


def build_prompt(question: str, frame_count: int, system_text: str) -> Prompt:
    """The prompt that asks one question about ``frame_count`` frames.

    Args:
        question: Already cleaned (:func:`elysium_core.prompt.expression.clean_expression`).
        frame_count: Frames, >= 0; without frames the question stands alone.
        system_text: Opening of every conversation.
    """
    if frame_count == 0:
        return Prompt((f"{system_text}{USER}{question}{ASSISTANT}",))
    return Prompt((*frame_pieces(frame_count, system_text), question_piece(question)))
