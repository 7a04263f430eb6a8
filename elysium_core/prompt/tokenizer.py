"""Conversion of prompts and answers to token ids and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from elysium_core.errors import ModelFileError, pip_line
from elysium_core.io.files import check_inside, check_plain, read_settings_text
from elysium_core.prompt.conversation import Prompt

# Number of texts whose tokens are cached: the questions and labels of many targets, and their latest answers.
_REMEMBERED = 512
# Those of the largest published vocabularies have some 20 MB.
_LARGEST_FILE_BYTES = 256 << 20
# Files that transformers may read for a tokenizer.
_FILES = ("*.json", "*.model", "*.jinja", "merges*", "vocab*")


class TextTokenizer:
    """Encodes prompt pieces and answers with a Hugging Face tokenizer.

    Special tokens are inserted only by id. Text such as ``</s>`` or ``<image>`` is encoded as
    ordinary characters.

    Args:
        tokenizer: A fast ``transformers`` tokenizer like LLaMA's or Qwen's.
        needs_bos: Whether prompt pieces begin with BOS. Qwen's tokenizer has none.

    Raises:
        ModelFileError: The tokenizer has no fast form, or no BOS or EOS token.
    """

    def __init__(self, tokenizer: Any, *, needs_bos: bool = True) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelFileError("the model's tokenizer has no fast form; save it as tokenizer.json")
        backend.encode_special_tokens = True
        self._backend = backend
        self.bos_id = self._special(tokenizer, "bos") if needs_bos else None
        self.eos_id = self._special(tokenizer, "eos")
        self.vocab_size = int(backend.get_vocab_size(with_added_tokens=True))
        # Questions and frame labels repeat in every frame, so their tokens are cached.
        self._cached = lru_cache(maxsize=_REMEMBERED)(self._encode)
        self._cached_piece = lru_cache(maxsize=_REMEMBERED)(self._decode_one)

    @classmethod
    def from_folder(cls, folder: str | Path, *, needs_bos: bool = True) -> TextTokenizer:
        """Load the tokenizer files of a folder or a cached hub id; never touches the network.

        Raises:
            ModelFileError: There is no tokenizer, it cannot be read, or it needs code from the
                folder (``MODEL_UNSAFE``).
        """
        from transformers import AutoTokenizer

        _check_files(Path(folder))
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # a damaged tokenizer.json raises bare Exceptions
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelFileError(f"cannot load a tokenizer from {folder}: {reason}") from error
        return cls(tokenizer, needs_bos=needs_bos)

    @staticmethod
    def _special(tokenizer: Any, kind: str) -> int:
        token_id = getattr(tokenizer, f"{kind}_token_id")
        if token_id is None:
            raise ModelFileError(
                f"the model's tokenizer names no {kind} token; set {kind}_token in tokenizer_config.json"
            )
        return int(token_id)

    def check_fits(self, embeddings: int) -> None:
        """Refuse a language model that has no embedding for a token that prompts may contain.

        Special tokens other than BOS and EOS never occur, because their text is encoded as characters.

        Args:
            embeddings: Number of embeddings of the language model, its ``vocab_size``.

        Raises:
            ModelFileError: Tokenizer and language model do not belong together.
        """
        added = self._backend.get_added_tokens_decoder()
        used = {"EOS": self.eos_id} | ({} if self.bos_id is None else {"BOS": self.bos_id})
        special = {token_id for token_id, token in added.items() if token.special} - set(used.values())
        tokens = {**self._backend.get_vocab(with_added_tokens=True), **used}
        token, largest = max(
            ((token, number) for token, number in tokens.items() if number not in special), key=lambda item: item[1]
        )
        if largest >= embeddings:
            raise ModelFileError(
                f"the tokenizer writes {token!r} as id {largest}, but the language model has embeddings for the ids "
                f"0..{embeddings - 1} only; put the tokenizer that the model was trained with into its folder"
            )

    def _encode(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Token ids, and the place of each in the text."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        return tuple(encoded.ids), tuple(encoded.offsets)

    def encode_piece(self, text: str) -> list[int]:
        """Ids of a prompt piece. Every piece begins with BOS, if there is one, as in the published model."""
        return [*(() if self.bos_id is None else (self.bos_id,)), *self._cached(text)[0]]

    def encode_answer(self, text: str) -> list[int]:
        """Ids of an answer or a further question, without BOS and EOS."""
        return list(self._cached(text)[0])

    def places(self, text: str) -> tuple[tuple[int, int], ...]:
        """Begin and end in a text of each token of :meth:`encode_answer`; a blank before a word may belong to it."""
        return self._cached(text)[1]

    def encode_prompt(self, prompt: Prompt) -> list[list[int]]:
        """Ids of every piece of a prompt."""
        return [self.encode_piece(piece) for piece in prompt.pieces]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of an answer's ids; special tokens are left out."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=True)).strip()

    def special_id(self, text: str) -> int:
        """Id of a special token.

        Raises:
            ModelFileError: The tokenizer has no such token.
        """
        token_id = self._backend.token_to_id(text)
        if token_id is None:
            raise ModelFileError(f"the model's tokenizer has no token {text!r}; put the model's own tokenizer there")
        return int(token_id)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, for tokenizers on bytes; empty for special tokens.

        A part of a character that takes several tokens is written as a replacement character.
        """
        return [self._cached_piece(token_id) for token_id in token_ids]

    def _decode_one(self, token_id: int) -> str:
        return str(self._backend.decode([token_id], skip_special_tokens=True))

    def token_text(self, token_id: int) -> str:
        """The vocabulary entry of one id (``▁`` stands for a blank)."""
        return str(self._backend.id_to_token(token_id) or "")


def _check_files(folder: Path) -> None:
    """Refuse folders for which transformers would print a long, unclear error or run code from the folder."""
    for path in [path for pattern in _FILES for path in folder.glob(pattern) if not path.is_dir()]:
        try:
            check_inside(path, folder)
            check_plain(path, _LARGEST_FILE_BYTES)
        except OSError as error:
            raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        if not (folder / "tokenizer.model").is_file():
            raise ModelFileError(f"there is no tokenizer in {folder}; its file is tokenizer.json or tokenizer.model")
        if missing := [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]:
            raise ModelFileError(
                f"{folder / 'tokenizer.model'} needs {' and '.join(missing)} to be read; run "
                f"`{pip_line('sentencepiece', 'protobuf')}`, or put a tokenizer.json beside it"
            )
    if _declares_code(folder / "tokenizer_config.json"):
        raise ModelFileError(
            f"{folder / 'tokenizer_config.json'} names code to run (auto_map), which is not allowed; remove the key",
            code="MODEL_UNSAFE",
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _declares_code(settings: Path) -> bool:
    """Whether a tokenizer names code to run. A damaged file gives False, and the error comes when it is loaded."""
    try:
        raw = json.loads(read_settings_text(settings))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(raw, dict) and bool(raw.get("auto_map"))
