"""What following targets costs the language model, in counters that are the same on every machine.

Visual tokens are computed beforehand, so that only the language model and what surrounds
it (tokenizer, drafts, parsing) is run.
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
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig, TrackUpdate


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model and what it is shown.

    Attributes:
        runtime: The model.
        scene: Where the targets are.
        visual: Visual tokens (K, D) of the scene's frames.
        rate_hz: Frames a second.
        scripted: Whether the answers are the truth instead of the model's own, as for random weights.
        draft_tokens: See :class:`elysium_core.types.TrackingConfig`.
        clip_length: Frames of a growing window and of a clip; None = as the checkpoint recommends.
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
        """Settings of nothing but following: no box is doubted, nothing is asked for by words or given up."""
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
    """Exact counters of streams with one target each. A frame is one that was asked about: all but the first.

    Attributes:
        window: ``anchor`` or ``growing``.
        rate_hz: Frames a second the motion stands for.
        streams: Streams.
        frames: Frames of all streams.
        repeat_rate: Share of the targets' true coordinates that are the same in the next frame.
        passes: Forward passes a frame.
        passes_max: Most passes in one frame.
        passes_per_answer: Passes an answer took part in, on average.
        tokens: Tokens fed a frame.
        vision_encodes: Frames encoded for each frame seen.
        acceptance: Share of drafted tokens that were right.
        confirmed: Tokens that the model confirmed or wrote in one pass of an answer, the end token included.
        whole_answers: Share of answers that one pass confirmed from first to last.
        coordinates: Share of coordinates that are those of the frame before, which is what is drafted.
        departures: Answers without a usable box.
        kv_tokens: Tokens there is memory for.
        kv_used: Most tokens of frames that were held at once.
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
    """Targets in one stream, against a stream for each.

    Attributes:
        window: ``anchor`` or ``growing``.
        targets: Targets.
        tokens: Tokens fed together.
        tokens_apart: Tokens fed by the separate streams.
        passes: Passes together.
        passes_apart: Passes of the separate streams.
        identical: Boxes that are the same in both.
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
        """Tokens together over tokens apart."""
        return self.tokens / max(1, self.tokens_apart)


@dataclass(slots=True, eq=False)
class StreamRun:
    """One stream, followed to its end.

    Attributes:
        updates: Of every frame.
        passes: Forward passes for every frame.
        tokens: Tokens fed for every frame.
        vision_encodes: Frames encoded.
        departures: Answers without a usable box.
    """

    updates: list[list[TrackUpdate]]
    passes: list[int]
    tokens: list[int]
    vision_encodes: int = 0
    departures: int = 0


def run_stream(subject: Subject, runtime: RecordingRuntime, window: str, targets: Sequence[int]) -> StreamRun:
    """Follow targets, given by their first boxes, through all frames of a scene."""
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
    """A runtime for one run of a stream."""
    spans = ([subject.scene.place(step)] for step in range(1, len(subject.scene.images)))
    return RecordingRuntime(subject.runtime, IndexedVision(subject.visual), script(subject, targets, spans), **keeps)


def script(subject: Subject, targets: Sequence[int], spans: Iterable[Sequence[int]]) -> TrueAnswers | None:
    """What is answered about the frames of each span; None if the model speaks for itself."""
    if not subject.scripted:
        return None
    return TrueAnswers([subject.scene.boxes[target] for target in targets], subject.runtime.tokenizer, spans)


def measure_streams(subjects: Sequence[Subject], window: str) -> StreamCost:
    """Count what following costs: every target of every scene in a stream of its own.

    Args:
        subjects: One model with one or more scenes, at one frame rate.
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
    """Share of coordinates of answered boxes that equal those of the frame before."""
    same = total = 0
    for run in runs:
        boxes = [update.box for updates in run.updates for update in updates]
        for old, new in pairwise(boxes):
            if old is not None and new is not None:
                same += sum(a == b for a, b in zip(quantize(old), quantize(new), strict=True))
                total += 4
    return same / max(1, total)


def measure_packing(subject: Subject, window: str, counts: Sequence[int]) -> Iterator[PackingCost]:
    """Count what targets cost together and apart.

    Args:
        subject: With as many targets as the largest count.
        window: ``anchor`` or ``growing``.
        counts: Numbers of targets.
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
