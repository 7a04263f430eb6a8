"""Training of the small tokenizer of nano models: whole words of the training texts, bytes for all other text.

The tokens follow LLaMA's tokenizer (``▁`` before a word, single digits, byte fallback), so that
boxes have the same number of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TOKENIZER_NAME = "tokenizer.json"
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
# A word, a digit or another character, each with the blank before it.
_PIECE = r"▁?[A-Za-z']+|▁?[0-9]|▁?[^A-Za-z0-9▁]|▁"


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a BPE tokenizer.

    Args:
        corpus: Texts that contain every word the model must read or write.
        vocab_size: Largest number of tokens, including 256 bytes and 3 special tokens.
    """
    unknown = SPECIAL_TOKENS[0]
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=list("▁0123456789[],.:?'\n"),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(corpus), trainer)
    # The trainer can reserve bytes only as special tokens, which decoding skips. So they are made normal tokens here.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL_TOKENS]
    return Tokenizer.from_str(json.dumps(state))


def extend_tokenizer(tokenizer: Tokenizer, words: Iterable[str]) -> Tokenizer:
    """Give words tokens of their own; all other texts are split as before, and known tokens keep their numbers.

    Args:
        tokenizer: One of :func:`train_tokenizer`.
        words: Words; those that are one token already change nothing.

    Returns:
        The larger tokenizer.
    """
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for word in dict.fromkeys(words):
        if len(tokenizer.encode(word, add_special_tokens=False).ids) > 1:
            vocab[f"▁{word}"] = len(vocab)
    # A piece of text that is an entry is that token; only the others are put together of shorter ones.
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` in the format of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_NAME))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
