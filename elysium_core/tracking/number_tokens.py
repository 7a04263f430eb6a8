"""Numbers as tokens, for tokenizers that write each digit as a token of its own, as LLaMA's does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from elysium_core.text.tokenizer import TextTokenizer

_DIGITS = "0123456789"
# Stands for a blank at the beginning of a token.
_BLANK = "\u2581"


class NumberTokens:
    """Digits of one tokenizer.

    Args:
        tokenizer: Of the model.

    Attributes:
        ids: Token of each digit inside a number; empty if the tokenizer has no such tokens.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        found = [tokenizer.encode_answer(f"[1{digit}")[-1] for digit in _DIGITS]
        alone = [tokenizer.encode_answer(f"[{digit}")[-1] for digit in _DIGITS]
        each_is_one = found == alone and [tokenizer.token_text(token) for token in found] == list(_DIGITS)
        self.ids: dict[str, int] = dict(zip(_DIGITS, found, strict=True)) if each_is_one else {}
        self._digits = {token: digit for digit, token in self.ids.items()}
        self._tokenizer = tokenizer

    def digit(self, token: int) -> str:
        """The digit that a token stands for; empty if it is none."""
        return self._digits.get(token, "")

    def runs(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Where the numbers of a text begin and end."""
        runs: list[tuple[int, int]] = []
        for index, token in enumerate(token_ids):
            if not self._is_numeral(token):
                continue
            if runs and runs[-1][1] == index:
                runs[-1] = runs[-1][0], index + 1
            else:
                runs.append((index, index + 1))
        return runs

    def _is_numeral(self, token: int) -> bool:
        return token in self._digits or self._tokenizer.token_text(token).lstrip(_BLANK).isdecimal()


@lru_cache(maxsize=8)
def number_tokens(tokenizer: TextTokenizer) -> NumberTokens:
    """The digits of a tokenizer, found once."""
    return NumberTokens(tokenizer)
