"""A check of one model on this machine: are its answers those of transformers, are its boxes sane, how fast is it.

The pictures are the ten frames of a recording with named objects and true boxes: of photographs in motion, or drawn for
a model that knows only names of drawings. Each object is asked for as :meth:`elysium_core.api.Elysium.ground` does it,
with drafts, and by transformers' own ``generate`` with the same weights. Then all objects are followed together through
the same frames, those that the model has no words for by their box, and passes, time and memory are measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
import transformers

import elysium_core
from elysium_core.api import Elysium
from elysium_core.device import synchronize
from elysium_core.engine.engine import Generation
from elysium_core.errors import BackendError
from elysium_core.evaluation.check_scene import Scene, draw_scene
from elysium_core.families.base import Seen
from elysium_core.geometry import Box
from elysium_core.prompt.questions import REC
from elysium_core.runtime import Runtime
from elysium_core.tracking.draft import AnswerDraft

PICTURES = 10
_LONGEST_ANSWER, _SPARE_TOKENS = 64, 16
_RIGHT_IOU = 0.5
# Frames that are not timed: the first ones allocate memory, and on a GPU they record passes.
_WARM_UP = 2
_MOST_EXAMPLES = 3
_SANE_SHARE = 0.5
_MIDDLE = Box(0.25, 0.25, 0.75, 0.75)
# Rounding lets half-precision models choose another token where two are nearly as likely.
_LEAST_AGREEMENT = {"float32": 1.0}
_LEAST_AGREEMENT_OF_OTHERS = 0.5


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that differs.

    Attributes:
        words: What was asked for.
        engine: The engine's answer.
        generate: The answer of transformers.
    """

    words: str
    engine: str
    generate: str


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The result of a check; all times are wall times on an otherwise idle machine, if it is one.

    Attributes:
        model: Name or path of the model.
        device: Device, with the name of a GPU.
        precision: Data type and quantisation.
        decoder: How passes are run.
        versions: Versions of elysium, torch and transformers.
        pictures: ``photos`` or ``drawings``.
        reference: Why answers were not compared; empty if they were.
        answers: Answers compared.
        identical: Answers that are equal, token for token.
        agreement: Share of tokens before the first difference.
        differences: The first answers that differ.
        asked: Answers whose boxes are judged; 0 if the model does not know the names of the objects.
        boxes: Those with a box.
        right: Those whose box overlaps the true one by an IoU of .5 or more.
        mean_iou: Mean IoU over all of them, 0 without a box.
        targets: Objects that are followed together.
        passes_per_frame: Forward passes for all of them.
        plain_passes_per_frame: The same without drafts and without packing: one for each token of their answers.
        frames_per_second: Frames followed in a second.
        frame_ms: Median time of a frame [ms].
        memory_bytes: Peak memory of the GPU, or of the process on a CPU.
        passed: Whether answers agree as they must at this precision, and boxes are sane.
    """

    model: str
    device: str
    precision: str
    decoder: str
    versions: dict[str, str]
    pictures: str
    reference: str
    answers: int
    identical: int
    agreement: float
    differences: tuple[Difference, ...]
    asked: int
    boxes: int
    right: int
    mean_iou: float
    targets: int
    passes_per_frame: float
    plain_passes_per_frame: float
    frames_per_second: float
    frame_ms: float
    memory_bytes: int
    passed: bool

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        answers = (
            f"answers were not compared ({self.reference})"
            if self.reference
            else f"{self.identical} of {self.answers} answers are those of transformers"
        )
        boxes = f"{self.right} of {self.asked} boxes are right" if self.asked else "boxes were not judged"
        return (
            f"{self.model} on {self.device} in {self.precision}: {answers}, {boxes}; {self.targets} objects take "
            f"{self.passes_per_frame:.1f} passes a frame instead of {self.plain_passes_per_frame:.0f}, "
            f"{self.frames_per_second:.1f} frames a second, {self.memory_bytes / 1e9:.1f} GB: "
            f"{'passed' if self.passed else 'FAILED'}"
        )

    def as_json(self) -> dict[str, Any]:
        """All fields and the sentence, as values that JSON can hold."""
        return asdict(self) | {"sentence": self.sentence}


def check_model(model: Elysium, *, side_px: int = 480, pictures: int = PICTURES) -> ModelCheck:
    """Check a model.

    Args:
        model: The loaded model.
        side_px: Side of the square pictures [px].
        pictures: Number of pictures, >= 4.
    """
    scene = draw_scene(model, side_px, pictures)
    seen = [model.runtime.encode_frames([frame.image])[0] for frame in scene.frames]
    answers = [[_ask(model.runtime, each, words) for words in scene.words] for each in seen]
    compared, reference = _compare(model, scene, seen, answers)
    ious = _ious(model.runtime, scene, seen, answers)
    passes, seconds, count = _follow(model, scene)
    found = [len(ours) for ours, _ in compared]
    agreed = [_agreed(ours, theirs) for ours, theirs in compared]
    identical = sum(ours == theirs for ours, theirs in compared)
    info = model.info
    least = _LEAST_AGREEMENT.get(info.precision, _LEAST_AGREEMENT_OF_OTHERS)
    boxes = [iou for iou in ious if iou is not None]
    tokens = [len(answer.token_ids) + answer.finished for each in answers for answer in each]
    return ModelCheck(
        model=info.name,
        device=info.device,
        precision=info.precision,
        decoder=model.runtime.family.decoder.description,
        versions={
            "elysium": elysium_core.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        pictures=scene.pictures,
        reference=reference,
        answers=len(compared),
        identical=identical,
        agreement=round(sum(agreed) / max(1, sum(found)), 4),
        differences=tuple(_differences(model.runtime, scene, compared)),
        asked=len(ious),
        boxes=len(boxes),
        right=sum(iou >= _RIGHT_IOU for iou in boxes),
        mean_iou=round(sum(boxes) / max(1, len(ious)), 4),
        targets=len(scene.words) + len(scene.others),
        passes_per_frame=round(passes, 3),
        plain_passes_per_frame=round((len(scene.words) + len(scene.others)) * statistics.mean(tokens), 3),
        frames_per_second=round(count / sum(seconds), 3),
        frame_ms=round(1000 * statistics.median(seconds), 3),
        memory_bytes=_peak_memory(model.runtime.device),
        passed=identical >= least * len(compared) and (not ious or len(boxes) >= _SANE_SHARE * len(ious)),
    )


def _ask(runtime: Runtime, seen: Seen, words: str) -> Generation:
    """Ask for one object with a draft, as it is found by words."""
    family = runtime.family
    grammar, steps = family.grammar, seen.steps
    others = grammar.other_forms(_MIDDLE, steps, words)
    guess = grammar.answer([_MIDDLE], steps, words)
    draft = AnswerDraft(runtime.tokenizer, grammar, "", guess, others=others)
    request = runtime.request(family.question(REC, words), (), draft, _longest_answer(runtime, seen, words))
    return runtime.new_engine().answer([request], family.opening([seen]))[0]


def _longest_answer(runtime: Runtime, seen: Seen, words: str) -> int:
    """Tokens that an answer may take; enough for all the boxes that are read of it."""
    text = runtime.family.grammar.answer([_MIDDLE], seen.steps, words)
    boxes = runtime.family.settings.most_boxes * len(runtime.tokenizer.encode_answer(text))
    return max(_LONGEST_ANSWER, boxes + _SPARE_TOKENS)


def _compare(
    model: Elysium, scene: Scene, seen: Sequence[Seen], answers: Sequence[Sequence[Generation]]
) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Our token ids and those of transformers for the first object of each picture; or the reason against it."""
    family, words = model.runtime.family, scene.words[0]
    compared = []
    try:
        for frame, each, (answer, *_) in zip(scene.frames, seen, answers, strict=True):
            longest = _longest_answer(model.runtime, each, words)
            theirs = family.generate([frame.image], family.question(REC, words), longest)
            compared.append((answer.token_ids, theirs))
    except BackendError as error:
        return [], str(error)
    return compared, ""


