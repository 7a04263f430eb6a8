"""A slow model, written from the paper's equations in float64, to compare the fast one with.

It shares no code with the package: weights come straight from the file under their
published names, every step is the plain formula.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Reference:
    """The model of a checkpoint folder in the published layout."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        llm = folder / self.config["llm_config"]["pretrained_model_name_or_path"]
        vision = folder / self.config["visual_config"]["pretrained_model_name_or_path"]
        self.llm = json.loads((llm / "config.json").read_text())
        self.vision = json.loads((vision / "config.json").read_text())
        tokenizer = json.loads((llm / "tokenizer.json").read_text())["model"]
        self.vocab = tokenizer["vocab"]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(tokenizer["merges"])}
        self.weights = {key: value.double().numpy() for key, value in load_file(folder / "model.safetensors").items()}

    # Frames.

    def resize(self, image, axes=(1, 0)):
        """Shrink or enlarge as PIL does: a triangle as wide as the step, along x, then along y, rounded after each."""
        for axis in axes:
            image = stretch(image, self.vision["image_size"], axis)
        return image

    def patch_tokens(self, image):
        """(N, D): the encoder's hidden state before its last layer, without the class token."""
        pixels = (self.resize(image) / 255 - np.array(MEAN)) / np.array(STD)
        size = self.vision["patch_size"]
        grid = self.vision["image_size"] // size
        kernel = self._vision("embeddings.patch_embedding.weight")
        tokens = [self._vision("embeddings.class_embedding")]
        for row in range(grid):
            for column in range(grid):
                patch = pixels[row * size : (row + 1) * size, column * size : (column + 1) * size]
                tokens.append((kernel * patch.transpose(2, 0, 1)[None]).sum((1, 2, 3)))
        hidden = np.stack(tokens) + self._vision("embeddings.position_embedding.weight")
        hidden = self._layer_norm(hidden, "pre_layrnorm")
        for layer in range(self.vision["num_hidden_layers"] - 1):
            name = f"encoder.layers.{layer}"
            hidden = hidden + self._vision_attention(self._layer_norm(hidden, f"{name}.layer_norm1"), name)
            wide = self._linear(self._layer_norm(hidden, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
            hidden = hidden + self._linear(wide / (1 + np.exp(-1.702 * wide)), f"{name}.mlp.fc2")
        return hidden[1:]

    def kept(self, tokens):
        """Indices of the K tokens with the highest scores, ascending."""
        weights = self.weights
        z = tokens @ weights["adapter.pre_proj.weight"][0] + weights["adapter.pre_proj.bias"][0]
        scores = softmax(z @ weights["adapter.trans_weight"] + weights["adapter.trans_bias"])
        best = sorted(range(len(scores)), key=lambda place: -scores[place])
        return sorted(best[: self.config["adapter_config"]["out_token_num"]])

    def visual_tokens(self, image):
        """(K, width of the LLM)."""
        tokens = self.patch_tokens(image)
        weights = self.weights
        wide = tokens[self.kept(tokens)] @ weights["llm_proj.0.weight"].T + weights["llm_proj.0.bias"]
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        return wide @ weights["llm_proj.2.weight"].T + weights["llm_proj.2.bias"]

    def _vision(self, name):
        return self.weights[f"visual_encoder.vision_model.{name}"]

    def _linear(self, x, name):
        return x @ self._vision(f"{name}.weight").T + self._vision(f"{name}.bias")

    def _layer_norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.vision["layer_norm_eps"])
        return normed * self._vision(f"{name}.weight") + self._vision(f"{name}.bias")

    def _vision_attention(self, x, name):
        query, key, value = (self._linear(x, f"{name}.self_attn.{part}_proj") for part in "qkv")
        width = x.shape[1] // self.vision["num_attention_heads"]
        heads = []
        for start in range(0, x.shape[1], width):
            own = slice(start, start + width)
            scores = query[:, own] @ key[:, own].T / math.sqrt(width)
            heads.append(np.stack([softmax(row) for row in scores]) @ value[:, own])
        return self._linear(np.concatenate(heads, axis=1), f"{name}.self_attn.out_proj")

    # Text.

    def prompt_text(self, question, frames):
        """The whole prompt, one ``<image>`` a frame."""
        labels = "<image>" if frames == 1 else ", ".join(f"Frame {i + 1}: <image>" for i in range(frames))
        return f"{SYSTEM}USER: {labels}\n{question}ASSISTANT:"

    def prompt_ids(self, question, frames):
        """Ids of every piece between the frames, each with its own BOS."""
        return [[1, *self.encode(piece)] for piece in self.prompt_text(question, frames).split("<image>")]

    def encode(self, text):
        """Byte pair encoding: join the pair that was learned first, until there is none."""
        symbols = []
        for character in "▁" + text.replace(" ", "▁"):
            known = character in self.vocab
            symbols += [character] if known else [f"<0x{byte:02X}>" for byte in character.encode()]
        while True:
            pairs = [(self.ranks.get(pair, math.inf), place) for place, pair in enumerate(pairwise(symbols))]
            rank, place = min(pairs, default=(math.inf, 0))
            if rank == math.inf:
                return [self.vocab[symbol] for symbol in symbols]
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]

    # Language model.

    def embed(self, ids):
        return self.weights["llm.model.embed_tokens.weight"][ids]

    def prompt_embeddings(self, question, images):
        """(T, D): piece, frame, piece, ..., piece."""
        pieces = [self.embed(ids) for ids in self.prompt_ids(question, len(images))]
        parts = [pieces[0]]
        for image, piece in zip(images, pieces[1:], strict=True):
            parts += [self.visual_tokens(image), piece]
        return np.concatenate(parts)

    def logits(self, embeddings):
        """(T, vocabulary)."""
        hidden = embeddings
        for layer in range(self.llm["num_hidden_layers"]):
            name = f"llm.model.layers.{layer}"
            hidden = hidden + self._attention(self._rms_norm(hidden, f"{name}.input_layernorm"), f"{name}.self_attn")
            x = self._rms_norm(hidden, f"{name}.post_attention_layernorm")
            gate = x @ self.weights[f"{name}.mlp.gate_proj.weight"].T
            up = x @ self.weights[f"{name}.mlp.up_proj.weight"].T
            hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{name}.mlp.down_proj.weight"].T
        return self._rms_norm(hidden, "llm.model.norm") @ self.weights["llm.lm_head.weight"].T

    def greedy(self, embeddings, longest):
        """Ids of the answer: always the likeliest token, everything computed anew for each."""
        answer = []
        while len(answer) < longest:
            best = int(self.logits(embeddings)[-1].argmax())
            if best == self.llm["eos_token_id"]:
                break
            answer.append(best)
            embeddings = np.concatenate([embeddings, self.embed([best])])
        return answer

    def _rms_norm(self, x, name):
        root = np.sqrt((x**2).mean(-1, keepdims=True) + self.llm["rms_norm_eps"])
        return x / root * self.weights[f"{name}.weight"]

    def _attention(self, x, name):
        query, key, value = (x @ self.weights[f"{name}.{part}_proj.weight"].T for part in "qkv")
        heads, groups = self.llm["num_attention_heads"], self.llm["num_key_value_heads"]
        width = x.shape[1] // heads
        outputs = []
        for head in range(heads):
            group = head * groups // heads
            q = turn(query[:, head * width : (head + 1) * width])
            k = turn(key[:, group * width : (group + 1) * width])
            v = value[:, group * width : (group + 1) * width]
            rows = [softmax(q[t] @ k[: t + 1].T / math.sqrt(width)) @ v[: t + 1] for t in range(len(x))]
            outputs.append(np.stack(rows))
        return np.concatenate(outputs, axis=1) @ self.weights[f"{name}.o_proj.weight"].T


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def turn(x):
    """Rotary position: numbers i and i + half of a head are one complex number, turned by place * 10000^(-i/half)."""
    half = x.shape[1] // 2
    angle = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half)
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=1)


def stretch(image, length, axis):
    """Resample one axis with a triangle that widens when the image shrinks.

    PIL computes with weights of 22 binary places and cuts off what is behind the point, after adding one half.
    """
    source = np.moveaxis(image.astype(np.int64), axis, 0)
    step = len(source) / length
    reach = max(step, 1.0)
    result = np.empty((length, *source.shape[1:]), np.int64)
    for place in range(length):
        middle = (place + 0.5) * step
        start, stop = max(0, int(middle - reach + 0.5)), min(len(source), int(middle + reach + 0.5))
        weights = np.array([max(0.0, 1 - abs(at + 0.5 - middle) / reach) for at in range(start, stop)])
        whole = np.floor(weights / weights.sum() * 2**22 + 0.5).astype(np.int64)
        result[place] = (np.tensordot(whole, source[start:stop], axes=1) + 2**21) >> 22
    return np.moveaxis(result.clip(0, 255).astype(np.uint8), 0, axis)
