"""A tiny checkpoint in the published layout: random weights of transformers' models, a tokenizer of LLaMA's kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

PUBLISHED_SIDE_PX, PUBLISHED_PATCH_PX, PUBLISHED_KEPT = 56, 14, 5
PUBLISHED_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": PUBLISHED_SIDE_PX,
    "patch_size": PUBLISHED_PATCH_PX,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
PUBLISHED_LLM = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PUBLISHED_CONFIG = {
    "model_type": "elysium",
    "torch_dtype": "bfloat16",
    "llm_config": {"pretrained_model_name_or_path": "language", "freeze_llm": True},
    "visual_config": {"pretrained_model_name_or_path": "eyes", "freeze_vit": True},
    "adapter_config": {
        "in_token_num": 16,
        "out_token_num": PUBLISHED_KEPT,
        "num_features": 24,
        "max_video_tokens": 2048,
    },
    "projector_config": {"type": "mlp2x_gelu"},
}
WORDS = ("▁Frame", "▁the", "▁A", "▁chat", "▁object", "ASS", "IST", "ANT", ",▁", "▁[", ":▁", "▁USER")


def llama_tokenizer() -> dict:
    """``tokenizer.json`` of the LLaMA kind: ▁ for a blank, single digits, bytes for what is unknown."""
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab += ["▁", *(chr(code) for code in range(33, 127))]
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab.append(word[:end])
                merges.append([word[: end - 1], word[end - 1]])
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    blank_to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    mark_to_blank = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": place, "content": vocab[place], **special} for place in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, blank_to_mark]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [mark_to_blank, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: place for place, token in enumerate(vocab)},
            "merges": merges,
        },
    }


def published_weights(vocab_size: int) -> dict[str, torch.Tensor]:
    """Random weights under their published names; the two towers' names and shapes are transformers' own."""
    torch.manual_seed(7)
    vision = CLIPVisionModel(CLIPVisionConfig(**PUBLISHED_VISION)).state_dict()
    llm = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **PUBLISHED_LLM)).state_dict()
    shapes = {f"visual_encoder.vision_model.{key.removeprefix('vision_model.')}": v.shape for key, v in vision.items()}
    shapes |= {f"llm.{key}": value.shape for key, value in llm.items()}
    patches, width, wide = 16, PUBLISHED_VISION["hidden_size"], PUBLISHED_LLM["hidden_size"]
    shapes |= {
        "adapter.pre_proj.weight": (1, width),
        "adapter.pre_proj.bias": (1,),
        "adapter.trans_weight": (patches, patches),
        "adapter.trans_bias": (patches,),
        "adapter.score_proj.weight": (PUBLISHED_KEPT, patches),
        "adapter.score_proj.bias": (PUBLISHED_KEPT,),
        "llm_proj.0.weight": (wide, width),
        "llm_proj.0.bias": (wide,),
        "llm_proj.2.weight": (wide, wide),
        "llm_proj.2.bias": (wide,),
    }
    return {key: _random(key, tuple(shape)) for key, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * torch.randn(shape)
    inputs = shape[-1] if len(shape) == 2 else np.prod(shape[1:]) if len(shape) > 1 else 10
    return torch.randn(shape) * (1.0 if "embed_tokens" in name else float(inputs) ** -0.5)


def write_published_checkpoint(folder: Path) -> None:
    """Write it into an empty folder."""
    tokenizer = llama_tokenizer()
    vocab_size = len(tokenizer["model"]["vocab"])
    texts = {
        "config.json": PUBLISHED_CONFIG,
        "eyes/config.json": PUBLISHED_VISION,
        "language/config.json": {"vocab_size": vocab_size, **PUBLISHED_LLM},
        "language/tokenizer.json": tokenizer,
        "language/tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "legacy": False,
        },
    }
    for name, content in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    save_file(published_weights(vocab_size), folder / "model.safetensors", metadata={"format": "pt"})
