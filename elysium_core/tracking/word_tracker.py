"""The live tracker of models that follow by words: it asks where each target is in every frame alone.

The last answer about a target is the draft of its next one and no part of the prompt, so a wrong box is not carried on,
and a target that was lost is found in the next frame that shows it. All targets are asked for in one packed pass. A
target that is given by a box alone is described once by the model, and then followed by this description; its updates
say so.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from elysium_core.errors import ExpressionError
from elysium_core.families.base import Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_answer
from elysium_core.prompt.questions import REG
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.box_tree import Residuals, tree_budget
from elysium_core.tracking.find import DraftHints, find_by_words
from elysium_core.tracking.model_tracker import LiveTracker
from elysium_core.tracking.target import Target
from elysium_core.tracking.zoom import Image, zoomed_pictures
from elysium_core.tracking.zoom_search import ZoomSearch
from elysium_core.types import Grounding, TrackState, TrackUpdate

_LOG = logging.getLogger(__name__)

_DESCRIPTION_TOKENS = 32
_LONGEST_DESCRIPTION = 200
# For a model that has no words for what is in a box.
_ANYTHING = "the object"
# IoU below which a box found by a description is not the one that was described.
_SAME_OBJECT_IOU = 0.5


class WordTracker(LiveTracker):
    """Follows targets through one stream by words (protocol: :class:`elysium_core.types.Tracker`).

    Args:
        runtime: A model that finds objects by free language.
        config: Settings; ``window``, ``clip_length`` and ``reground_period_s`` have no effect here.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        # By target id: descriptions of targets without an expression, and the last answers.
        self._described: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        self._residuals: dict[str, Residuals] = defaultdict(partial(Residuals, runtime.family.grammar.levels))
        self._zoom_search = ZoomSearch(runtime, self._encode, self._counters)

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._described, self._answers = {}, {}
        self._residuals.clear()

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target; see :meth:`elysium_core.types.Tracker.add`."""
        target_id = super().add(expression, box)
        if box is not None and self._newest is not None:
            target = self._targets[target_id]
            target.last_box, target.sure_at_s = box, self._clock.now_s
        return target_id

    def _completed(self, target_id: str, update: TrackUpdate) -> TrackUpdate:
        return replace(update, described=self._described.get(target_id, ""))

    def _forget(self, target_id: str) -> None:
        super()._forget(target_id)
        for known in (self._described, self._answers, self._residuals):
            known.pop(target_id, None)

    def _look(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        shown = frame if self._newest is None else self._newest  # the frame that given boxes refer to
        self._describe(shown)
        live = self._encode([frame.image])[0]
        found = self._find(live, list(self._targets.values()))
        if self._config.zoom:
            found = self._zoom_search.go_on(frame.image, found, self._words(self._targets.values()))
        if shown is frame:
            found |= {name: Grounding(box, 1.0) for name, box in self._given.items()}
        self._given = {}
        return {name: found[name] for name in self._targets}

    def _find(self, live: Seen, targets: Sequence[Target]) -> dict[str, Grounding]:
        """Find targets in a frame, and learn from the answers for the next drafts."""
        budget = tree_budget(self._runtime.device.type, self._config.draft_tokens, len(targets))
        guesses = {target.target_id: box for target in targets if (box := self._guess(target)) is not None}
        hints = {
            target.target_id: DraftHints(
                self._answers.get(target.target_id, ""), self._residuals[target.target_id], budget
            )
            for target in targets
        }
        # Of several objects that the words fit, the one that was followed; after it was lost, any may be it.
        near = {
            target.target_id: guesses[target.target_id]
            for target in targets
            if target.target_id in self._given or (target.target_id in guesses and target.state is not TrackState.LOST)
        }
        found = find_by_words(self._runtime, live, self._words(targets), guesses, self._counters, hints, near)
        quantize = self._runtime.family.grammar.quantize
        for name, answer in found.items():
            self._answers[name] = answer.text
            if answer.box is not None and name in guesses:
                self._residuals[name].learn(quantize(guesses[name], live.steps), quantize(answer.box, live.steps))
        return found

    def _guess(self, target: Target) -> Box | None:
        return self._given.get(target.target_id, target.last_box)

    def _words(self, targets: Iterable[Target]) -> dict[str, str]:
        return {target.target_id: target.expression or self._described[target.target_id] for target in targets}

    def _describe(self, shown: Frame) -> None:
        """Describe the targets that were given by a box alone in the frame ``shown``."""
        named = [name for name in self._given if not self._targets[name].expression and name not in self._described]
        if not named:
            return
        whole = self._encode([shown.image])[0]
        for name in named:
            box = self._given[name]
            self._described[name] = words = self._description(shown.image, box)
            place = {name: box}
            found = find_by_words(self._runtime, whole, {name: words}, place, self._counters, near=place)[name]
            if found.box is None or found.box.iou(box) < _SAME_OBJECT_IOU:
                _LOG.warning(
                    "target %s is followed by the words %r, which do not find the object in its own frame; "
                    "give words that do",
                    name,
                    words,
                )
            else:
                self._answers[name] = found.text

    def _description(self, image: Image, box: Box) -> str:
        """The model's words for what is in a box."""
        (picture,), inside = zoomed_pictures([image], box)
        seen, family = self._encode([picture]), self._runtime.family
        question = family.question(REG, box=family.grammar.write(inside, seen[0].steps))
        answer = self._runtime.ask(seen, question, _DESCRIPTION_TOKENS, counters=self._counters)
        text = clean_answer(self._runtime.tokenizer.decode(answer.token_ids)).partition("\n")[0]
        try:
            return self._runtime.clean_words(text.strip(" .\"'")[:_LONGEST_DESCRIPTION])
        except ExpressionError:
            return _ANYTHING
