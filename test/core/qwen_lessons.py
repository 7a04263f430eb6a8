"""A tiny Qwen-VL model that has learnt one clip by heart: what is where in it, in words and boxes.

All weights but those of the last layer are random (:mod:`qwen_checkpoint`). They make the pictures and the questions
different enough that the last layer alone can learn the answers, in a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from elysium_core.api import Elysium
from elysium_core.families.qwen_vl import QwenFamily
from elysium_core.geometry import Box
from elysium_core.prompt.questions import CAPTION, REC, REG
from elysium_core.tracking.zoom import zoomed_pictures

MUG, APPLE = "the red mug", "an apple"
WORDS = (MUG, APPLE)
COLOURS = {MUG: (230, 60, 40), APPLE: (60, 90, 230)}
QUESTION, ANSWER, CAPTION_TEXT = "Is it red?", "a red mug", "the red mug, an apple"
HEIGHT, WIDTH, SIDE = 64, 96, 24
FRAMES = 8
HIDDEN = (4, 5)
"""The frames without the mug."""
_STEPS = 100


def truth(frame: int) -> dict[str, Box]:
    """The objects of a frame, by their words."""
    corners = {MUG: (8 + 2 * frame, 10), APPLE: (50, 30 - frame)}
    return {
        words: Box(x / WIDTH, y / HEIGHT, (x + SIDE) / WIDTH, (y + SIDE) / HEIGHT)
        for words, (x, y) in corners.items()
        if words != MUG or frame not in HIDDEN
    }


def picture(frame: int) -> np.ndarray:
    """A frame of the clip, RGB uint8 (HEIGHT, WIDTH, 3)."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for words, box in truth(frame).items():
        x1, y1, x2, y2 = (round(value) for value in box.to_px(WIDTH, HEIGHT))
        image[y1:y2, x1:x2] = COLOURS[words]
    return image


def _lessons(family: QwenFamily) -> Iterator[tuple[np.ndarray, str, str]]:
    """Picture, question, answer."""
    grammar = family.grammar
    for frame in range(FRAMES):
        image, objects = picture(frame), truth(frame)
        steps = family.encode([image])[0].steps
        for words in WORDS:
            box = objects.get(words)
            answer = grammar.answer([box], steps, words) if box else "```json\n[]\n```"
            yield image, family.question(REC, words), answer
        yield image, family.question(CAPTION), CAPTION_TEXT
        yield image, QUESTION, ANSWER
        for words, box in objects.items():
            (crop,), inside = zoomed_pictures([image], box)
            for shown, place in ((image, box), (crop, inside)):
                steps = family.encode([shown])[0].steps
                yield shown, family.question(REG, box=grammar.write(place, steps)), words


@torch.no_grad()
def _examples(family: QwenFamily) -> tuple[torch.Tensor, torch.Tensor]:
    """What the last layer sees before each token of the answers (N, D), and these tokens (N,)."""
    states, tokens = [], []
    encode, eos = family.tokenizer.encode_answer, family.tokenizer.eos_id
    for image, question, answer in _lessons(family):
        pixels, grid = family.images.pixels([image])
        prompt = family.ids_for_generate(question, family.images.token_counts(grid))
        written = [*encode(answer), eos]
        ids = torch.tensor([[*prompt, *written]])
        family.model.model.rope_deltas = None
        hidden = family.model.model(
            input_ids=ids,
            pixel_values=pixels,
            image_grid_thw=grid,
            mm_token_type_ids=(ids == family.model.config.image_token_id).int(),
        ).last_hidden_state[0]
        states.append(hidden[len(prompt) - 1 : -1])
        tokens += written
    return torch.cat(states), torch.tensor(tokens)


def teach(folder: Path) -> None:
    """Teach the model in a folder, whose weights are random. It must have one file of weights.

    Raises:
        AssertionError: It did not learn all of its answers.
    """
    family = Elysium.from_pretrained(folder, device="cpu").runtime.family
    states, tokens = _examples(family)
    head = family.model.lm_head.weight.detach().clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([head], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        wrong = torch.nn.functional.cross_entropy(states @ head.T, tokens)
        wrong.backward()
        return wrong

    optimiser.step(loss)
    assert torch.equal((states @ head.T).argmax(1), tokens), "not all answers were learnt"
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"lm_head.weight": head.detach()}, path, {"format": "pt"})
