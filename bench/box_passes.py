"""``python -m bench.box_passes``: forward passes a frame for boxes in motion, by grammar and number of targets.

Tracker, drafts, engine and box formats are the package's own. Only the network is replaced: it writes the true boxes.
So the counts are those of a model that answers rightly, on any machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from bench.box_motion import Boxes, Motion, read_tracks
from bench.engine_recording import scripted_choice
from bench.engine_workload import bench_tokenizer
from elysium_core.calibration import UNCALIBRATED
from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.engine.draft_tree import ROOT, DraftTree
from elysium_core.engine.engine import Engine, EngineCounters
from elysium_core.families.base import BoxGrammar, FamilySettings, Seen, Steps
from elysium_core.families.elysium import ElysiumGrammar
from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.network.kv_cache import KVCache, KVMemory, KVShape
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.word_tracker import WordTracker

_WORDS = "the red mug"
_TARGETS = (1, 2, 4)
# Qwen's: single digits; words with the blank before them; signs; line ends.
_PIECE = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
_KV = KVShape(1, 1, 1, torch.device("cpu"), torch.float32)


@cache
def qwen_like_tokenizer() -> TextTokenizer:
    """A byte-level tokenizer that splits answers as Qwen's does; a small vocabulary holds the answers' words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECE), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    grammar, box = JsonBoxGrammar(1000), Box(0.012, 0.345, 0.678, 0.9)
    texts = [grammar.answer([box], (1000, 1000), _WORDS), *grammar.other_forms(box, (1000, 1000), _WORDS)]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts * 3, trainer)
    end = "<|im_end|>"
    tokenizer.add_special_tokens([end])
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end), needs_bos=False)


@dataclass(frozen=True, slots=True)
class Format:
    """A grammar, the steps of its boxes, and a tokenizer."""

    grammar: BoxGrammar
    steps: Steps
    tokenizer: TextTokenizer


def formats() -> dict[str, Format]:
    """The formats that are compared, by name."""
    return {
        "paper, 0..100": Format(ElysiumGrammar(), (100, 100), bench_tokenizer()),
        "JSON, 0..1000": Format(JsonBoxGrammar(1000), (1000, 1000), qwen_like_tokenizer()),
        "JSON, px of 644x476": Format(JsonBoxGrammar(9999), (644, 476), qwen_like_tokenizer()),
    }


class TruthDecoder:
    """A decoder without a network (protocol: :class:`elysium_core.engine.decoder.StreamDecoder`)."""

    description = "none"

    def embed(self, token_ids: Tensor) -> Tensor:
        """Rows (..., 1)."""
        return torch.zeros(*token_ids.shape, 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., 1): each token is certain."""
        return torch.zeros(*hidden.shape[:-1], 1)

    def new_cache(self, capacity: int) -> KVCache:
        """A cache that counts tokens."""
        return KVCache(KVMemory(_KV, capacity))

    def release(self) -> None:
        """There is nothing to free."""

    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states (1, T, 1)."""
        if cache is not None:
            cache.advance(embeddings.shape[1])
        return torch.zeros(1, embeddings.shape[1], 1), []


class TruthEngine(Engine):
    """An engine whose model writes given answers.

    Args:
        decoder: Its decoder.
        eos_id: The end token.
        answers: Token ids of the answer to each request, with the end token.
        digits: Token ids of the digits if the model says the right numbers also behind wrong ones; empty if it then
            repeats the draft.
        counters: Counts passes.
    """

    def __init__(
        self,
        decoder: TruthDecoder,
        eos_id: int,
        answers: Sequence[list[int]],
        digits: frozenset[int],
        counters: EngineCounters | None,
    ) -> None:
        super().__init__(decoder, eos_id, counters=counters)
        self._answers, self._digits = answers, digits

    def _accept(self, branch: Any, chosen: list[int], logprob: list[float]) -> list[int]:
        answer, written = self._answers[branch.owner - 1], branch.result.token_ids
        if self._digits:
            chosen = told_choice(branch.draft, answer, len(written), self._digits)
        else:
            chosen = scripted_choice(branch.draft, answer[len(written) :])
        return super()._accept(branch, chosen, logprob)


def told_choice(draft: DraftTree, answer: Sequence[int], written: int, digits: frozenset[int]) -> list[int]:
    """The tokens chosen by a model that sees the true box, independent of the text so far; as :func:`scripted_choice`.

    A wrong digit takes the place of the true one; behind it the model goes on with the truth.

    Args:
        draft: The draft behind what was written.
        answer: The true answer, with the end token.
        written: Its tokens that were written already.
        digits: Token ids of the digits.
    """
    place = {ROOT: written}
    for index, (token, parent) in enumerate(zip(draft.token_ids, draft.parents, strict=True)):
        at = place[parent]
        if token in digits:
            at += at < len(answer) and answer[at] in digits  # or one digit too many: the place stays
        else:
            while at < len(answer) and answer[at] in digits:  # digits that are missing
                at += 1
            at += 1
        place[index] = at
    last = len(answer) - 1
    return [answer[min(place[node], last)] for node in range(ROOT, len(draft))]


