"""Words in whole frames: the training-only modules, and the losses of each stage.

Shapes: B frames, N cells, K kept tokens, V known names, D the LLM's width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from elysium_core.network.adapters import ConvTSelectorAdapter
from elysium_core.network.conv_layers import cell_centers
from elysium_core.network.efficientnet import EfficientNetEncoder
from elysium_core.network.llama import Llama
from elysium_core.network.token_selector import best_tokens, gather_tokens
from elysium_core.training.losses import Losses
from elysium_core.training.real.frame_features import FrameFeatures, FrameObjects
from elysium_core.training.real.frame_losses import FrameHeads, WordHeads, WordLosses, WordWeights, cell_losses
from elysium_core.training.real.frame_prompts import FramePrompts
from elysium_core.training.real.frame_questions import FrameQuestion, QuestionDrawer
from elysium_core.training.real.frame_readings import FrameReadings
from elysium_core.training.real.frame_truth import CellTruth, assign_cells
from elysium_core.training.real.readings import ReadingTokens

# Told names are enlarged, so that in a token they count as much as the box.
_NAME_SCALE = 2.0
# Chance of the true name in the tokens that a selector is to make.
_SURE = 0.9
# Share of the encoder's channels that are left out in training, against learning photos by heart.
_DROPPED_CHANNELS = 0.1
_WEIGHTS = WordWeights()


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrames:
    """What the selector makes of frames.

    Attributes:
        every: (B, N, width) tokens of all cells.
        gate: (B, N) logits.
        index: (B, K) kept cells, ascending.
        names: (B, N, V) logits of names.
        boxes: (B, N, 4) that cells read.
        truth: Of the cells.
    """

    every: Tensor
    gate: Tensor
    index: Tensor
    names: Tensor
    boxes: Tensor
    truth: CellTruth

    def rows(self, index: Tensor) -> SeenFrames:
        """Some of the frames."""
        every, gate, kept, names, boxes = (
            part[index] for part in (self.every, self.gate, self.index, self.names, self.boxes)
        )
        return SeenFrames(every, gate, kept, names, boxes, self.truth.rows(index))

    @property
    def kept(self) -> Tensor:
        """(B, K, width) kept tokens."""
        return gather_tokens(self.every, self.index)


class WordParts(nn.Module):
    """Training-only modules for words.

    Args:
        prompts: Writes questions.
        drawer: Draws them.
        cells: Cells a side of a frame.
        questions: Questions a frame and step.
        token_width: Width of the selector's tokens.
        width: D.
        weights: Weights of single losses.
    """

    def __init__(
        self,
        prompts: FramePrompts,
        drawer: QuestionDrawer,
        cells: int,
        questions: int,
        token_width: int,
        width: int,
        weights: WordWeights = _WEIGHTS,
    ) -> None:
        super().__init__()
        self.prompts, self.cells = prompts, cells
        self._drawer, self._questions = drawer, questions
        names = len(prompts.names)
        self.naming = nn.Linear(names, width, bias=False)
        nn.init.normal_(self.naming.weight, std=width**-0.5)
        self.heads = FrameHeads(token_width, names)
        self.word_heads = WordHeads(width)
        self._losses = WordLosses(prompts, self.word_heads, weights)

    def told(self, reading: ReadingTokens, gate: Tensor, boxes: Tensor, chances: Tensor, index: Tensor) -> Tensor:
        """Tokens (B, K, D) of what kept cells read: logits, boxes and chances of names."""
        named: Tensor = self.naming(_NAME_SCALE * chances)
        return reading(gate, boxes, index) + named

    def told_of_readings(self, reading: ReadingTokens, batch: FrameReadings, kept: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, D) of made-up readings, and their cells (B, K)."""
        index = best_tokens(batch.gate, kept)
        boxes, chances = gather_tokens(batch.read_boxes, index), gather_tokens(batch.chances, index)
        exact = self.told(reading, batch.gate.gather(1, index), boxes, chances, index)
        return reading.noisy(exact), index

    def seen(self, encoder: EfficientNetEncoder, adapter: ConvTSelectorAdapter, batch: FrameFeatures) -> SeenFrames:
        """Run the last blocks and the selector; in training, some channels of the encoder are left out."""
        tokens = encoder.frame_tokens(batch.shared.float())
        if self.training:
            keep = torch.rand(len(tokens), 1, tokens.shape[-1], device=tokens.device) >= _DROPPED_CHANNELS
            tokens = tokens * keep / (1 - _DROPPED_CHANNELS)
        every = adapter.every_token(tokens)
        gate = adapter.logits(every)
        names, boxes = self.heads(every, self.cells)
        truth = assign_cells(batch.objects, cell_centers(self.cells, tokens.device))
        return SeenFrames(every, gate, best_tokens(gate, adapter.out_token_num), names, boxes, truth)

    def cell_losses(self, seen: SeenFrames) -> Losses:
        """See :func:`elysium_core.training.real.frame_losses.cell_losses`."""
        return cell_losses(seen.gate, seen.names, seen.boxes, seen.truth)

    @torch.no_grad()
    def wanted(self, reading: ReadingTokens, seen: SeenFrames) -> tuple[Tensor, Tensor]:
        """The tokens (B, K, D) that the language model can read, and which of them are on objects, (B, K) bool.

        They tell the truth on objects, and the selector's own readings elsewhere.
        """
        index, truth = seen.index, seen.truth
        on = truth.is_on.gather(1, index)
        own = gather_tokens(seen.names, index).sigmoid()
        true_names = torch.zeros_like(own).scatter_(2, truth.names.gather(1, index)[..., None], _SURE)
        boxes = torch.where(on[..., None], gather_tokens(truth.boxes, index), gather_tokens(seen.boxes, index))
        names = torch.where(on[..., None], true_names, own)
        return self.told(reading, seen.gate.gather(1, index), boxes.clamp(0, 1), names, index), on

    def answers(self, llm: Llama, visual: Tensor, index: Tensor, objects: FrameObjects, truth: CellTruth) -> Losses:
        """Losses of the language model on drawn questions about frames with the visual tokens (B, K, D)."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        asked = self._ask(rng, objects)
        return self._losses(llm, visual, index, self.cells, objects, asked, truth)

    def readout(self, llm: Llama, visual: Tensor, seen: SeenFrames) -> tuple[Losses, Tensor]:
        """See :meth:`elysium_core.training.real.frame_losses.WordLosses.readout`."""
        return self._losses.readout(llm, visual, seen.index, seen.truth)

    def _ask(self, rng: np.random.Generator, objects: FrameObjects) -> list[list[FrameQuestion]]:
        names, boxes, usable = (part.cpu().numpy() for part in (objects.names, objects.boxes, objects.is_usable))
        return [
            self._drawer.draw(rng, names[row], boxes[row], usable[row], self._questions) for row in range(len(names))
        ]
