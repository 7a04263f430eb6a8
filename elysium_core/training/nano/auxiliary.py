"""Training-only modules that replace the pretraining of CLIP and Vicuna when nano is trained from scratch.

A small model trained from scratch does not learn from answers alone. These heads and the
oracle give it a similar start in minutes. They are not part of a checkpoint.

Shapes: F frames, N patches, K visual tokens, D width of the LLM, V number of names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.data.synthetic.colors import COLORS
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.losses import Losses, Mean, batch_mean

_FOURIER_BANDS = 6
_BACKGROUND_WEIGHT = 0.15
# Colours are learnt early and from few patches per batch, so a lower weight is enough.
_COLOR_WEIGHT = 0.3


def fourier(values: Tensor) -> Tensor:
    """Return sines and cosines of coordinates 0..1: (..., C) to (..., 2 C bands)."""
    bands = math.pi * 2.0 ** torch.arange(_FOURIER_BANDS, device=values.device)
    angles = values[..., None] * bands
    return torch.cat([angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def patch_centers(grid: int) -> Tensor:
    """Return the centres (N, 2) of the patches of a grid x grid frame, x and y in 0..1, row-major."""
    axis = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], dim=-1)


class PatchHeads(nn.Module):
    """Predicts name, colour and box of each patch from the vision encoder (replaces CLIP's pretraining).

    Args:
        width: Width of a patch token.
        names: V.
    """

    def __init__(self, width: int, names: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.name = nn.Linear(width, names + 1)
        self.color = nn.Linear(width, len(COLORS) + 1)
        self.box = nn.Linear(width, 4)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return name logits (F, N, V + 1), colour logits (F, N, C + 1) and boxes (F, N, 4) of tokens (F, N, width)."""
        normed = self.norm(tokens)
        return self.name(normed), self.color(normed), self.box(normed)


def patch_losses(
    name_logits: Tensor,
    color_logits: Tensor,
    boxes: Tensor,
    gate_logits: Tensor,
    patch_name: Tensor,
    patch_color: Tensor,
    patch_box: Tensor,
) -> Losses:
    """Return the losses of stage V: name, colour and box of each patch, and of the gate.

    Args:
        name_logits: (F, N, V + 1).
        color_logits: (F, N, C + 1).
        boxes: (F, N, 4).
        gate_logits: (F, N) of the T-Selector.
        patch_name: (F, N), V = background.
        patch_color: (F, N), C = no colour word.
        patch_box: (F, N, 4).

    Returns:
        ``name`` (cross-entropy of names, and of colours on objects), ``box`` (mean absolute
        error on objects, of the frame), ``gate`` (binary cross-entropy), ``name_accuracy`` and
        ``color_accuracy`` on objects. Losses of names and gate have weight 1 per batch, the others 1 per patch.
    """
    background = name_logits.shape[-1] - 1
    solid = patch_name != background
    weight = torch.full((background + 1,), 1.0, device=name_logits.device)
    weight[background] = _BACKGROUND_WEIGHT
    name = F.cross_entropy(name_logits.flatten(0, 1), patch_name.flatten(), weight=weight)
    objects = solid.sum()
    box = Mean((boxes - patch_box).abs().mean(-1)[solid].sum(), objects)
    gate = F.binary_cross_entropy_with_logits(gate_logits.float(), solid.float())
    color = F.cross_entropy(color_logits.flatten(0, 1), patch_color.flatten(), reduction="none")
    colors = Mean((color * solid.flatten()).sum(), objects)
    return {
        "name": batch_mean(name + _COLOR_WEIGHT * colors.value),
        "box": box,
        "gate": batch_mean(gate),
        "name_accuracy": Mean(((name_logits.argmax(-1) == patch_name) & solid).sum(), objects),
        "color_accuracy": Mean(((color_logits.argmax(-1) == patch_color) & solid).sum(), objects),
    }


class Oracle(nn.Module):
    """Makes visual tokens from the ground truth instead of pixels (replaces Vicuna's pretraining).

    The token of a patch on an object is the sum of a vector for its name, the word embedding
    of its colour and an embedding of its box. A background patch has a learned vector. Both
    include the position of the patch.

    The vectors of the names are the directions in which the vision encoder separates names
    (:meth:`align`), so that a projector can produce them. It could not learn to produce a few
    hundred arbitrary vectors at this width.

    Args:
        names: V names by index.
        tokenizer: Tokenizer for names and colours.
        width: D.
        vision_width: Width of a patch token.
    """

    names: Tensor
    name_ids: Tensor
    name_weights: Tensor
    color_ids: Tensor
    color_weights: Tensor

    def __init__(self, names: Sequence[str], tokenizer: TextTokenizer, width: int, vision_width: int) -> None:
        super().__init__()
        for prefix, phrases in (("name", names), ("color", COLORS)):
            ids, weights = _word_table(tokenizer, phrases)
            self.register_buffer(f"{prefix}_ids", ids, persistent=False)
            self.register_buffer(f"{prefix}_weights", weights, persistent=False)
        self.register_buffer("names", F.normalize(torch.randn(len(names), vision_width), dim=-1))
        self.name = nn.Linear(vision_width, width, bias=False)
        self.color = nn.Linear(width, width)
        for linear in (self.name, self.color):
            nn.init.eye_(linear.weight)
        self.box = nn.Sequential(nn.Linear(4 + 8 * _FOURIER_BANDS, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Linear(4 * _FOURIER_BANDS, width)
        self.background = nn.Parameter(0.02 * torch.randn(width))

    @property
    def name_count(self) -> int:
        """V, which as the name of a patch stands for background."""
        return len(self.names)

    def name_tokens(self) -> Tensor:
        """Vectors of the names, (V, D)."""
        named: Tensor = self.name(self.names)
        return named

    @torch.no_grad()
    def align(self, heads: PatchHeads, embedding: nn.Embedding) -> None:
        """Set the names' vectors from a trained vision encoder, and adapt the word embeddings to them.

        The embeddings get the smallest change after which the words of a name sum to its vector.
        The language model can then compare and copy names from its first step.

        Args:
            heads: Heads trained with the vision encoder; their rows for the names become unit vectors.
            embedding: The LLM's word embeddings; changed in place.
        """
        rows = heads.name.weight[: self.name_count]
        self.names.copy_(F.normalize(rows - rows.mean(0), dim=-1))
        words = torch.zeros(self.name_count, embedding.num_embeddings, device=rows.device)
        words.scatter_add_(1, self.name_ids[:-1], self.name_weights[:-1])
        lacking = self.name_tokens() - words @ embedding.weight
        embedding.weight += torch.linalg.pinv(words.double()).to(words) @ lacking

    def forward(
        self, embedding: nn.Embedding, patch_name: Tensor, patch_color: Tensor, patch_box: Tensor, centers: Tensor
    ) -> Tensor:
        """Return the visual tokens.

        Args:
            embedding: The LLM's word embeddings.
            patch_name: (F, K), V = background.
            patch_color: (F, K), C = no colour word.
            patch_box: (F, K, 4).
            centers: (F, K, 2) or (K, 2), centres of the patches.

        Returns:
            (F, K, D).
        """
        solid = (patch_name < self.name_count)[..., None]
        name = self.name_tokens()[patch_name.clamp(max=self.name_count - 1)]
        color = (embedding(self.color_ids[patch_color]) * self.color_weights[patch_color][..., None]).sum(-2)
        box = self.box(torch.cat([patch_box, fourier(patch_box)], dim=-1))
        thing = name + self.color(color) + box
        return torch.where(solid, thing, self.background) + 0.3 * self.place(fourier(centers))


def _word_table(tokenizer: TextTokenizer, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return token ids (P + 1, L) of phrases and their weights, with a row of zeros at the end."""
    encoded = [tokenizer.encode_answer(f" {phrase}") for phrase in phrases]
    longest = max(len(ids) for ids in encoded)
    ids = torch.zeros(len(phrases) + 1, longest, dtype=torch.int64)
    weights = torch.zeros(len(phrases) + 1, longest)
    for row, word_ids in enumerate(encoded):
        ids[row, : len(word_ids)] = torch.tensor(word_ids)
        weights[row, : len(word_ids)] = len(word_ids) ** -0.5
    return ids, weights
