"""Finding things by words in one frame (REC), any number of them in one pass."""

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
# Where nothing is known the middle is as good a guess as any: it costs nothing when wrong.
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


def find_by_words(
    runtime: Runtime,
    seen: Seen,
    expressions: Mapping[str, str],
    guesses: Mapping[str, Box] | None = None,
    counters: EngineCounters | None = None,
) -> dict[str, Grounding]:
    """Ask where each expression is in one frame.

    Args:
        runtime: The model.
        seen: The frame.
        expressions: Cleaned words by key.
        guesses: Where something is thought to be, by key; only drafts.
        counters: Where passes and tokens are counted.

    Returns:
        One answer a key.
    """
    family = runtime.family
    requests = []
    for key, words in expressions.items():
        guess = family.grammar.answer([(guesses or {}).get(key, _MIDDLE)], seen.steps)
        draft = AnswerDraft(runtime.tokenizer, family.grammar, "", guess)
        requests.append(runtime.request(family.question(REC, words), (), draft, _ANSWER_TOKENS))
    answers = runtime.new_engine(counters).answer(requests, family.opening([seen]))
    return {key: runtime.read(answer, 1, seen.steps).at(0) for key, answer in zip(expressions, answers, strict=True)}
