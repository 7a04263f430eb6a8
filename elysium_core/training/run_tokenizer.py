"""The tokenizer of a run from scratch: trained once, shared by all of its stages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from elysium_core.io.files import temporary_beside
from elysium_core.prompt.build_tokenizer import save_tokenizer
from elysium_core.prompt.tokenizer import TextTokenizer

TOKENIZER_FOLDER = "tokenizer"
SMALLEST_VOCABULARY = 320
"""256 bytes, 3 special tokens, and the letters that the texts of the tasks need."""


def load_or_make(make: Callable[[], Tokenizer], folder: Path) -> TextTokenizer:
    """Load the tokenizer from ``folder`` as a user would; where there is none, make it first.

    Args:
        make: Makes it.
        folder: Of the tokenizer's files.
    """
    if not folder.is_dir():
        # Stages may start at the same time: the folder appears with all its files, or not yet.
        draft = temporary_beside(folder)
        try:
            save_tokenizer(make(), draft)
            os.replace(draft, folder)
        except OSError:
            # Another stage of the run was faster; what it wrote is the same.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return TextTokenizer.from_folder(folder)
