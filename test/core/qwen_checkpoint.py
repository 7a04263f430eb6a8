"""Tiny Qwen-VL models of random weights, of transformers' own classes, in the layout of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.families.qwen_vl import QUESTIONS
from elysium_core.geometry import Box

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Qwen's: words with the blank before them, single digits, signs, line ends.
PIECE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Of the weights: so large that every place and every patch matters.
STD = 0.12


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE as Qwen's, with the words of questions and answers."""
    grammar, box = JsonBoxGrammar(1000), Box(0.012, 0.345, 0.678, 0.9)
    texts = [*QUESTIONS.values(), "user\n", "assistant\n", "system\nYou are a helpful assistant."]
    texts += [grammar.answer([box], (1000, 1000), "the red mug"), *grammar.other_forms(box, (1000, 1000), "an apple")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=440, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def make_model(kind: str, tokenizer: Tokenizer, seed: int) -> torch.nn.Module:
    """A random model. ``kind``: its ``model_type``."""
    torch.manual_seed(seed)
    ids = {
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
    }
    ids |= {
        name: tokenizer.token_to_id(f"<|{name.removesuffix('_token_id')}|>")
        for name in ("vision_start_token_id", "vision_end_token_id")
    }
    eos = tokenizer.token_to_id("<|im_end|>")
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": STD,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": None,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "initializer_range": STD,
    }
    if kind == "qwen3_vl":
        rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        vision |= {"patch_size": 16, "num_position_embeddings": 144, "deepstack_visual_indexes": [0, 1]}
        config = Qwen3VLConfig(
            text_config=text | {"head_dim": 16, "rope_parameters": rope}, vision_config=vision, **ids
        )
        model = Qwen3VLForConditionalGeneration(config)
    else:
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision, **ids)
        model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # those of q, k and v are not zero in trained models
            torch.nn.init.normal_(parameter, std=STD)
    return model.eval()


def write_qwen_checkpoint(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save a model with tokenizer and image processor. ``kind``: its ``model_type``."""
    tokenizer = train_tokenizer()
    make_model(kind, tokenizer, seed).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    half = [0.5, 0.5, 0.5]
    processor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "patch_size": 16 if kind == "qwen3_vl" else 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 1024, "longest_edge": 1 << 24},
        "image_mean": half if kind == "qwen3_vl" else [0.48, 0.46, 0.41],
        "image_std": half if kind == "qwen3_vl" else [0.27, 0.26, 0.28],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
