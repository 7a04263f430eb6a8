"""What visual tokens tell of names: how near they lie to the words for them.

Models of :mod:`elysium_core.training.real` learn to draw each token on an object to the word for it.

Shapes: K visual tokens, V names, D the language model's width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 16.0
"""A cosine times this is a logit."""


def name_logits(rows: Tensor, words: Tensor) -> Tensor:
    """Logits (K, V) of names, of tokens (K, D) and the embeddings of words (V, D)."""
    return SHARPNESS * (F.normalize(rows, dim=-1) @ F.normalize(words, dim=-1).T)


def name_evidence(rows: Tensor, words: Tensor) -> Tensor:
    """For each name the log-probability (V) that the token (of K, D) nearest to it shows it rather than another."""
    return name_logits(rows.float(), words.float()).log_softmax(-1).amax(0)
