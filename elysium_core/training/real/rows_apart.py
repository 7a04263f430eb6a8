"""Rows of names that leave following as it is.

The language model's rows of names are tied: they are also the output's. Rows that were trained on whole frames alone
may become likelier where the model writes the numbers of a box that it follows. So their change is taken out of those
directions in which the hidden states lie that numbers are written from; names are as unlikely there as before.

Shapes: N hidden states, R rows, D the language model's width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elysium_core.engine.decoder import StreamDecoder
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.runtime import Runtime
from elysium_core.training.real.grown_weights import KnownNames
from elysium_core.training.real.pair_answers import answer_pairs
from elysium_core.training.real.pair_features import PairFeatures
from elysium_core.training.real.real_stages import RealTrainingModel
from elysium_core.vision.torch_vision import TorchVision

# They hold nine tenths of the squared hidden states; with more of them, names are found less well.
_DIRECTIONS = 12


class _Listening:
    """A decoder that keeps the hidden states that it was asked about."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self.heard: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def __call__(self, *given: Any) -> Any:
        return self._decoder(*given)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`elysium_core.engine.decoder.StreamDecoder`."""
        self.heard.append(hidden.reshape(-1, hidden.shape[-1]).clone())
        return self._decoder.logits(hidden)


@torch.no_grad()
def states_of_following(model: RealTrainingModel, pairs: PairFeatures) -> Tensor:
    """Hidden states (N, D) that the model writes its boxes from, about pairs of crops."""
    anchors, live, _ = model.look(pairs)
    told, seen = (model.network.llm_proj(tokens) for tokens in (anchors.tokens, live.tokens))
    decoder: Any = _Listening(build_decoder(model.network.llm))
    family = ElysiumFamily(model.network, model.tokenizer, TorchVision(model.network), decoder)
    answer_pairs(Runtime(family), model.prompts, told, seen, pairs.anchor_box)
    return torch.cat(decoder.heard)


def kept_apart(rows: Tensor, reference: Tensor, states: Tensor) -> Tensor:
    """Rows (R, D) that act on hidden states as the reference (R, D) does, and are else what they were.

    Args:
        rows: Trained rows.
        reference: Rows that leave following alone.
        states: (N, D), hidden states that must see no difference.
    """
    _, _, directions = torch.linalg.svd(states.double(), full_matrices=False)
    shared = directions[:_DIRECTIONS]
    change = (reference.double() - rows.double()) @ shared.T @ shared
    return (rows.double() + change).to(rows.dtype)


@torch.no_grad()
def leave_following_alone(model: RealTrainingModel, pairs: PairFeatures, before: KnownNames, rows: Tensor) -> None:
    """Change the model's rows of names where they would change what it writes about pairs.

    The reference of a word that the earlier model knew is its row there; that of a new word is the mean of the rows of
    the earlier names.

    Args:
        model: With trained rows.
        pairs: Held-out pairs.
        before: What the extended model knows.
        rows: (V, D), its rows of all tokens.
    """
    if model.new_rows is None or not len(model.new_rows):
        return
    embedding = model.network.llm.model.embed_tokens.weight
    changed = model.new_rows.to(embedding.device)
    mean = rows[before.name_ids()].mean(0)
    known = changed < len(rows)
    reference = torch.where(known[:, None], rows[changed.clamp_max(len(rows) - 1)], mean)
    embedding[changed] = kept_apart(embedding[changed], reference.to(embedding), states_of_following(model, pairs))
