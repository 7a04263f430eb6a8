"""Batches from a mixture of real data sets: draw samples, choose questions, and lay them out as tokens.

Each data set has a share of the samples and is read completely before it repeats. As in
:mod:`elysium_core.training.nano.clip_batches`, the dialogues about a clip are branches after its frames.

Shapes: B samples, F frames of all samples together, K visual tokens per frame, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from elysium_core.errors import DataError, ElysiumError
from elysium_core.io.sampling import even_positions
from elysium_core.network.image_transform import ImageTransform
from elysium_core.prompt.layout import AnswerWeights, PromptLayout, TokenRow, row_tensors
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, FineTuneStage
from elysium_core.training.finetune.samples import AskedClip, ask
from elysium_core.training.finetune.sources import SampleSource, open_source

_CYCLE = 1000


class Mixture:
    """An endless order of samples of several data sets.

    In every 1000 samples each set has its share, in random order. Within a set all items come once in
    random order, then all again in another order. A sample depends only on its number and the seed,
    so a run that was stopped continues with the same samples in any number of processes.

    Args:
        sizes: Number of items of each data set.
        shares: Shares of the data sets; they need not add up to 1.
        seed: Seed of all orders.
    """

    def __init__(self, sizes: Mapping[str, int], shares: Mapping[str, float], seed: int) -> None:
        self._names = list(shares)
        self._sizes = [sizes[name] for name in self._names]
        self._seed = seed
        self._slots = _slots(np.asarray(list(shares.values()), dtype=np.float64), seed)
        self._quotas = np.bincount(self._slots, minlength=len(self._names))
        self._ranks = np.zeros(_CYCLE, dtype=np.int64)
        for source in range(len(self._names)):
            own = np.flatnonzero(self._slots == source)
            self._ranks[own] = np.arange(len(own))
        self._order = lru_cache(maxsize=2 * len(self._names))(self._make_order)

    def pick(self, number: int) -> tuple[str, int]:
        """Return data set and item of sample ``number``, counted from 0."""
        cycle, slot = divmod(number, _CYCLE)
        source = int(self._slots[slot])
        epoch, place = divmod(cycle * int(self._quotas[source]) + int(self._ranks[slot]), self._sizes[source])
        return self._names[source], int(self._order(source, epoch)[place])

    def _make_order(self, source: int, epoch: int) -> NDArray[np.int32]:
        return np.random.default_rng([self._seed, source, epoch]).permutation(self._sizes[source]).astype(np.int32)


def _slots(shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return the data set of each slot of a cycle; every set has at least one slot."""
    exact = shares / shares.sum() * _CYCLE
    counts = np.maximum(1, np.floor(exact)).astype(np.int64)
    while counts.sum() != _CYCLE:
        direction = 1 if counts.sum() < _CYCLE else -1
        movable = np.where(counts + direction >= 1, direction * (exact - counts), -np.inf)
        counts[int(np.argmax(movable))] += direction
    return np.random.default_rng([seed, len(shares)]).permutation(np.repeat(np.arange(len(shares)), counts))


_MOST_SKIPS = 100
# Samples of a data set whose words are looked through for new names.
_MOST_READ = 20_000


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input format of a model; small enough to be sent to worker processes.

    Attributes:
        tokenizer_folder: Folder of its tokenizer.
        system_text: Text at the start of every conversation.
        visual_tokens: K.
        side_px: Input side of its vision encoder [px].
    """

    tokenizer_folder: str
    system_text: str
    visual_tokens: int
    side_px: int


@dataclass(slots=True)
class FineTuneBatch:
    """One batch: the input of one forward pass.

    Attributes:
        images: (F, S, S, 3) uint8, in order of their slots.
        frame_counts: (B,) frames of each sample.
        token_ids: (B, L); VISUAL_SLOT at the places of visual tokens.
        positions: (B, L).
        branch: (B, L); 0 the frames, 1.. the dialogues, -1 padding.
        label_weight: (B, L); weight of each token as a label, 0 = not an answer token.
        is_digit: (B, L); digits of boxes in answers.
        skipped: Errors of drawn samples that could not be used and were replaced.
    """

    images: Tensor
    frame_counts: Tensor
    token_ids: Tensor
    positions: Tensor
    branch: Tensor
    label_weight: Tensor
    is_digit: Tensor
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> FineTuneBatch:
        """Move every tensor to a device."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "skipped"}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


