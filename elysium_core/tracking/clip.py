"""The paper's tracking protocol: whole clips, offline (section 4.3).

A recording of up to 32 frames is one clip. A longer one is cut into clips of 8 that
overlap by one frame; the box answered for a clip's last frame starts the next clip.
The first frame of a later clip is not reported again. For a model that was trained with clips
of fewer than 8 frames, every clip has at most that many frames.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from elysium_core.engine.engine import Generation, Request
from elysium_core.errors import BackendError, TargetError
from elysium_core.families.base import Seen
from elysium_core.frames import ClipWindow, Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.prompt.questions import RSOT, SOT
from elysium_core.runtime import Runtime
from elysium_core.settings import PAPER_CLIP_FRAMES, TrackingConfig
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.tracking.model_tracker import ModelTracker
from elysium_core.tracking.target import Target
from elysium_core.types import Grounding, TrackState, TrackUpdate

SINGLE_CLIP_FRAMES = 32
"""Frames a recording may have to be tracked as one clip (paper, section 4.3)."""

_SPARE_TOKENS = 32
# Drafted when no box is known. A wrong draft costs next to nothing.
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


class ClipTracker(ModelTracker):
    """Tracks targets in whole clips. Updates are returned when a clip is complete, the last ones by :meth:`flush`.

    Targets must be added before the first frame, because the protocol has no later start.

    Args:
        runtime: The model.
        config: Settings of the tracker.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        self._frames: list[Frame] = []
        # The first of those frames, if it has been encoded as the last frame of the clip before.
        self._overlap: Seen | None = None
        self._clips_done = 0

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._frames, self._overlap, self._clips_done = [], None, 0

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target before the first frame. A box refers to the first frame and has priority over the words.

        Raises:
            ExpressionError: The words cannot be used.
            TargetError: Neither words nor a box were given, there are too many targets, or the first frame was
                given already (``TARGET_LATE``).
        """
        if self._frames or self._clips_done:
            raise TargetError(
                "in clip mode targets are added before the first frame; use stream mode", code="TARGET_LATE"
            )
        return super().add(expression, box)

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Add one frame and return the updates of all clips that are complete with it."""
        require_frame(frame)
        self._stats.failure = None
        self._stats.frames += 1
        self._frames.append(frame)
        updates = [target.stop(frame) for target in self._stopped]
        self._stopped.clear()
        if self._clips_done == 0 and len(self._frames) <= self._longest_clip:
            return updates
        length = self._clip_length
        # One frame more than the clip is needed: otherwise this may be the last clip, which flush() answers.
        while len(self._frames) > length:
            updates += self._run_clip(length)
        return updates

    @property
    def _longest_clip(self) -> int:
        """Longest recording that is one clip: 32 frames, or the trained clip length if that is less than 8."""
        trained = self._runtime.family.settings.clip_length
        return SINGLE_CLIP_FRAMES if trained >= PAPER_CLIP_FRAMES else trained

    def flush(self) -> list[TrackUpdate]:
        """Answer the remaining frames at the end of the recording."""
        self._stats.failure = None
        if self._clips_done == 0:
            return self._run_clip(len(self._frames)) if self._frames else []
        # A single frame is the last frame of the clip before, and has been answered.
        spans = ClipWindow(self._clip_length, 1).spans(len(self._frames)) if len(self._frames) > 1 else []
        return [update for start, stop in spans for update in self._run_clip(stop - start)]

    def _run_clip(self, length: int) -> list[TrackUpdate]:
        """Answer the first ``length`` frames, then drop all of them but the last."""
        frames = self._frames[:length]
        seen = self._observe(frames)
        self._count_engine()
        updates = []
        for position in range(0 if self._clips_done == 0 else 1, length):
            now_s = self._clock.tick(frames[position])
            for target in self._targets.values():
                if target.state is not TrackState.REMOVED:
                    observation = seen[target.target_id][position]
                    updates.append(target.observe(frames[position], now_s, observation, self._config))
        gone = [name for name, target in self._targets.items() if target.state is TrackState.REMOVED]
        for name in gone:
            del self._targets[name]
        self._hand_over(seen)
        self._clips_done += 1
        del self._frames[: length - 1]
        return updates

    def _hand_over(self, seen: Mapping[str, Sequence[Grounding]]) -> None:
        """Choose how each target starts the next clip.

        This is the box of the last frame of the clip. If there is none, it is the expression of the target, or else
        the newest box of the clip.
        """
        for name, observed in seen.items():
            boxes = [observation.box for observation in observed if observation.box is not None]
            if observed[-1].box is None and name in self._targets and self._targets[name].expression:
                self._given.pop(name, None)
            elif boxes:
                self._given[name] = boxes[-1]

    def _observe(self, frames: Sequence[Frame]) -> dict[str, list[Grounding]]:
        """One observation for each target and frame; after a failure of the model, observations without a box."""
        if not self._targets:
            self._overlap = None
            return {}
        try:
            clip = self._encode_clip(frames)
            started = time.perf_counter()
            seen = self._ask(clip)
            self._stats.generate_s = time.perf_counter() - started
        except BackendError as error:
            self._overlap = None
            self._stats.count_failure(error, len(frames))
            seen = {name: [Grounding(None, 0.0, reason=str(error))] * len(frames) for name in self._targets}
        return seen

    def _encode_clip(self, frames: Sequence[Frame]) -> list[Seen]:
        """Encode a clip. The frame that it shares with the clip before is not encoded again."""
        self._stats.encode_s = 0.0
        known = [] if self._overlap is None else [self._overlap]
        clip = known + self._encode([frame.image for frame in frames[len(known) :]])
        self._overlap = clip[-1]
        return clip

    def _ask(self, clip: Sequence[Seen]) -> dict[str, list[Grounding]]:
        """Ask for the boxes of all targets in one clip."""
        requests = [self._request(target, clip) for target in self._targets.values()]
        answers = self._runtime.new_engine(self._counters).answer(requests, self._runtime.family.opening(clip))
        return {name: self._read(answer, clip) for name, answer in zip(self._targets, answers, strict=True)}

    def _request(self, target: Target, clip: Sequence[Seen]) -> Request:
        family, steps, count = self._runtime.family, clip[0].steps, len(clip)
        cue = self._given.get(target.target_id)
        if cue is None:
            question = family.question(RSOT, target.expression)
        else:
            question = family.question(SOT, box=family.grammar.write(cue, steps))
        guess = family.grammar.answer([cue or _MIDDLE] * count, steps)
        draft = AnswerDraft(self._runtime.tokenizer, family.grammar, "", guess)
        # max_new_tokens is meant for clips of 8 frames; longer clips need longer answers.
        allowed = self._config.max_new_tokens * max(count, PAPER_CLIP_FRAMES) // PAPER_CLIP_FRAMES
        return self._runtime.request(question, (), draft, min(draft.expected_tokens + _SPARE_TOKENS, allowed))

    def _read(self, generation: Generation, clip: Sequence[Seen]) -> list[Grounding]:
        answer = self._runtime.read(generation, len(clip), clip[0].steps)
        for problem, times in answer.problems.items():
            self._stats.count_missing(problem, times)
        return [answer.at(frame) for frame in range(len(clip))]
