"""The paper's tracking protocol: whole clips, offline (section 4.3).

A recording of up to 32 frames is one clip. A longer one is cut into clips of 8 that
overlap by one frame; the box answered for a clip's last frame starts the next clip.
The first frame of a later clip is not reported again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from elysium_core.errors import TargetError
from elysium_core.frames import ClipWindow, Frame
from elysium_core.geometry import Box
from elysium_core.inference.engine import EngineCounters
from elysium_core.inference.runtime import Runtime
from elysium_core.text.box_text import format_box, format_track
from elysium_core.text.questions import PUBLISHED, RSOT, SOT, fill
from elysium_core.tracking.config import TrackingConfig
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.tracking.target import Observation, StreamClock, Target
from elysium_core.tracking.types import TrackerStats, TrackState, TrackUpdate

SINGLE_CLIP_FRAMES = 32
_SPARE_TOKENS = 32


class ClipTracker:
    """Tracks in whole clips; updates come when a clip is complete, the rest from :meth:`flush`.

    Targets are added before the first frame: the protocol has no later start.

    Args:
        runtime: The model.
        config: Settings.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        self._runtime = runtime
        self._config = config
        self._stats = TrackerStats()
        self._counters = EngineCounters()
        self._next_id = 1
        self.reset()

    @property
    def config(self) -> TrackingConfig:
        """Current settings."""
        return self._config

    @property
    def stats(self) -> TrackerStats:
        """Counters since the tracker was made."""
        return self._stats

    @property
    def target_ids(self) -> list[str]:
        """Ids of the targets that are followed."""
        return list(self._targets)

    def configure(self, config: TrackingConfig) -> None:
        """Take new settings from the next clip on."""
        self._config = config

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        self._clock = StreamClock()
        self._targets: dict[str, Target] = {}
        self._cues: dict[str, Box] = {}
        self._frames: list[Frame] = []
        self._visual: list[Tensor] = []
        self._clips_done = 0

    def add(self, expression: str = "", box: Box | None = None) -> str:
        """Start a target before the first frame; a box refers to that frame.

        Raises:
            ExpressionError: The words cannot be used.
            TargetError: Nothing was given, there are too many targets, or frames have been seen.
        """
        if not expression and box is None:
            raise TargetError("a target needs an expression, a box, or both", code="TARGET_EMPTY")
        if self._frames or self._clips_done:
            raise TargetError("in clip mode targets are added before the first frame; use stream mode", code="TARGET_LATE")
        if len(self._targets) >= self._config.max_targets:
            raise TargetError(f"there are already {self._config.max_targets} targets", code="TARGET_LIMIT")
        words = self._runtime.clean_words(expression) if expression else ""
        target = Target(str(self._next_id), words)
        self._next_id += 1
        self._targets[target.target_id] = target
        if box is not None:
            self._cues[target.target_id] = box
        return target.target_id

    def remove(self, target_id: str) -> None:
        """Stop a target; nothing more is reported about it."""
        if target_id not in self._targets:
            raise TargetError(f"there is no target {target_id!r}", code="TARGET_UNKNOWN")
        del self._targets[target_id]

    def step(self, frame: Frame) -> list[TrackUpdate]:
        """Take in one frame; returns the updates of every clip that is complete with it."""
        self._stats.frames += 1
        self._frames.append(frame)
        started = time.perf_counter()
        self._visual += self._runtime.encode_frames([frame.image])
        self._stats.encode_s = time.perf_counter() - started
        self._stats.vision_encodes += 1
        if self._clips_done == 0 and len(self._frames) <= SINGLE_CLIP_FRAMES:
            return []
        updates: list[TrackUpdate] = []
        length = self._config.clip_length
        # A frame more than the clip must be there: else this clip may be the last and shorter one.
        while len(self._frames) > length:
            updates += self._run_clip(length)
        return updates

    def flush(self) -> list[TrackUpdate]:
        """Answer the frames that are left at the end of the recording."""
        if not self._frames:
            return []
        if self._clips_done == 0:
            return self._run_clip(len(self._frames), keep=0)
        spans = ClipWindow(self._config.clip_length, 1).spans(len(self._frames))
        updates = [update for start, stop in spans for update in self._run_clip(stop - start)]
        self._frames, self._visual = [], []
        return updates

    def _run_clip(self, length: int, keep: int = 1) -> list[TrackUpdate]:
        """Answer the first ``length`` frames and drop all but the last ``keep`` of them."""
        frames, visual = self._frames[:length], self._visual[:length]
        first_new = 0 if self._clips_done == 0 else 1
        started = time.perf_counter()
        seen = self._ask(visual)
        self._stats.generate_s = time.perf_counter() - started
        self._stats.llm_passes, self._stats.llm_tokens = self._counters.passes, self._counters.tokens
        updates = []
        for position in range(first_new, length):
            now_s = self._clock.tick(frames[position])
            for name, target in self._targets.items():
                if target.state is not TrackState.REMOVED:
                    updates.append(target.observe(frames[position], now_s, seen[name][position], self._config))
        for name, observed in seen.items():
            if (last := observed[-1].box) is not None:
                self._cues[name] = last
        self._clips_done += 1
        del self._frames[: length - keep], self._visual[: length - keep]
        return updates

    def _ask(self, visual: Sequence[Tensor]) -> dict[str, list[Observation]]:
        """Ask about all targets behind one clip."""
        count = len(visual)
        requests = []
        for name, target in self._targets.items():
            cue = self._cues.get(name)
            by_words = target.expression and (self._clips_done == 0 or cue is None)
            if by_words or cue is None:
                question = fill(PUBLISHED[RSOT], expression=target.expression)
            else:
                question = fill(PUBLISHED[SOT], box=format_box(cue))
            draft = AnswerDraft(self._runtime.tokenizer, "", format_track([cue or Box(0.25, 0.25, 0.75, 0.75)] * count))
            requests.append(self._runtime.request(question, (), draft, len(draft(())) + _SPARE_TOKENS))
        engine = self._runtime.new_engine(self._counters)
        answers = engine.answer(requests, self._runtime.embed_clip(visual)) if requests else []
        seen = {}
        for name, answer in zip(self._targets, answers, strict=True):
            scored = self._runtime.scored(answer, count)
            for problem, times in scored.parsed.problems.items():
                self._stats.parse_failures[problem] = self._stats.parse_failures.get(problem, 0) + times
            seen[name] = [
                Observation(box, score, "" if box is not None else "the answer has no box for this frame")
                for box, score in zip(scored.parsed.boxes, scored.scores, strict=True)
            ]
        return seen
