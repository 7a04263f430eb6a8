"""Cleaning of words that come from outside, before they can reach a prompt.

A user's sentence becomes part of a prompt whose structure the model was trained
on. Text that spells that structure (image slots, role words, special tokens) is
refused; invisible characters are removed; white space is folded.
"""

from __future__ import annotations

import re
import unicodedata

from elysium_core.errors import ExpressionError

MAX_CHARACTERS = 512
"""Longest accepted expression or question, after cleaning."""

MAX_ANSWER_CHARACTERS = 16 * MAX_CHARACTERS
"""Longest answer of a model that is accepted as part of a conversation."""

# A role word counts in the middle of a word, too: the protocol writes "...mugASSISTANT:", without a blank before it.
_STRUCTURE = r"<\s*/?\s*(?:image|video|box|s|unk|pad|bos|eos)\s*/?\s*>|(?:USER|ASSISTANT|SYSTEM)\s*:|\[INST\]"
_RESERVED = re.compile(_STRUCTURE + "|[{}]", re.IGNORECASE)
# Answers are never filled into a question, so that braces mean nothing in them.
_RESERVED_IN_ANSWERS = re.compile(_STRUCTURE, re.IGNORECASE)
_WITHOUT_STRUCTURE = str.maketrans("", "", "<>[]:")


def clean_question(text: str) -> str:
    """Return a question as it may be put into a prompt; as :func:`clean_expression`, but for one sentence.

    Raises:
        ExpressionError: As there.
    """
    try:
        return clean_expression(text)
    except ExpressionError as error:
        if error.code == "EXPR_EMPTY":
            raise ExpressionError("the question is empty; ask something", code="EXPR_EMPTY") from error
        raise


def clean_expression(text: str) -> str:
    r"""Return ``text`` as it may be put into a prompt.

    NFC-normalised, white space folded to single blanks, control and other
    invisible characters (Unicode categories C*) removed.

    Raises:
        ExpressionError: Empty (``EXPR_EMPTY``), longer than 512 characters
            (``EXPR_TOO_LONG``), not valid Unicode (``EXPR_INVALID``), or spelling a
            part of the protocol such as ``<image>`` or ``ASSISTANT:`` (``EXPR_RESERVED``).

    Example:
        >>> clean_expression("  the   red\nmug ")
        'the red mug'
    """
    if not isinstance(text, str):
        raise ExpressionError(f"an expression must be text, not {type(text).__name__}")
    # A bounded look is enough to refuse, and keeps a 10 MB text from being normalised first.
    if len(text) > 16 * MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(text)} characters; at most {MAX_CHARACTERS} are allowed", code="EXPR_TOO_LONG"
        )
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ExpressionError("the expression holds half a surrogate pair; send valid Unicode text")
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    visible = "".join(c for c in folded if not unicodedata.category(c).startswith("C"))
    # Once more: an invisible character may have kept a letter and its accent apart.
    cleaned = unicodedata.normalize("NFC", " ".join(visible.split()))
    if not cleaned:
        raise ExpressionError("the expression is empty; say what to look for, such as 'the red mug'", code="EXPR_EMPTY")
    if len(cleaned) > MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(cleaned)} characters; at most {MAX_CHARACTERS} are allowed", code="EXPR_TOO_LONG"
        )
    # Look-alikes (full-width letters and brackets) fold to the reserved spelling under NFKC.
    found = _RESERVED.search(unicodedata.normalize("NFKC", cleaned))
    if found:
        raise ExpressionError(
            f"the expression holds {found.group(0)!r}, which is part of the model's prompt format; leave it out",
            code="EXPR_RESERVED",
        )
    return cleaned


def clean_answer(text: str) -> str:
    r"""Return an earlier answer of a model as it may be repeated in a conversation.

    Nobody can be asked to spell it otherwise, so nothing in it is refused for what it says:
    text that spells the protocol loses the characters that make it so, invisible characters
    but for line ends are removed.

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
    # Repeated, because taking one tag apart may put another together.
    while _RESERVED_IN_ANSWERS.search(folded := unicodedata.normalize("NFKC", cleaned)):
        cleaned = _RESERVED_IN_ANSWERS.sub(lambda found: found.group(0).translate(_WITHOUT_STRUCTURE), folded)
    return cleaned.strip()
