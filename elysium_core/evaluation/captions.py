"""METEOR 1.5 and CIDEr-D of descriptions, through pycocoevalcap (an extra) and its Java tools."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elysium_core.errors import BackendError


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Figures of one set of descriptions.

    Attributes:
        meteor: METEOR 1.5 of the set, 0..1; tables print it times 100.
        cider: CIDEr-D of the set, 0..10; tables print it times 100, so that 1.153 reads 115.3.
        meteor_each: METEOR of each item.
        cider_each: CIDEr-D of each item; it changes with the set it is scored in.
    """

    meteor: float
    cider: float
    meteor_each: tuple[float, ...]
    cider_each: tuple[float, ...]


class CaptionScorer:
    """One METEOR process for any number of sets; starting it takes seconds and 2 GB.

    Raises:
        BackendError: Java or pycocoevalcap is not there.
    """

    def __init__(self) -> None:
        if shutil.which("java") is None:
            raise BackendError("METEOR and CIDEr need Java; install a Java runtime, such as default-jre-headless")
        try:
            from pycocoevalcap.cider.cider import Cider
            from pycocoevalcap.meteor.meteor import Meteor
            from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
        except ImportError as error:
            raise BackendError(
                "METEOR and CIDEr need pycocoevalcap, which is not installed: pip install 'elysium-core[eval]'"
            ) from error
        self._tokenizer: Any = PTBTokenizer()
        self._meteor: Any = Meteor()
        self._cider: Any = Cider()

    def score(self, answers: Sequence[str], references: Sequence[str]) -> CaptionScores:
        """Score a set of descriptions, one reference each.

        Args:
            answers: What the model wrote; an empty one scores 0.
            references: What is right, in the same order; none is empty.

        Raises:
            BackendError: A Java tool failed.
        """
        # The tools print their progress on stdout, which belongs to the results.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                # One Java process for both; its start is most of the time.
                tokens = self._tokenizer.tokenize(_captions([*answers, *references]))
                answer_tokens = {index: tokens[index] for index in range(len(answers))}
                reference_tokens = {index: tokens[len(answers) + index] for index in range(len(references))}
                meteor, meteor_each = self._meteor.compute_score(reference_tokens, answer_tokens)
                cider, cider_each = self._cider.compute_score(reference_tokens, answer_tokens)
            except (OSError, ValueError, AssertionError) as error:
                raise BackendError(
                    f"a Java tool of pycocoevalcap failed ({error!r}); is there 2 GB of memory?"
                ) from error
        return CaptionScores(
            float(meteor), float(cider), tuple(float(v) for v in meteor_each), tuple(float(v) for v in cider_each)
        )


def _captions(texts: Sequence[str]) -> dict[int, list[dict[str, str]]]:
    """Return texts as the tokenizer takes them: one line each, none empty, without METEOR's field separator.

    A lone full stop is removed again by the tokenizer; an empty line at the end it would lose.
    """
    return {index: [{"caption": " ".join(text.replace("|||", " ").split()) or "."}] for index, text in enumerate(texts)}
