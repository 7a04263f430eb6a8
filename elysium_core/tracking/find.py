"""Grounding of expressions in one frame (referring expression comprehension, REC), all of them in common passes."""

from __future__ import annotations

from collections.abc import Mapping

from elysium_core.engine.engine import EngineCounters
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.prompt.questions import REC
from elysium_core.runtime import Runtime
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.types import Grounding

_ANSWER_TOKENS = 48
# Drafted when no box is known. A wrong draft costs next to nothing.
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


def find_by_words(
    runtime: Runtime,
    seen: Seen,
    expressions: Mapping[str, str],
    guesses: Mapping[str, Box] | None = None,
    counters: EngineCounters | None = None,
) -> dict[str, Grounding]:
    """Find expressions in one frame.

    Args:
        runtime: The model.
        seen: The encoded frame.
        expressions: Cleaned expressions by key.
        guesses: Guessed boxes by key. They affect only the speed.
        counters: Counts passes and tokens.

    Returns:
        One answer for each key.
    """
    family = runtime.family
    requests = []
    for key, words in expressions.items():
        guess = family.grammar.answer([(guesses or {}).get(key, _MIDDLE)], seen.steps)
        draft = AnswerDraft(runtime.tokenizer, family.grammar, "", guess)
        requests.append(runtime.request(family.question(REC, words), (), draft, _ANSWER_TOKENS))
    answers = runtime.new_engine(counters).answer(requests, family.opening([seen]))
    scores = family.settings.find_scores
    return {
        key: runtime.read(answer, 1, seen.steps, scores).at(0) for key, answer in zip(expressions, answers, strict=True)
    }
