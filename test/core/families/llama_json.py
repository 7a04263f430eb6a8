"""Another model family, in this one file: a LLaMA that writes JSON boxes in thousandths and follows by words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elysium_core.families.base import Seen
from elysium_core.families.elysium import ElysiumFamily, as_elysium
from elysium_core.families.elysium_loader import load_elysium
from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.families.loaders import LoadedModel
from elysium_core.types import LoadOptions


class LlamaJsonFamily(ElysiumFamily):
    def __init__(self, base: ElysiumFamily) -> None:
        super().__init__(base.network, base.tokenizer, base.vision, base.decoder)
        self.grammar = JsonBoxGrammar(1000)
        self.settings = replace(self.settings, by_words=True)

    def encode(self, images) -> list[Seen]:
        return [replace(seen, steps=(1000, 1000)) for seen in super().encode(images)]

    def question(self, task: str, words: str = "", box: str = "") -> str:
        return f"{task} {words} {box} as JSON".replace("  ", " ")

    def box_digits(self, token_ids: Sequence[int]) -> list[list[int]]:
        return self.grammar.digit_tokens(self.tokenizer.pieces(token_ids))


def load(options: LoadOptions) -> LoadedModel:
    """Its weights lie in a folder beside its config.json."""
    loaded = load_elysium(options.with_options(model=str(Path(options.model) / "weights")))
    return LoadedModel(LlamaJsonFamily(as_elysium(loaded.family)), replace(loaded.info, name=options.model))


def facts(folder: Path) -> dict[str, object]:
    return {"boxes": "thousandths"}
