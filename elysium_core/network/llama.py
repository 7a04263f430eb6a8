"""The LLaMA decoder, from embeddings to hidden states and logits, with explicit positions, mask and cache.

Shapes: B sequences, T new tokens, S all tokens attended to (cached and new), D width,
H heads, G key/value heads, d head width. Parameter names are those of a
``LlamaForCausalLM`` checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elysium_core.network.kv_cache import KVCache, KVMemory, KVShape, LayerCache


@dataclass(frozen=True, slots=True)
class LlamaSize:
    """Sizes of a decoder, read from a LLaMA ``config.json``.

    Attributes:
        vocab: Entries of the vocabulary.
        width: Width of the hidden states, D.
        mlp_width: Width inside the MLPs.
        layers: Decoder layers.
        heads: Attention heads, H.
        kv_heads: Key/value heads, G; divides ``heads``.
        head_dim: Width of a head, d.
        norm_eps: Epsilon of the norms.
        rope_base: Base of the rotary frequencies.
        rope_factor: Divisor of the rotary frequencies (linear scaling), >= 1.
        tied: The head shares the weights of the embeddings.
    """

    vocab: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope_base: float
    rope_factor: float
    tied: bool

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> LlamaSize:
        """Read the keys of a LlamaConfig of transformers 4 or 5.

        Raises:
            ValueError: The config needs a feature that this decoder does not have.
        """
        if raw.get("attention_bias") or raw.get("mlp_bias"):
            raise ValueError("LLaMA with biases is not supported; the published model has none")
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act {raw['hidden_act']!r} is not supported, only 'silu'")
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "linear"):
            raise ValueError(f"rope scaling {kind!r} is not supported, only 'default' and 'linear'")
        width, heads = int(raw["hidden_size"]), int(raw["num_attention_heads"])
        return cls(
            vocab=int(raw["vocab_size"]),
            width=width,
            mlp_width=int(raw["intermediate_size"]),
            layers=int(raw["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_dim=int(raw.get("head_dim") or width // heads),
            norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope_base=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
            rope_factor=float(rope.get("factor", 1.0)) if kind == "linear" else 1.0,
            tied=bool(raw.get("tie_word_embeddings", False)),
        )


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise (..., D)."""
        wide = hidden.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(hidden.dtype)


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Apply rotary position embedding to (B, H, T, d) and (B, G, T, d) with cos, sin (B or 1, 1, T, d)."""
    (q1, q2), (k1, k2) = query.chunk(2, dim=-1), key.chunk(2, dim=-1)
    turned_query, turned_key = torch.cat((-q2, q1), dim=-1), torch.cat((-k2, k1), dim=-1)
    return query * cos + turned_query * sin, key * cos + turned_key * sin


class Attention(nn.Module):
    """Multi-head attention with rotary positions and grouped key/value heads."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = size.heads, size.kv_heads, size.head_dim
        self.q_proj = nn.Linear(size.width, size.heads * size.head_dim, bias=False)
        self.k_proj = nn.Linear(size.width, size.kv_heads * size.head_dim, bias=False)
        self.v_proj = nn.Linear(size.width, size.kv_heads * size.head_dim, bias=False)
        self.o_proj = nn.Linear(size.heads * size.head_dim, size.width, bias=False)

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None, layer: int
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D); ``mask`` (B or 1, 1, T, S) is that of :meth:`Llama.forward`; None = causal."""
        batch, tokens, _ = hidden.shape
        query = self.q_proj(hidden).view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        key = self.k_proj(hidden).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        value = self.v_proj(hidden).view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        query, key = rotate(query, key, cos, sin)
        if cache is not None:
            key, value = cache.update(layer, key, value)
        grouped = self.kv_heads != self.heads
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None and tokens > 1, enable_gqa=grouped
        )
        return self.o_proj(attended.transpose(1, 2).reshape(batch, tokens, -1))


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.width, size.mlp_width, bias=False)
        self.up_proj = nn.Linear(size.width, size.mlp_width, bias=False)
        self.down_proj = nn.Linear(size.mlp_width, size.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class DecoderLayer(nn.Module):
    """Attention and MLP, each with a norm before it and a residual connection around it."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.self_attn = Attention(size)
        self.mlp = MLP(size)
        self.input_layernorm = RMSNorm(size.width, size.norm_eps)
        self.post_attention_layernorm = RMSNorm(size.width, size.norm_eps)

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None, layer: int
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, mask, cache, layer)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class DecoderStack(nn.Module):
    """Embeddings, layers and final norm: the ``model.*`` part of a checkpoint."""

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocab, size.width)
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.layers))
        self.norm = RMSNorm(size.width, size.norm_eps)


class Llama(nn.Module):
    """A LLaMA decoder.

    Args:
        size: Its sizes.

    Attributes:
        size: Its sizes.
        quantization: Quantisation of the matrices of its layers; ``none`` = not quantised.
    """

    def __init__(self, size: LlamaSize) -> None:
        super().__init__()
        self.size = size
        self.quantization = "none"
        self.model = DecoderStack(size)
        self.lm_head = nn.Linear(size.width, size.vocab, bias=False)
        if size.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def embed(self, token_ids: Tensor) -> Tensor:
        """Return the embeddings (..., D) of token ids (...)."""
        return self.model.embed_tokens(token_ids)

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        collect: Sequence[int] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers.

        Args:
            embeddings: (B, T, D).
            positions: (B or 1, T) int64, the position of each new token. Several tokens may have
                the same position (packed targets do).
            mask: (B or 1, 1, T, S) bool, True = may attend, or of the embeddings' dtype and
                added to the scores; None = causal over the new tokens, allowed only while
                the cache is empty.
            cache: Keys and values of earlier tokens; those of the new ones are added.
            collect: Numbers of layers whose output is returned, too; 1 is the first.

        Returns:
            Hidden states (B, T, D) after the final norm, the input of :meth:`logits`; and the
            collected outputs, each (B, T, D).
        """
        if mask is None and cache is not None and cache.length > 0 and embeddings.shape[1] > 1:
            raise ValueError("a mask is needed when new tokens follow cached ones")
        cos, sin = self.rotary(positions, embeddings.dtype)
        hidden, collected = embeddings, []
        for index, layer in enumerate(self.model.layers):
            hidden = layer(hidden, cos, sin, mask, cache, index)
            if index + 1 in collect:
                collected.append(hidden)
        if cache is not None:
            cache.advance(embeddings.shape[1])
        return self.model.norm(hidden), collected

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the next-token logits (..., vocab), float32, of hidden states (..., D)."""
        return self.lm_head(hidden).float()

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache for one sequence of up to ``capacity`` tokens, on the device of the weights."""
        return KVCache(KVMemory(self.kv_shape, capacity))

    @property
    def kv_shape(self) -> KVShape:
        """Shape, device and data type of a token's keys and values."""
        size, weight = self.size, self.model.embed_tokens.weight
        return KVShape(size.layers, size.kv_heads, size.head_dim, weight.device, weight.dtype)

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines of the rotary embedding, each (B or 1, 1, T, d)."""
        size = self.size
        even = torch.arange(0, size.head_dim, 2, device=positions.device, dtype=torch.float32)
        # Rounded like transformers: at high positions the last bit of a frequency can change an answer.
        frequency = 1.0 / size.rope_base ** (even / size.head_dim) / size.rope_factor
        angle = positions.float()[..., None] * frequency
        angle = torch.cat((angle, angle), dim=-1)[:, None]
        return angle.cos().to(dtype), angle.sin().to(dtype)
