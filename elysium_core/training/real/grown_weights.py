"""Further names for a trained model: the weights of a checkpoint, with rows for words that it did not know.

Everything that follows objects is taken over as it is, and a stage of kind ``find`` leaves it alone. With the same
vision encoder, so are the selector of frames and the rows of known names; only the rows of new words are new. Another
vision encoder needs a selector of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.locations import base_settings, checkpoint_folder, tokenizer_folder
from elysium_core.errors import DataError
from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.real.real_model import texts_of_tasks
from elysium_core.training.real.real_recipe import RealRecipe

EMBEDDING = "network.llm.model.embed_tokens.weight"
"""The language model's rows of tokens."""

_HEAD = "network.llm.lm_head.weight"
_NETWORK, _ADAPTER, _ENCODER = "network.", "network.adapter.", "network.visual_encoder."


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What a model calls things, and with which tokens.

    Attributes:
        names: Its names.
        tokenizer: Its tokenizer.
    """

    names: Sequence[str]
    tokenizer: TextTokenizer

    @classmethod
    def of_checkpoint(cls, name_or_path: str) -> KnownNames:
        """Those of a checkpoint.

        Raises:
            ModelFileError: There is no such checkpoint.
        """
        folder = checkpoint_folder(name_or_path)
        config = ElysiumConfig.from_file(folder / CONFIG_NAME)
        return cls(config.vocabulary, TextTokenizer.from_folder(tokenizer_folder(config.llm, folder)))

    def name_ids(self) -> list[int]:
        """Number of the last token of each name."""
        return [self.tokenizer.encode_answer(f"the {name}")[-1] for name in self.names]


def earlier_weights(recipe: RealRecipe, first: Mapping[str, Tensor], tokenizer: TextTokenizer) -> dict[str, Tensor]:
    """First weights of a model that extends a checkpoint.

    Args:
        recipe: With ``extends``.
        first: First weights of the model, without that checkpoint.
        tokenizer: Of the model.

    Raises:
        DataError: The checkpoint cannot be extended to this model.
        ModelFileError: It cannot be loaded.
    """
    loaded = load_checkpoint(recipe.extends, dtype=torch.float32)
    before, now = KnownNames.of_checkpoint(recipe.extends), KnownNames(recipe.model.words, tokenizer)
    if lost := [name for name in before.names if name not in now.names]:
        raise DataError(f"model.words lacks {', '.join(lost)}; keep all names of extends = {recipe.extends!r}")
    weights = {f"{_NETWORK}{name}": value for name, value in loaded.network.state_dict().items()}
    if has_other_encoder(recipe):
        if not any(stage.selector_lr for stage in recipe.stages.values()):
            raise DataError(
                f"extends = {recipe.extends!r} has another vision encoder, so that the selector of frames must be "
                "trained; give a stage a selector_lr"
            )
        shared = {name for name, value in first.items() if name in weights and value.shape == weights[name].shape}
        weights = {
            name: value
            for name, value in weights.items()
            if not name.startswith(_ADAPTER) and (name in shared or not name.startswith(_ENCODER))
        }
    return dict(first) | grown_weights(weights, first, before, now, recipe.model.system_text)


def has_other_encoder(recipe: RealRecipe) -> bool:
    """Whether a recipe's model has a vision encoder of another kind than the checkpoint that it extends."""
    folder = checkpoint_folder(recipe.extends)
    settings, _ = base_settings(ElysiumConfig.from_file(folder / CONFIG_NAME).vision, folder)
    return bool(settings.get("model_type") != recipe.model.encoder)


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
        DataError: The tokenizer splits a known text in another way than before, or a weight has another shape.
    """
    _require_same_texts(before, now, system_text)
    grown = {name: value.clone() for name, value in weights.items()}
    embedding = first[EMBEDDING].clone()
    embedding[: before.tokenizer.vocab_size] = weights[EMBEDDING]
    further = [number for number in now.name_ids() if number >= before.tokenizer.vocab_size]
    embedding[further] = _mixtures(weights[EMBEDDING][before.name_ids()], len(further))
    grown[EMBEDDING] = embedding
    if _HEAD in first:
        grown[_HEAD] = embedding
    for name, value in grown.items():
        if name not in first or value.shape != first[name].shape:
            raise DataError(f"the model differs from the one that it extends: {name} has another shape there")
    return grown


def new_rows(before: KnownNames, now: KnownNames, *, all_names: bool) -> Tensor:
    """(R,) int64, numbers of the tokens that the earlier model lacks; with ``all_names``, also those of its names."""
    new = set(range(before.tokenizer.vocab_size, now.tokenizer.vocab_size))
    return torch.tensor(sorted(new | set(before.name_ids() if all_names else ())), dtype=torch.int64)


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
