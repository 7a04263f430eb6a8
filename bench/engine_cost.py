"""Cost of tracking in the language model, as exact counters that do not depend on the machine.

Visual tokens are computed beforehand: only the language model, tokenizer, drafts and parsing run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from bench.engine_recording import IndexedVision, RecordingRuntime, TrueAnswers, indexed_frame
from bench.engine_workload import Scene
from elysium_core.prompt.box_text import quantize
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackUpdate


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model and a scene to measure it with.

    Attributes:
        runtime: The model.
        scene: Frames and true boxes.
        visual: Visual tokens (K, D) of the scene's frames.
        rate_hz: Frames a second.
        scripted: The true boxes are the answers, as for random weights; otherwise the model answers.
        draft_tokens: See :class:`elysium_core.settings.TrackingConfig`.
        clip_length: Frames of a growing window and of a clip; None = the model's own.
    """

    runtime: Runtime
    scene: Scene
    visual: Sequence[Tensor]
    rate_hz: float = 30.0
    scripted: bool = False
    draft_tokens: int = TrackingConfig().draft_tokens
    clip_length: int | None = None

    @property
    def clips_of(self) -> int:
        """Frames of a growing window and of a clip."""
        return self.clip_length or self.runtime.family.settings.clip_length

    def following(self, window: str, targets: int) -> TrackingConfig:
        """Return settings for tracking only: no target is ever uncertain, grounded again or removed."""
        return TrackingConfig(
            window=window,
            clip_length=self.clips_of,
            max_targets=targets,
            score_threshold=0.0,
            remove_after_s=0.0,
            reground_period_s=0.0,
            draft_tokens=self.draft_tokens,
        )


@dataclass(frozen=True, slots=True)
class StreamCost:
    """Exact counters of streams with one target each. The first frame of a stream is not counted.

    Attributes:
        window: ``anchor`` or ``growing``.
        rate_hz: Frame rate that the motion corresponds to [Hz].
        streams: Number of streams.
        frames: Frames of all streams.
        repeat_rate: Share of true coordinates that are the same in the next frame.
        passes: Forward passes a frame.
        passes_max: Most passes in one frame.
        passes_per_answer: Mean number of passes for an answer.
        tokens: Input tokens a frame.
        vision_encodes: Frames encoded for each frame seen.
        acceptance: Share of drafted tokens that were accepted.
        confirmed: Mean number of tokens that one pass adds to an answer, end token included.
        whole_answers: Share of answers that were complete after one pass.
        coordinates: Share of answered coordinates that are those of the previous frame.
        departures: Answers without a usable box.
        kv_tokens: Capacity of the KV cache [tokens].
        kv_used: Most tokens of frames that were in it at once.
    """

    window: str
    rate_hz: float
    streams: int
    frames: int
    repeat_rate: float
    passes: float
    passes_max: int
    passes_per_answer: float
    tokens: float
    vision_encodes: float
    acceptance: float
    confirmed: float
    whole_answers: float
    coordinates: float
    departures: int
    kv_tokens: int
    kv_used: int


@dataclass(frozen=True, slots=True)
class PackingCost:
    """Several targets in one stream, compared with one stream for each target.

    Attributes:
        window: ``anchor`` or ``growing``.
        targets: Number of targets.
        tokens: Input tokens of the one stream.
        tokens_apart: Input tokens of the separate streams.
        passes: Passes of the one stream.
        passes_apart: Passes of the separate streams.
        identical: Boxes that are the same in both cases.
        boxes: Boxes compared.
    """

    window: str
    targets: int
    tokens: int
    tokens_apart: int
    passes: int
    passes_apart: int
    identical: int
    boxes: int

    @property
    def token_ratio(self) -> float:
        """Tokens of the one stream over those of the separate streams."""
        return self.tokens / max(1, self.tokens_apart)


@dataclass(slots=True, eq=False)
class StreamRun:
    """The counters of one stream.

    Attributes:
        updates: Updates of every frame.
        passes: Forward passes of every frame.
        tokens: Input tokens of every frame.
        vision_encodes: Frames encoded.
        departures: Answers without a usable box.
    """

    updates: list[list[TrackUpdate]]
    passes: list[int]
    tokens: list[int]
    vision_encodes: int = 0
    departures: int = 0


