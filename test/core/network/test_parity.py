"""The port against the slow model of ``reference.py``, stage by stage, on the published layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.geometry import Box
from elysium_core.network.image_transform import ImageTransform
from elysium_core.prompt.box_text import format_box
from elysium_core.prompt.conversation import build_prompt
from elysium_core.prompt.questions import PUBLISHED, REC, RSOT, SOT, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.vision.torch_vision import TorchVision

TOLERANCE = 1e-4
ANSWER_TOKENS = 8
CASES = {
    "one frame": (1, fill(PUBLISHED[REC], expression="the red mug")),
    "three frames SOT": (3, fill(PUBLISHED[SOT], box=format_box(Box(0.231, 0.45, 0.458, 0.72)))),
    "eight frames RSOT": (8, fill(PUBLISHED[RSOT], expression="small dog (brown), à gauche")),
}


@pytest.fixture(scope="module")
def checkpoint(published):
    return load_checkpoint(published)


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return TextTokenizer.from_folder(checkpoint.llm_folder)


@pytest.fixture(scope="module")
def runtime(checkpoint, tokenizer):
    return Runtime(ElysiumFamily(checkpoint.network, tokenizer, TorchVision(checkpoint.network)))


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


def test_resized_bytes_equal_those_of_pil(checkpoint, reference, images):
    transform = ImageTransform(checkpoint.network.visual_encoder.side_px)
    for image in images:
        np.testing.assert_array_equal(transform.resize(image), reference.resize(image))


def test_a_tall_picture_is_resized_in_one_of_two_orders(checkpoint, reference, images):
    tall = np.concatenate([images[0][:, :60]] * 4)  # newer versions of PIL shrink the long side first
    ours = ImageTransform(checkpoint.network.visual_encoder.side_px).resize(tall)
    assert any(np.array_equal(ours, reference.resize(tall, axes)) for axes in ((1, 0), (0, 1)))


@torch.no_grad()
def test_patch_tokens(checkpoint, reference, images):
    transform = ImageTransform(checkpoint.network.visual_encoder.side_px)
    ours = checkpoint.network.visual_encoder(transform(images))
    for image, tokens in zip(images, ours, strict=True):
        np.testing.assert_allclose(tokens.numpy(), reference.patch_tokens(image), atol=TOLERANCE)


@torch.no_grad()
def test_selected_indices(checkpoint, reference, images):
    network = checkpoint.network
    tokens = network.visual_encoder(ImageTransform(network.visual_encoder.side_px)(images))
    _, kept, _ = network.adapter(tokens)
    expected = [reference.kept(reference.patch_tokens(image)) for image in images]
    assert kept.tolist() == expected
    assert len({tuple(indices) for indices in expected}) > 1  # the choice depends on the picture


def test_vision_embeddings(runtime, reference, images):
    for image, tokens in zip(images, runtime.encode_frames(images), strict=True):
        np.testing.assert_allclose(tokens.rows.numpy(), reference.visual_tokens(image), atol=TOLERANCE)


def test_prompt_text_and_ids(checkpoint, reference, tokenizer, case):
    frames, question = case
    prompt = build_prompt(question, frames, checkpoint.config.system_text)
    assert prompt.text == reference.prompt_text(question, frames)
    assert tokenizer.encode_prompt(prompt) == reference.prompt_ids(question, frames)


@torch.inference_mode()
def test_logits(checkpoint, tokenizer, runtime, reference, images, case):
    frames, question = case
    prompt = build_prompt(question, frames, checkpoint.config.system_text)
    pieces = [torch.tensor(ids) for ids in tokenizer.encode_prompt(prompt)]
    embeddings = checkpoint.network.interleave(pieces, [seen.rows for seen in runtime.encode_frames(images[:frames])])
    hidden, _ = checkpoint.network.llm(embeddings[None], torch.arange(len(embeddings))[None])
    expected = reference.logits(reference.prompt_embeddings(question, images[:frames]))
    np.testing.assert_allclose(checkpoint.network.llm.logits(hidden)[0].numpy(), expected, atol=TOLERANCE)


def test_greedy_answer(runtime, reference, images, case):
    frames, question = case
    embeddings = reference.prompt_embeddings(question, images[:frames])
    expected = reference.greedy(embeddings, ANSWER_TOKENS)
    answer = runtime.ask(runtime.encode_frames(images[:frames]), question, ANSWER_TOKENS)
    assert answer.token_ids == expected
    assert len(set(expected)) > 2  # not one token for ever
    assert answer.token_ids == transformers_answer(reference, embeddings)


def transformers_answer(reference, embeddings):
    """What ``generate`` of transformers says behind the same embeddings."""
    model = LlamaForCausalLM(LlamaConfig(**reference.llm)).eval()
    state = {key.removeprefix("llm."): torch.from_numpy(w) for key, w in reference.weights.items() if key[:4] == "llm."}
    model.load_state_dict(state)
    output = model.double().generate(
        inputs_embeds=torch.from_numpy(embeddings)[None],
        attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
    )
    return [token for token in output[0].tolist() if token != reference.llm["eos_token_id"]]


def test_frames_do_not_depend_on_their_clip(runtime, images):
    together = runtime.encode_frames(images[:4])
    for image, tokens in zip(images[:4], together, strict=True):
        np.testing.assert_allclose(runtime.encode_frames([image])[0].rows.numpy(), tokens.rows.numpy(), atol=1e-5)
