"""Grounding of expressions in one frame (referring expression comprehension, REC), all of them in common passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from elysium_core.engine.engine import EngineCounters
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.prompt.questions import REC
from elysium_core.runtime import Runtime
from elysium_core.tracking.box_tree import NO_TREE, Residuals, TreeBudget
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.types import Grounding

_ANSWER_TOKENS = 48
_SPARE_TOKENS = 16
# Drafted when no box is known. A wrong draft costs next to nothing.
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


@dataclass(frozen=True, slots=True, eq=False)
class DraftHints:
    """What is known about the answer to an expression that was asked for before.

    Attributes:
        earlier: The text of the last answer, which is drafted again; empty = not known.
        residuals: Statistics of answers and guesses; None = no branches.
        budget: Limits of the draft tree.
    """

    earlier: str = ""
    residuals: Residuals | None = None
    budget: TreeBudget = NO_TREE


_NO_HINTS = DraftHints()


def find_by_words(
    runtime: Runtime,
    seen: Seen,
    expressions: Mapping[str, str],
    guesses: Mapping[str, Box] | None = None,
    counters: EngineCounters | None = None,
    hints: Mapping[str, DraftHints] = MappingProxyType({}),
    near: Mapping[str, Box] = MappingProxyType({}),
) -> dict[str, Grounding]:
    """Find expressions in one frame.

    Args:
        runtime: The model.
        seen: The encoded frame.
        expressions: Cleaned expressions by key.
        guesses: Guessed boxes by key. They affect only the speed.
        counters: Counts passes and tokens.
        hints: What else is known for drafts, by key. They affect only the speed.
        near: Where objects are expected, by key: if an answer has several boxes, the nearest one counts
            (:meth:`elysium_core.runtime.Runtime.read`).

    Returns:
        One answer for each key.
    """
    family = runtime.family
    most_boxes = family.settings.most_boxes
    requests = []
    for key, words in expressions.items():
        box, hint = (guesses or {}).get(key, _MIDDLE), hints.get(key, _NO_HINTS)
        guess, others = (
            family.grammar.answer([box], seen.steps, words),
            family.grammar.other_forms(box, seen.steps, words),
        )
        longest = max(_ANSWER_TOKENS, most_boxes * len(runtime.tokenizer.encode_answer(guess)) + _SPARE_TOKENS)
        if hint.earlier:
            guess, others = hint.earlier, [guess, *others]
        draft = AnswerDraft(runtime.tokenizer, family.grammar, "", guess, hint.residuals, hint.budget, others)
        longest = max(longest, draft.expected_tokens + _SPARE_TOKENS)
        requests.append(runtime.request(family.question(REC, words), (), draft, longest))
    answers = runtime.new_engine(counters).answer(requests, family.opening([seen]))
    return {
        key: runtime.read(answer, 1, seen.steps, family.find_scores(seen, words), near.get(key)).at(0)
        for (key, words), answer in zip(expressions.items(), answers, strict=True)
    }
