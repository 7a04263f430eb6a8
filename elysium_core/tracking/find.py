"""Finding things by words in one frame (REC), any number of them in one pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from elysium_core.engine.engine import EngineCounters
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box
from elysium_core.prompt.questions import PUBLISHED, REC, fill
from elysium_core.runtime import Runtime, ScoredAnswer
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.tracking.target import Observation

_ANSWER_TOKENS = 48
# Where nothing is known the middle is as good a guess as any: it costs nothing when wrong.
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


def ground_answers(
    runtime: Runtime,
    visual: Tensor,
    expressions: Mapping[str, str],
    guesses: Mapping[str, Box] | None = None,
    counters: EngineCounters | None = None,
) -> dict[str, ScoredAnswer]:
    """Ask where each expression is in one frame.

    Args:
        runtime: The model.
        visual: Visual tokens (K, D) of the frame.
        expressions: Cleaned words by key.
        guesses: Where something is thought to be, by key; only drafts.
        counters: Where passes and tokens are counted.

    Returns:
        One scored answer a key.
    """
    requests = []
    for key, words in expressions.items():
        draft = AnswerDraft(runtime.tokenizer, "", format_box((guesses or {}).get(key, _MIDDLE)))
        requests.append(runtime.request(fill(PUBLISHED[REC], expression=words), (), draft, _ANSWER_TOKENS))
    answers = runtime.new_engine(counters).answer(requests, runtime.embed_clip([visual]))
    return {key: runtime.scored(answer, 1) for key, answer in zip(expressions, answers, strict=True)}


def observations(answers: Mapping[str, ScoredAnswer]) -> dict[str, Observation]:
    """The boxes of :func:`ground_answers` as observations."""
    seen = {}
    for key, answer in answers.items():
        box = answer.parsed.boxes[0]
        seen[key] = Observation(box, answer.scores[0], "" if box is not None else "the answer has no box")
    return seen
