"""Further names for a trained model: the weights of an earlier run, with rows for words that it did not know.

Only these rows of the language model are new. Everything else is taken over as it is, so that a stage of kind ``find``,
which trains the rows, leaves alone what follows objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elysium_core.errors import DataError
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.real.real_model import texts_of_tasks

EMBEDDING = "network.llm.model.embed_tokens.weight"
"""The language model's rows of tokens."""

# Training-only weights with one row, or one column, for each name.
_NAME_ROWS, _NAME_COLUMNS = ("words.heads.name.weight", "words.heads.name.bias"), ("words.naming.weight",)


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What a model calls things, and with which tokens.

    Attributes:
        names: Its names.
        tokenizer: Its tokenizer.
    """

    names: Sequence[str]
    tokenizer: TextTokenizer

    def name_ids(self) -> list[int]:
        """Number of the last token of each name."""
        return [self.tokenizer.encode_answer(f"the {name}")[-1] for name in self.names]


def grown_weights(
    weights: Mapping[str, Tensor], first: Mapping[str, Tensor], before: KnownNames, now: KnownNames, system_text: str
) -> dict[str, Tensor]:
    """Weights of a model that knows more names.

    The row of a new name is a random mixture of those of the known names: in the directions in which the language
    model tells names apart.

    Args:
        weights: Of the earlier model.
        first: First weights of the new one; rows that the earlier model lacks are taken from them.
        before: What the earlier model knows.
        now: What the new one is to know: all names of the earlier one, and more.
        system_text: Opening of every prompt.

    Raises:
        DataError: The tokenizer splits a known text in another way than before.
    """
    _require_same_texts(before, now, system_text)
    grown = {name: value.clone() for name, value in weights.items()}
    embedding = first[EMBEDDING].clone()
    embedding[: before.tokenizer.vocab_size] = weights[EMBEDDING]
    further = [number for number in now.name_ids() if number >= before.tokenizer.vocab_size]
    embedding[further] = _mixtures(weights[EMBEDDING][before.name_ids()], len(further))
    grown[EMBEDDING] = embedding
    places = [now.names.index(name) for name in before.names]
    for key in _NAME_ROWS:
        grown[key] = first[key].clone()
        grown[key][places] = weights[key]
    for key in _NAME_COLUMNS:
        grown[key] = first[key].clone()
        grown[key][:, places] = weights[key]
    return grown


def new_rows(before: KnownNames, now: KnownNames) -> Tensor:
    """(R,) int64, numbers of the tokens that the earlier model lacks."""
    return torch.arange(before.tokenizer.vocab_size, now.tokenizer.vocab_size)


def _mixtures(rows: Tensor, count: int) -> Tensor:
    """Random vectors (count, D) about as far from the mean of ``rows`` (V, D) as these are, in the space they span."""
    mean = rows.mean(0)
    apart = rows - mean
    drawn = torch.randn(count, len(rows), generator=torch.Generator().manual_seed(0)).to(rows) @ apart
    return mean + drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-9) * apart.norm(dim=1).mean()


def _require_same_texts(before: KnownNames, now: KnownNames, system_text: str) -> None:
    for text in dict.fromkeys(texts_of_tasks(before.names, system_text)):
        if before.tokenizer.encode_answer(text) != now.tokenizer.encode_answer(text):
            raise DataError(f"with the further names, the tokenizer splits {text!r} in another way; choose other names")