def run_stream(subject: Subject, runtime: RecordingRuntime, window: str, targets: Sequence[int]) -> StreamRun:
    """Track targets through all frames of a scene, starting from their first boxes."""
    tracker = StreamTracker(runtime, subject.following(window, len(targets)))
    for target in targets:
        tracker.add(box=subject.scene.boxes[target][0])
    run = StreamRun([], [], [])
    for step in range(len(subject.scene.images)):
        passes, tokens = tracker.stats.llm_passes, tracker.stats.llm_tokens
        run.updates.append(tracker.step(indexed_frame(subject.scene.place(step), step, subject.rate_hz)))
        run.passes.append(tracker.stats.llm_passes - passes)
        run.tokens.append(tracker.stats.llm_tokens - tokens)
    run.vision_encodes = tracker.stats.vision_encodes
    run.departures = sum(tracker.stats.parse_failures.values())
    return run


def stream_runtime(subject: Subject, targets: Sequence[int], **keeps: bool) -> RecordingRuntime:
    """Return a runtime for one run of a stream."""
    spans = ([subject.scene.place(step)] for step in range(1, len(subject.scene.images)))
    return RecordingRuntime(subject.runtime, IndexedVision(subject.visual), script(subject, targets, spans), **keeps)


def script(subject: Subject, targets: Sequence[int], spans: Iterable[Sequence[int]]) -> TrueAnswers | None:
    """Return the true answers about the frames of each span; None if the model answers itself."""
    if not subject.scripted:
        return None
    return TrueAnswers([subject.scene.boxes[target] for target in targets], subject.runtime.tokenizer, spans)


def measure_streams(subjects: Sequence[Subject], window: str) -> StreamCost:
    """Count the cost of tracking, with one stream for every target of every scene.

    Args:
        subjects: One model with several scenes at one frame rate.
        window: ``anchor`` or ``growing``.
    """
    runs, answers = [], []
    kv_tokens = kv_used = 0
    for subject in subjects:
        for target in range(len(subject.scene.boxes)):
            runtime = stream_runtime(subject, [target], keeps_answers=True)
            runs.append(run_stream(subject, runtime, window, [target]))
            answers += runtime.generations
            kv_tokens, kv_used = max(kv_tokens, runtime.kv_tokens), max(kv_used, runtime.kv_used)
    asked = [passes for run in runs for passes in run.passes[1:]]
    passes_of_answers, drafted = sum(answer.passes for answer in answers), sum(answer.drafted for answer in answers)
    return StreamCost(
        window=window,
        rate_hz=subjects[0].rate_hz,
        streams=len(runs),
        frames=len(asked),
        repeat_rate=sum(subject.scene.repeat_rate for subject in subjects) / len(subjects),
        passes=sum(asked) / len(asked),
        passes_max=max(asked),
        passes_per_answer=passes_of_answers / len(answers),
        tokens=sum(sum(run.tokens[1:]) for run in runs) / len(asked),
        vision_encodes=sum(run.vision_encodes for run in runs) / sum(len(run.passes) for run in runs),
        acceptance=sum(answer.accepted for answer in answers) / max(1, drafted),
        confirmed=sum(len(answer.token_ids) + answer.finished for answer in answers) / passes_of_answers,
        whole_answers=sum(answer.finished and answer.passes == 1 for answer in answers) / len(answers),
        coordinates=_repeated(runs),
        departures=sum(run.departures for run in runs),
        kv_tokens=kv_tokens,
        kv_used=kv_used,
    )


def _repeated(runs: Sequence[StreamRun]) -> float:
    """Return the share of answered coordinates that equal those of the previous frame."""
    same = total = 0
    for run in runs:
        boxes = [update.box for updates in run.updates for update in updates]
        for old, new in pairwise(boxes):
            if old is not None and new is not None:
                same += sum(a == b for a, b in zip(quantize(old), quantize(new), strict=True))
                total += 4
    return same / max(1, total)


def measure_packing(subject: Subject, window: str, counts: Sequence[int]) -> Iterator[PackingCost]:
    """Count the cost of targets in one stream and in separate streams.

    Args:
        subject: A subject with as many targets as the largest count.
        window: ``anchor`` or ``growing``.
        counts: Numbers of targets to measure.
    """
    apart = [run_stream(subject, stream_runtime(subject, [n]), window, [n]) for n in range(max(counts))]
    for count in counts:
        targets = range(count)
        together = run_stream(subject, stream_runtime(subject, targets), window, targets)
        pairs = [
            (update.box, apart[n].updates[step][0].box)
            for step, updates in enumerate(together.updates)
            for n, update in enumerate(updates)
        ]
        yield PackingCost(
            window=window,
            targets=count,
            tokens=sum(together.tokens),
            tokens_apart=sum(sum(run.tokens) for run in apart[:count]),
            passes=sum(together.passes),
            passes_apart=sum(sum(run.passes) for run in apart[:count]),
            identical=sum(mine == alone for mine, alone in pairs),
            boxes=len(pairs),
        )
