"""Token adapters, which reduce a frame's N visual tokens to K: T-Selectors and the alternatives of the paper's table 7.

Shapes: B frames, N tokens in, K out, D their width. Every adapter maps (B, N, D) to (B, K, D'),
where D' is the input width of the projector.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from elysium_core.network.conv_layers import ConvNorm, as_grid, as_tokens, conv_trunk
from elysium_core.network.model_config import AdapterConfig
from elysium_core.network.token_selector import GateTraining, TokenSelector, best_tokens


class Adapter(nn.Module, ABC):
    """The interface of token adapters.

    Attributes:
        out_features: Width D' of the output.
    """

    out_features: int

    @abstractmethod
    def adapt(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, K, D')."""


class SelectingAdapter(Adapter):
    """An adapter that keeps K of N tokens by the scores of a gate."""

    @abstractmethod
    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select of (B, N, D): kept tokens (B, K, D'), their indices (B, K) ascending, gate logits (B, N)."""

    @abstractmethod
    def learn_by(self, gate: str) -> None:
        """Choose how the gate is trained: one of :data:`elysium_core.network.token_selector.GATES`."""

    @abstractmethod
    def untrained_parts(self) -> Iterable[nn.Module]:
        """The modules that get no gradient from the kept tokens, with the gate as it is trained now."""

    def adapt(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to the kept tokens (B, K, D')."""
        kept, _, _ = self(tokens)
        return kept


class TSelectorAdapter(TokenSelector, SelectingAdapter):
    """The published T-Selector as an adapter; D' = D."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config.in_token_num, config.out_token_num, config.num_features, config.gate)
        self.out_features = config.num_features

    def untrained_parts(self) -> Iterable[nn.Module]:
        """See :class:`SelectingAdapter`; a hard gate of this kind learns nothing at all."""
        return (self,) if self.gate == "hard" else (self.score_proj,)


class ConvTSelectorAdapter(GateTraining, SelectingAdapter):
    """A T-Selector whose gate sees a cell's surroundings, for encoders with convolutional features.

    Convolutions turn the grid of tokens into new tokens of another width, each with its learned place; a linear gate
    scores them. The grid is square: N = G * G.

    Raises:
        ValueError: N is not a square number, or K is not in 1..N.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__(config.in_token_num, config.out_token_num, config.gate)
        self._grid = math.isqrt(config.in_token_num)
        if self._grid**2 != config.in_token_num:
            raise ValueError(f"conv_t_selector needs a square grid; in_token_num = {config.in_token_num} is none")
        self.out_features = config.out_features
        self.neck = ConvNorm(config.num_features, config.neck, 1)
        self.trunk = conv_trunk(config.neck)
        self.token = nn.Linear(config.neck, config.out_features)
        self.place = nn.Parameter(torch.randn(config.in_token_num, config.out_features) * 0.02)
        self.gate_score = nn.Linear(config.out_features, 1)

    def every_token(self, tokens: Tensor) -> Tensor:
        """New tokens (B, N, D') of all cells, of the encoder's tokens (B, N, D)."""
        features = self.trunk(self.neck(as_grid(tokens.transpose(1, 2), self._grid)))
        every: Tensor = self.token(as_tokens(features)) + self.place
        return every

    def logits(self, every: Tensor) -> Tensor:
        """Gate logits (B, N) of the new tokens (B, N, D')."""
        logits: Tensor = self.gate_score(every)
        return logits.squeeze(-1)

    def untrained_parts(self) -> Iterable[nn.Module]:
        """See :class:`SelectingAdapter`."""
        return (self.gate_score,) if self.gate == "hard" else ()

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`SelectingAdapter`."""
        every = self.every_token(tokens)
        logits = self.logits(every)
        index = best_tokens(logits, self.out_token_num)
        return self.keep(every, logits, index), index, logits


class NoAdapter(Adapter):
    """No reduction: K = N, and only the projector connects the models."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        if config.out_token_num != config.in_token_num:
            raise ValueError(
                f"adapter 'none' keeps all {config.in_token_num} tokens; out_token_num is {config.out_token_num}"
            )
        self.out_features = config.num_features

    def adapt(self, tokens: Tensor) -> Tensor:
        """Return (B, N, D) unchanged."""
        return tokens


class CrossAttentionAdapter(Adapter):
    """One layer of cross-attention from K learned queries q: softmax(q k(x)' / sqrt(d)) v(x)."""

    def __init__(self, config: AdapterConfig, heads: int = 8) -> None:
        super().__init__()
        width = config.num_features
        self.out_features = width
        self.queries = nn.Parameter(torch.randn(config.out_token_num, width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads if width % heads == 0 else 1, batch_first=True)

    def adapt(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, K, D)."""
        memory = self.norm(tokens)
        # Not len(): an export would turn that plain number into a fixed batch size.
        queries = self.queries[None].expand(tokens.shape[0], -1, -1)
        attended, _ = self.attention(queries, memory, memory, need_weights=False)
        return attended


class ConcatenationAdapter(Adapter):
    """Concatenates N / K neighbouring tokens, in row-major order, to one: (K, D N / K)."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        if config.in_token_num % config.out_token_num:
            raise ValueError(
                f"concatenation needs out_token_num to divide {config.in_token_num}, {config.out_token_num} does not"
            )
        self.out_token_num = config.out_token_num
        self.out_features = config.num_features * (config.in_token_num // config.out_token_num)

    def adapt(self, tokens: Tensor) -> Tensor:
        """Map (B, N, D) to (B, K, D N / K)."""
        return tokens.reshape(tokens.shape[0], self.out_token_num, -1)


ADAPTERS: dict[str, Callable[[AdapterConfig], Adapter]] = {
    "t_selector": TSelectorAdapter,
    "conv_t_selector": ConvTSelectorAdapter,
    "none": NoAdapter,
    "cross_attention": CrossAttentionAdapter,
    "concatenation": ConcatenationAdapter,
}


def build_adapter(config: AdapterConfig) -> Adapter:
    """Build the adapter that ``config.type`` names.

    Raises:
        ValueError: The name is unknown or the token numbers do not fit it.
    """
    if config.type not in ADAPTERS:
        raise ValueError(f"adapter {config.type!r} is not one of {', '.join(ADAPTERS)}")
    return ADAPTERS[config.type](config)
