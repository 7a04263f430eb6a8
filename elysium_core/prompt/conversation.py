"""The published conversation template as text with image slots."""

from __future__ import annotations

from dataclasses import dataclass

USER = "USER: "
ASSISTANT = "ASSISTANT:"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt split at its image slots.

    Attributes:
        pieces: The texts between the slots, one more than frames: text, frame, text, ..., frame, text.
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
    """The text before each frame. It does not depend on the question.

    The text before the first frame begins with the system text. For several frames, each text
    ends with a label (the paper's timestamps): ``Frame 1: ``, ``, Frame 2: ``, ...

    Args:
        frame_count: Number of frames, >= 1.
        system_text: System text of every conversation, with a blank at its end.
    """
    opening = system_text + USER
    if frame_count == 1:
        return (opening,)
    return (opening + "Frame 1: ", *(f", Frame {number}: " for number in range(2, frame_count + 1)))


def question_piece(question: str) -> str:
    """The text after the last frame, up to the beginning of the answer."""
    return f"\n{question}{ASSISTANT}"


def follow_up(question: str) -> str:
    """The text of a further question in the same conversation, after the previous answer."""
    return f"{USER}{question}{ASSISTANT}"


def build_prompt(question: str, frame_count: int, system_text: str) -> Prompt:
    """The prompt that asks one question about ``frame_count`` frames.

    Args:
        question: Already cleaned (:func:`elysium_core.prompt.expression.clean_expression`).
        frame_count: Number of frames, >= 0; with 0 the prompt is only text.
        system_text: System text of every conversation.
    """
    if frame_count == 0:
        return Prompt((f"{system_text}{USER}{question}{ASSISTANT}",))
    return Prompt((*frame_pieces(frame_count, system_text), question_piece(question)))