class TruthRuntime(Runtime):
    """A runtime for :class:`WordTracker` whose model writes the true boxes.

    Args:
        form: The format of its answers.
        hears: Whether it says the right numbers also behind wrong ones.

    Attributes:
        answers: Token ids of the next answers, one for each target; with the end token.
    """

    def __init__(self, form: Format, *, hears: bool) -> None:
        tokenizer, grammar = form.tokenizer, form.grammar
        self._decoder, self.answers = TruthDecoder(), list[list[int]]()
        ids = [tokenizer.encode_answer(f"[{digit}")[-1] for digit in range(10)]
        self._digits = frozenset(ids) if hears else frozenset()
        nothing = torch.zeros(1, 1)
        family: Any = SimpleNamespace(
            tokenizer=tokenizer,
            grammar=grammar,
            decoder=self._decoder,
            settings=FamilySettings(by_words=True),
            device=torch.device("cpu"),
            encode=lambda images: [Seen(nothing, form.steps) for _ in images],
            opening=lambda _seen: nothing,
            find_scores=lambda _seen, _words: UNCALIBRATED,
            question=lambda _task, _words="", _box="": "",
            conversation=lambda _question: [0],
            embed=lambda token_ids: torch.zeros(len(token_ids), 1),
            # The score of every box is that of its first token, which is certain.
            box_digits=lambda token_ids: [[0]] * len(grammar.boxes(tokenizer.decode(token_ids))),
        )
        super().__init__(family)

    def new_engine(self, counters: EngineCounters | None = None) -> Engine:
        """An engine that writes :attr:`answers`."""
        return TruthEngine(self._decoder, self.tokenizer.eos_id, self.answers, self._digits, counters)


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes a frame, means over all frames but the first of each clip.

    Attributes:
        format: The format of the answers.
        targets: Targets followed together.
        frames: Frames.
        naive: One pass for each token of each answer, one target after the other.
        packed: The same with all targets in common passes.
        drafted: With drafts, if the model repeats what is drafted behind a wrong digit.
        told: With drafts, if it says the right numbers also behind wrong digits.
        in_one: Share of frames that take one pass in the latter case.
    """

    format: str
    targets: int
    frames: int
    naive: float
    packed: float
    drafted: float
    told: float
    in_one: float


def measure(name: str, form: Format, tracks: Sequence[Boxes], targets: int, draft_tokens: int = 0) -> Passes:
    """Count the passes for tracks (T, 4), in groups of ``targets`` that are followed together."""
    counts: dict[bool, list[int]] = {}
    tokens: list[list[int]] = []
    for hears in (False, True):
        tokens, counts[hears] = [], []
        for group in _groups(tracks, targets):
            for answers, passes in _follow(TruthRuntime(form, hears=hears), form, group, draft_tokens):
                tokens.append(list(map(len, answers)))
                counts[hears].append(passes)
    return Passes(
        name,
        targets,
        len(tokens),
        naive=statistics.fmean(map(sum, tokens)),
        packed=statistics.fmean(map(max, tokens)),
        drafted=statistics.fmean(counts[False]),
        told=statistics.fmean(counts[True]),
        in_one=statistics.fmean(passes == 1 for passes in counts[True]),
    )


def _groups(tracks: Sequence[Boxes], targets: int) -> Iterator[list[Boxes]]:
    """Groups of tracks of similar length, each cut to the shortest; what is left over is left out."""
    ordered = sorted(tracks, key=len)
    for first in range(0, len(ordered) - targets + 1, targets):
        group = ordered[first : first + targets]
        yield [track[: len(group[0])] for track in group]


def _follow(
    runtime: TruthRuntime, form: Format, group: Sequence[Boxes], draft_tokens: int
) -> Iterator[tuple[list[list[int]], int]]:
    """The answers about each frame but the first, and the passes that they took."""
    tracker = WordTracker(runtime, TrackingConfig(max_targets=len(group), draft_tokens=draft_tokens))
    for _ in group:
        tracker.add(_WORDS)
    image = np.zeros((1, 1, 3), np.uint8)
    for number in range(len(group[0])):
        texts = [form.grammar.answer([Box(*track[number])], form.steps, _WORDS) for track in group]
        runtime.answers = [[*runtime.tokenizer.encode_answer(text), runtime.tokenizer.eos_id] for text in texts]
        before = tracker.stats.llm_passes
        tracker.step(Frame(image, index=number))
        if number:
            yield runtime.answers, tracker.stats.llm_passes - before


def command(
    recordings: Annotated[
        Path | None,
        typer.Option("--recordings", help="Recordings in the layout of folder; else drawn motion."),
    ] = None,
    tracks: Annotated[int, typer.Option("--tracks", min=4, help="Tracks that are drawn.")] = 32,
    frames: Annotated[int, typer.Option("--frames", min=2, help="Frames of each track.")] = 61,
    every: Annotated[int, typer.Option("--every", min=1, help="Take every n-th frame: 3 makes 10 Hz of 30.")] = 1,
    draft_tokens: Annotated[int, typer.Option("--draft-tokens", min=0, help="Tokens of draft trees.")] = 0,
    json: JsonOption = False,
) -> None:
    """Count forward passes a frame for boxes in motion, with and without drafts."""
    if recordings is None:
        motion = list(Motion().draw(tracks, frames * every))
    else:
        motion = [boxes for _, boxes in read_tracks(recordings)]
    motion = [boxes[::every][:frames] for boxes in motion]
    torch.set_num_threads(1)
    for name, form in formats().items():
        for targets in _TARGETS:
            found = measure(name, form, motion, targets, draft_tokens)
            if json:
                emit(asdict(found))
            else:
                say(
                    f"{name:20} {targets} targets, {found.frames} frames: {found.naive:.1f} naive, {found.packed:.1f} "
                    f"packed, {found.drafted:.2f} drafted, {found.told:.2f} told, {found.in_one:.0%} in one pass"
                )


if __name__ == "__main__":
    from bench.app import run

    run("box_passes")
