"""Cleaning and checking of users' text before it becomes part of a prompt.

The model was trained on prompts with a fixed structure. Text that contains a part of this
structure (image slots, role words, special tokens) is refused. Invisible characters are
removed, and white space is folded.
"""

from __future__ import annotations

import re
import unicodedata

from elysium_core.errors import ExpressionError

MAX_CHARACTERS = 512
"""Longest accepted expression or question, after cleaning."""

MAX_ANSWER_CHARACTERS = 16 * MAX_CHARACTERS
"""Longest answer of a model that is accepted as part of a conversation."""

# Role words are also matched inside a word, because the template has no blank before them: "...mugASSISTANT:".
_STRUCTURE = (
    r"<\s*/?\s*(?:image|video|box|s|unk|pad|bos|eos)\s*/?\s*>|<\|\s*\w+\s*\|>|(?:USER|ASSISTANT|SYSTEM)\s*:|\[INST\]"
)
_RESERVED = re.compile(_STRUCTURE + "|[{}]", re.IGNORECASE)
# Braces are allowed in answers, because answers are never filled into the slots of a question.
_RESERVED_IN_ANSWERS = re.compile(_STRUCTURE, re.IGNORECASE)
_WITHOUT_STRUCTURE = str.maketrans("", "", "<>[]:")

# Real answers need one pass or two. One that needs more loses these characters everywhere.
_ANSWER_PASSES = 8


def clean_question(text: str) -> str:
    """Return a question in the form that may be put into a prompt.

    Same as :func:`clean_expression`, except for the message about an empty question.

    Raises:
        ExpressionError: See :func:`clean_expression`.
    """
    try:
        return clean_expression(text)
    except ExpressionError as error:
        if error.code == "EXPR_EMPTY":
            raise ExpressionError("the question is empty; ask something", code="EXPR_EMPTY") from error
        raise


def clean_expression(text: str) -> str:
    r"""Return an expression in the form that may be put into a prompt.

    The text is NFC-normalised, white space is folded to single blanks, and control and other
    invisible characters (Unicode categories C*) are removed.

    Raises:
        ExpressionError: Empty (``EXPR_EMPTY``), longer than 512 characters
            (``EXPR_TOO_LONG``), not valid Unicode (``EXPR_INVALID``), or it contains
            a part of the prompt format such as ``<image>`` or ``ASSISTANT:`` (``EXPR_RESERVED``).

    Example:
        >>> clean_expression("  the   red\nmug ")
        'the red mug'
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an expression must be text, not {type(text).__name__}")
    # Refused by length first, so that a text of 10 MB is not normalised.
    if len(text) > 16 * MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(text)} characters; at most {MAX_CHARACTERS} are allowed", code="EXPR_TOO_LONG"
        )
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ExpressionError("the expression holds half a surrogate pair; send valid Unicode text")
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    visible = "".join(c for c in folded if not unicodedata.category(c).startswith("C"))
    # Normalised again: an invisible character may have separated a letter from its accent.
    cleaned = unicodedata.normalize("NFC", " ".join(visible.split()))
    if not cleaned:
        raise ExpressionError("the expression is empty; say what to look for, such as 'the red mug'", code="EXPR_EMPTY")
    if len(cleaned) > MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(cleaned)} characters; at most {MAX_CHARACTERS} are allowed", code="EXPR_TOO_LONG"
        )
    # NFKC turns look-alikes, such as full-width letters and brackets, into the reserved characters.
    found = _RESERVED.search(unicodedata.normalize("NFKC", cleaned))
    if found:
        raise ExpressionError(
            f"the expression holds {found.group(0)!r}, which is part of the model's prompt format; leave it out",
            code="EXPR_RESERVED",
        )
    return cleaned


def clean_answer(text: str) -> str:
    r"""Return an earlier answer of a model in the form that may be repeated in a conversation.

    An answer is not refused for its content, because a user cannot reword it. Instead, the characters
    ``<>[]:`` are removed from parts of the prompt format, and invisible characters except line ends
    are removed.

    Args:
        text: May be empty.

    Raises:
        ExpressionError: Not text, or longer than 8192 characters (``EXPR_TOO_LONG``).

    Example:
        >>> clean_answer("It is red.USER: and blue? ")
        'It is red.USER and blue?'
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an answer must be text, not {type(text).__name__}")
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise ExpressionError(
            f"an answer of the conversation has {len(text)} characters; at most {MAX_ANSWER_CHARACTERS} are allowed",
            code="EXPR_TOO_LONG",
        )
    visible = "".join(c for c in text if c == "\n" or not unicodedata.category(c).startswith("C"))
    cleaned = unicodedata.normalize("NFC", visible)
    # Repeated, because removing characters may form another tag; not for ever, as tags may be nested thousands deep.
    for _ in range(_ANSWER_PASSES):
        folded = unicodedata.normalize("NFKC", cleaned)
        if not _RESERVED_IN_ANSWERS.search(folded):
            return cleaned.strip()
        cleaned = _RESERVED_IN_ANSWERS.sub(lambda found: found.group(0).translate(_WITHOUT_STRUCTURE), folded)
    return unicodedata.normalize("NFKC", cleaned).translate(_WITHOUT_STRUCTURE).strip()
