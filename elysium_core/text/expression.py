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

# A role word counts in the middle of a word, too: the protocol writes "...mugASSISTANT:", without a blank before it.
_RESERVED = re.compile(
    r"<\s*/?\s*(?:image|video|box|s|unk|pad|bos|eos)\s*/?\s*>|(?:USER|ASSISTANT|SYSTEM)\s*:|\[INST\]|[{}]",
    re.IGNORECASE,
)


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
