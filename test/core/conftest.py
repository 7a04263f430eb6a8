"""A tiny checkpoint of random weights, made and loaded as a real one; and transformers as the judge of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM

from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.inference.runtime import Runtime
from elysium_core.model.checkpoint import load_checkpoint, save_checkpoint
from elysium_core.model.config import AdapterConfig, ElysiumConfig
from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.llama import LlamaSize
from elysium_core.tasks import Elysium
from elysium_core.text.box_text import format_track
from elysium_core.text.build_tokenizer import save_tokenizer, train_tokenizer
from elysium_core.text.conversation import frame_pieces, question_piece
from elysium_core.text.questions import PUBLISHED, fill

SIDE_PX, PATCH_PX, KEPT = 32, 8, 6
NAMES = ("mug", "apple", "teddy bear")
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE_PX,
    "patch_size": PATCH_PX,
}
LLM = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def corpus() -> list[str]:
    """Every text that tests write or read."""
    questions = [
        fill(q, expression=f"the red {name}", box="[12,34,56,78]") for q in PUBLISHED.values() for name in NAMES
    ]
    return [*frame_pieces(32, ""), format_track([Box(0.12, 0.34, 0.56, 0.78)] * 32), *map(question_piece, questions)]


def write_tiny_checkpoint(folder: Path, vocabulary: Sequence[str] = ()) -> Path:
    """Save a model of some ten thousand random weights, tokenizer and all."""
    tokenizer = train_tokenizer(corpus(), 600)
    save_tokenizer(tokenizer, folder / "llm")
    llm = {**LLM, "vocab_size": tokenizer.get_vocab_size()}
    patches = (SIDE_PX // PATCH_PX) ** 2
    config = ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig(in_token_num=patches, out_token_num=KEPT, num_features=VISION["hidden_size"]),
        system_text="A chat. ",
        vocabulary=tuple(vocabulary),
    )
    torch.manual_seed(5)
    network = ElysiumNetwork(config, CLIPVisionConfig(**VISION), LlamaSize.from_dict(llm))
    for name, weight in network.named_parameters():
        # Larger than usual, so that what is written depends on all that came before.
        if weight.ndim > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=1.6 * weight.shape[-1] ** -0.5)
    save_checkpoint(folder, network, config, llm, {"model_type": "clip_vision_model", **VISION})
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The checkpoint's folder; read only."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def closed_folder(tmp_path_factory) -> Path:
    """The same checkpoint, with a closed vocabulary."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("closed") / "model", NAMES)


@pytest.fixture
def tiny(tiny_folder) -> Elysium:
    """The model; every test has its own, because some break it."""
    return Elysium.from_pretrained(tiny_folder, device="cpu")


@pytest.fixture
def runtime(tiny) -> Runtime:
    """Its parts."""
    return tiny.runtime


@pytest.fixture(scope="session")
def judge(tiny_folder):
    """Greedy decoding by transformers: ``judge(embeddings, max_new_tokens, eos_id)`` gives token ids, no end token."""
    checkpoint = load_checkpoint(tiny_folder)
    llama = LlamaForCausalLM(LlamaConfig(**checkpoint.llm_settings)).eval()
    llama.load_state_dict(checkpoint.network.llm.state_dict())

    @torch.inference_mode()
    def generate(embeddings: torch.Tensor, max_new_tokens: int, eos_id: int = 2) -> list[int]:
        written = llama.generate(
            inputs_embeds=embeddings[None].clone(),
            attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=eos_id,
            pad_token_id=0,
        )[0].tolist()
        return written[: written.index(eos_id)] if eos_id in written else written

    return generate


@pytest.fixture(scope="session")
def frames() -> list[Frame]:
    """Forty pictures of noise, each unlike the others, stamped at 10 Hz."""
    random = np.random.default_rng(11)
    return [
        Frame(random.integers(0, 256, (40, 48, 3), dtype=np.uint8), stamp_ns=(index + 1) * 100_000_000, index=index)
        for index in range(40)
    ]