class SequenceBuilder:
    """Lays out a clip and its dialogues as tokens.

    Args:
        tokenizer: The model's.
        model: What the model reads.
        stage: Loss weights and the longest sequence.
    """

    def __init__(self, tokenizer: TextTokenizer, model: ModelInput, stage: FineTuneStage) -> None:
        self._layout, self._stage = PromptLayout(tokenizer, model.system_text), stage
        self._visual_tokens = model.visual_tokens
        self._weights = AnswerWeights(stage.digit_weight, stage.format_weight, stage.text_weight)

    def build(self, clip: AskedClip) -> TokenRow:
        """Lay out one clip. Dialogues, or last rounds of a dialogue, that do not fit are left out.

        Raises:
            DataError: Not even the first round fits.
        """
        frames, longest = len(clip.images), self._stage.max_tokens
        row = self._layout.frames_row(frames, self._visual_tokens)
        for branch, dialogue in enumerate(clip.dialogues, 1):
            self._layout.append_dialogue(
                row, branch, dialogue.rounds, self._weights, boxes=dialogue.answers_boxes, max_tokens=longest
            )
        if len(row.ids) == row.frames_end:
            raise DataError(f"no question fits into max_tokens = {longest} after {frames} frames")
        return row


@dataclass(frozen=True, slots=True)
class _OpenedData:
    """Open data sets and layout of one process."""

    sources: dict[str, SampleSource]
    mixture: Mixture
    builder: SequenceBuilder
    transform: ImageTransform


class DataBatches(Dataset[FineTuneBatch]):
    """Batches of a mixture; ``batches[number]`` is always the same one.

    Samples are numbered over all batches of all processes, so two processes with batches of 2 get the
    same samples as one process with batches of 4. A sample that cannot be used is replaced by another one.

    Args:
        recipe: The recipe.
        stage: Its stage.
        shares: Data sets and their shares.
        model: Input format of the model.
        salt: Number that gives each mixture of a recipe other random numbers.
    """

    def __init__(
        self, recipe: FineTuneRecipe, stage: FineTuneStage, shares: dict[str, float], model: ModelInput, salt: int
    ) -> None:
        self._recipe, self._stage, self._shares, self._model, self._salt = recipe, stage, shares, model, salt
        self._opened: _OpenedData | None = None

    def sizes(self) -> dict[str, int]:
        """Return the number of items of each data set.

        Raises:
            DataError: One cannot be read.
        """
        return {name: len(source) for name, source in self._open().sources.items()}

    def expressions(self) -> Iterator[str]:
        """Yield the expressions of all data sets, of large ones a part that is spread over them."""
        for source in self._open().sources.values():
            for index in even_positions(len(source), _MOST_READ):
                try:
                    sample = source[index]
                except DataError:  # told when it is drawn
                    continue
                yield from (thing.expression for thing in sample.objects)
                if sample.expression:
                    yield sample.expression

    def __getitem__(self, number: int) -> FineTuneBatch:
        first = number * self._stage.batch
        drawn = [self._draw(first + place) for place in range(self._stage.batch)]
        return self._collate([row for row, _ in drawn], [reason for _, reasons in drawn for reason in reasons])

    def _open(self) -> _OpenedData:
        # Opened in the process that reads it, so that the line index is not copied between processes.
        if self._opened is None:
            sources = {name: open_source(self._recipe.data[name]) for name in self._shares}
            sizes = {name: len(source) for name, source in sources.items()}
            tokenizer = TextTokenizer.from_folder(self._model.tokenizer_folder)
            self._opened = _OpenedData(
                sources,
                Mixture(sizes, self._shares, self._recipe.seed + self._salt),
                SequenceBuilder(tokenizer, self._model, self._stage),
                ImageTransform(self._model.side_px),
            )
        return self._opened

    def _draw(self, number: int) -> tuple[tuple[TokenRow, list[Tensor]], list[str]]:
        opened = self._open()
        rng = np.random.default_rng([self._recipe.seed, self._salt, number])
        name, index = opened.mixture.pick(number)
        reasons: list[str] = []
        while len(reasons) < _MOST_SKIPS:
            try:
                return self._read(name, index, rng), reasons
            except ElysiumError as error:
                reasons.append(str(error))
                index = int(rng.integers(len(opened.sources[name])))
        raise DataError(f"{_MOST_SKIPS} samples of data.{name} in a row cannot be used; the last: {reasons[-1]}")

    def _read(self, name: str, index: int, rng: np.random.Generator) -> tuple[TokenRow, list[Tensor]]:
        opened = self._open()
        sample = opened.sources[name][index]
        try:
            clip = ask(sample, self._stage, self._recipe.data[name].tasks, rng)
            row = opened.builder.build(clip)
        except ElysiumError as error:
            raise DataError(f"{sample.place}: {error}") from error
        return row, [torch.from_numpy(np.array(opened.transform.resize(image))) for image in clip.images]

    def _collate(self, rows: Sequence[tuple[TokenRow, list[Tensor]]], skipped: Sequence[str]) -> FineTuneBatch:
        images = [image for _, shown in rows for image in shown]
        side = self._model.side_px
        return FineTuneBatch(
            images=torch.stack(images) if images else torch.zeros(0, side, side, 3, dtype=torch.uint8),
            frame_counts=torch.tensor([len(shown) for _, shown in rows]),
            **row_tensors([row for row, _ in rows]),
            skipped=tuple(skipped),
        )