def _agreed(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Number of tokens before the first difference."""
    same = [one == other for one, other in zip(ours, theirs, strict=False)]
    return same.index(False) if False in same else len(same)


def _differences(runtime: Runtime, scene: Scene, compared: Sequence[tuple[list[int], list[int]]]) -> list[Difference]:
    decode, words = runtime.tokenizer.decode, scene.words[0]
    found = [Difference(words, decode(ours), decode(theirs)) for ours, theirs in compared if ours != theirs]
    return found[:_MOST_EXAMPLES]


def _ious(
    runtime: Runtime, scene: Scene, seen: Sequence[Seen], answers: Sequence[Sequence[Generation]]
) -> list[float | None]:
    """IoU of each answer with the truth, None without a box; empty without a truth."""
    if scene.truth is None:
        return []
    ious: list[float | None] = []
    for index, (frame, found) in enumerate(zip(seen, answers, strict=True)):
        for answer, track in zip(found, scene.truth, strict=True):
            box = runtime.read(answer, 1, frame.steps).boxes[0]
            ious.append(None if box is None else box.iou(track[index]))
    return ious


def _follow(model: Elysium, scene: Scene) -> tuple[float, list[float], int]:
    """Follow all objects: passes a frame, seconds of each timed frame, and the number of these."""
    tracker = model.tracker()
    for words in scene.words:
        tracker.add(words)
    for box in scene.others:
        tracker.add(box=box)
    seconds: list[float] = []
    before = 0
    for frame in scene.frames:
        if frame.index == _WARM_UP:
            before = tracker.stats.llm_passes
        started = time.perf_counter()
        tracker.step(frame)
        synchronize(model.runtime.device)
        seconds.append(time.perf_counter() - started)
    count = len(scene.frames) - _WARM_UP
    return (tracker.stats.llm_passes - before) / count, seconds[_WARM_UP:], count


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
