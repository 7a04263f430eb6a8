"""Our engine against transformers' ``generate``: the same weights, prompts and frames, in one run.

Visual tokens are computed beforehand for all. transformers is given ready embeddings:
tokenizer, drafts and parsing are on our account alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from elysium_core.evaluation.engine_cost import Subject, run_stream, script, stream_runtime
from elysium_core.evaluation.engine_recording import Asked, IndexedVision, RecordingRuntime, indexed_frame
from elysium_core.evaluation.hf_decoder import HfDecoder
from elysium_core.evaluation.paired_times import Ratio, Seconds, compare, time_in_turns
from elysium_core.frames import ClipWindow
from elysium_core.tracking.clip import SINGLE_CLIP_FRAMES, ClipTracker
from elysium_core.tracking.types import TrackerStats

MIN_FRAMES = SINGLE_CLIP_FRAMES + 1
"""Shorter recordings are one clip by the paper's protocol, not several."""

STREAM, CLIP = "stream", "clip"
HF_LIVE, HF_CONTINUED, HF_CLIPS = "hf live", "hf live, continued", "hf clips"
RATIOS = ((HF_LIVE, STREAM), (HF_CONTINUED, STREAM), (HF_CLIPS, STREAM), (HF_CLIPS, CLIP))
"""Baseline and ours of every ratio that is told."""


@dataclass(frozen=True, slots=True)
class PeerCost:
    """One way of answering the same frames.

    Attributes:
        name: ``stream`` and ``clip`` are ours. ``hf live`` writes the whole answer anew for every frame,
            ``hf live, continued`` only the newest box behind the boxes so far (the stream's own prompts),
            ``hf clips`` the answer of every clip.
        passes: Forward passes a frame.
        tokens: Tokens fed a frame.
        seconds: Median time of the whole run [s]; None if it was not timed.
        identical: Answers of ours that transformers gives, too; None where prompts differ, or answers are scripted.
        answers: Answers compared.
    """

    name: str
    passes: float
    tokens: float
    seconds: float | None = None
    identical: int | None = None
    answers: int = 0


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """Our ways against transformers'.

    Attributes:
        window: Window of the stream: ``anchor`` or ``growing``.
        frames: Frames of the recording.
        peers: Every way, measured.
        ratios: Baseline and ours of :data:`RATIOS` -> how many times faster ours is; empty if nothing was timed.
    """

    window: str
    frames: int
    peers: tuple[PeerCost, ...]
    ratios: Mapping[tuple[str, str], Ratio] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same in JSON's own types."""
        return {
            "window": self.window,
            "frames": self.frames,
            "peers": [asdict(peer) for peer in self.peers],
            "ratios": [
                {"baseline": baseline, "ours": ours, **asdict(ratio)} for (baseline, ours), ratio in self.ratios.items()
            ],
        }


def measure_peers(subject: Subject, window: str, turns: int) -> PeerComparison:
    """Answer the same frames in five ways, compare the answers, and time them in turns.

    Args:
        subject: Of at least :data:`MIN_FRAMES` frames; only its first target is followed.
        window: Window of the stream.
        turns: Timed turns, after one that counts and compares; 0 = no times.
    """
    frames = len(subject.scene.images)
    stream, clip = stream_runtime(subject, [0], keeps_prompts=True), _clip_runtime(subject, keeps_prompts=True)
    followed, clips = run_stream(subject, stream, window, [0]), _run_clips(subject, clip)
    peers = [
        PeerCost(STREAM, sum(followed.passes) / frames, sum(followed.tokens) / frames),
        PeerCost(CLIP, clips.llm_passes / frames, clips.llm_tokens / frames),
    ]
    hf = HfDecoder(subject.runtime.network.llm, subject.runtime.tokenizer.eos_id)
    forced = subject.scripted
    theirs: dict[str, Callable[[], list[list[int]]]] = {
        HF_LIVE: lambda: [_generate_anew(hf, asked, forced) for asked in stream.asked],
        HF_CONTINUED: lambda: [_generate(hf, asked, forced) for asked in stream.asked],
        HF_CLIPS: lambda: [_generate(hf, asked, forced) for asked in clip.asked],
    }
    same_prompts = {} if forced else {HF_CONTINUED: stream, HF_CLIPS: clip}
    for name, run in theirs.items():
        hf.passes = hf.tokens = 0
        answers = run()
        cost = PeerCost(name, hf.passes / frames, hf.tokens / frames, answers=len(answers))
        if name in same_prompts:
            own = [asked.answer.token_ids for asked in same_prompts[name].asked]
            cost = replace(cost, identical=sum(mine == other for mine, other in zip(own, answers, strict=True)))
        peers.append(cost)
    runs: dict[str, Callable[[], object]] = {
        STREAM: lambda: run_stream(subject, stream_runtime(subject, [0]), window, [0]),
        CLIP: lambda: _run_clips(subject, _clip_runtime(subject)),
        **theirs,
    }
    times = time_in_turns(runs, turns, subject.runtime.device) if turns else {}
    ratios = {pair: compare(times[pair[0]], times[pair[1]]) for pair in RATIOS if times}
    return PeerComparison(window, frames, tuple(_with_time(peer, times) for peer in peers), ratios)


def _with_time(peer: PeerCost, times: Mapping[str, Seconds]) -> PeerCost:
    return replace(peer, seconds=float(np.median(times[peer.name]))) if times else peer


def _generate(hf: HfDecoder, asked: Asked, forced: bool) -> list[int]:
    """What transformers writes behind a prompt of ours."""
    return hf.generate(asked.prompt, asked.max_new_tokens, asked.answer.token_ids if forced else None)


def _generate_anew(hf: HfDecoder, asked: Asked, forced: bool) -> list[int]:
    """What transformers writes when it is given no part of the answer."""
    longest = asked.max_new_tokens + len(asked.given_ids)
    return hf.generate(asked.bare_prompt, longest, asked.whole_answer if forced else None)


def _clip_runtime(subject: Subject, **keeps: bool) -> RecordingRuntime:
    spans = ClipWindow(subject.runtime.config.clip_length, 1).spans(len(subject.scene.images))
    clips = (range(start, stop) for start, stop in spans)
    return RecordingRuntime(subject.runtime, IndexedVision(subject.visual), script(subject, [0], clips), **keeps)


def _run_clips(subject: Subject, runtime: RecordingRuntime) -> TrackerStats:
    """Follow the first target by the paper's protocol."""
    tracker = ClipTracker(runtime, replace(subject.following("growing", 1), mode="clip"))
    tracker.add(box=subject.scene.boxes[0][0])
    for step in range(len(subject.scene.images)):
        tracker.step(indexed_frame(step, step, subject.rate_hz))
    tracker.flush()
    return tracker.stats
