"""A decoder that records its forward passes as CUDA graphs, for a few fixed shapes, and replays them.

One pass of a 7B decoder launches some five hundred kernels. Launching them one by one from
Python takes longer than running them. A recording is launched by a single call, but it has
one shape and fixed addresses. So passes are padded, and caches keep their memory.

A pass of T new tokens after S - T cached ones is padded to a *bucket* with rows of zeros, which
are masked, and with masked columns. A decoder without biases maps rows of zeros to zeros, so
the keys and values of padding are zeros, too.

Shapes: T new tokens and S columns of a pass, Tb and Sb those of its bucket, D width.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from elysium_core.engine.cuda_graph import CudaRecorder, Program
from elysium_core.engine.decoder import StaticDecoder
from elysium_core.network.kv_cache import CAPACITY, KVCache, KVMemory
from elysium_core.network.llama import Llama

COLUMN_STEP = 256
"""The columns of a bucket are a multiple of this, or the whole capacity of the cache."""
MAX_TOKENS = 2048
"""Rows of the largest bucket; wider passes are not padded."""

# (most rows, step): up to so many rows, the rows of a bucket are a multiple of the step. From 96 rows on, less than a
# seventh of the work is padding.
_ROW_STEPS = ((32, 16), (256, 32), (512, 64), (MAX_TOKENS, 128))


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shape that a pass is padded to.

    Attributes:
        rows: New tokens Tb.
        columns: Columns Sb of the cache that the pass reads.
    """

    rows: int
    columns: int


def find_bucket(tokens: int, start: int, capacity: int) -> Bucket | None:
    """The smallest bucket that a pass fits into; None if there is none.

    Args:
        tokens: New tokens T.
        start: Cached tokens before them, S - T.
        capacity: Capacity of the cache [tokens].
    """
    step = next((step for most, step in _ROW_STEPS if tokens <= most), None)
    if step is None:
        return None
    rows = _round_up(tokens, step)
    columns = min(_round_up(start + rows, COLUMN_STEP), capacity)
    return Bucket(rows, columns) if start + rows <= columns else None


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


class PaddedCache:
    """The cache of a padded pass: a fixed number of columns, and places of new tokens that are read on the device.

    Args:
        memory: Memory of the keys and values.
        slots: (Tb,) int64, places of the new tokens in the cache.
        columns: Columns Sb that the pass reads.
    """

    def __init__(self, memory: KVMemory, slots: Tensor, columns: int) -> None:
        self._memory, self._slots, self._columns = memory, slots, columns
        self.length = 0

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`elysium_core.network.kv_cache.LayerCache`."""
        stored = self._memory.keys[layer], self._memory.values[layer]
        for place, new in zip(stored, (keys, values), strict=True):
            place.index_copy_(2, self._slots, new)
        return stored[0][:, :, : self._columns], stored[1][:, :, : self._columns]

    def advance(self, tokens: int) -> None:
        """Do nothing: tokens are counted by the :class:`elysium_core.network.kv_cache.KVCache` itself."""


class PaddedInputs:
    """Input and output buffers of padded passes, at fixed addresses.

    Args:
        llm: The language model.
        capacity: Largest number of columns.
    """

    def __init__(self, llm: Llama, capacity: int) -> None:
        weight = llm.model.embed_tokens.weight
        rows, device = min(MAX_TOKENS, capacity), weight.device
        self.capacity = capacity
        self._embeddings = torch.zeros(1, rows, llm.size.width, device=device, dtype=weight.dtype)
        self._positions = torch.zeros(1, rows, dtype=torch.int64, device=device)
        # One block holds the masks of all buckets: each mask is a view that starts at its first byte.
        self._mask = torch.zeros(rows * capacity, dtype=torch.bool, device=device)
        self._extent = torch.zeros(2, dtype=torch.int64, device=device)
        self._hidden = torch.zeros_like(self._embeddings)

    def fill(self, bucket: Bucket, embeddings: Tensor, positions: Tensor, mask: Tensor, start: int) -> None:
        """Copy the inputs of a pass (:meth:`elysium_core.network.llama.Llama.forward`) and pad them.

        Args:
            bucket: Shape to pad to.
            embeddings: (1, T, D).
            positions: (1, T).
            mask: (1, 1, T, S), bool.
            start: Cached tokens before the pass, S - T.
        """
        tokens, columns = mask.shape[2:]
        self._embeddings[:, :tokens] = embeddings
        self._embeddings[:, tokens : bucket.rows] = 0
        self._positions[:, :tokens] = positions
        padded = self._masked(bucket)
        padded[..., columns:] = False
        padded[:, :, tokens:] = False
        padded[:, :, :tokens, :columns] = mask
        self._extent.copy_(torch.tensor([start, tokens]), non_blocking=True)

    def run(self, llm: Llama, memory: KVMemory, bucket: Bucket) -> None:
        """Run the padded pass. It uses only these buffers and the cache memory, so that it can be recorded."""
        rows, columns = bucket.rows, bucket.columns
        row = torch.arange(rows, device=self._extent.device)
        slots = self._extent[0] + row
        # The softmax of a fully masked row is NaN. So each padding row attends to itself, whose value is zero.
        own = (row >= self._extent[1])[:, None] & (torch.arange(columns, device=row.device) == slots[:, None])
        allowed = self._masked(bucket) | own
        bias = torch.zeros_like(allowed, dtype=self._embeddings.dtype).masked_fill_(~allowed, float("-inf"))
        cache = PaddedCache(memory, slots, columns)
        hidden, _ = llm(self._embeddings[:, :rows], self._positions[:, :rows], bias, cache)
        self._hidden[:, :rows] = hidden

    def output(self, tokens: int) -> Tensor:
        """Copy of the hidden states (1, T, D) of the last pass."""
        return self._hidden[:, :tokens].clone()

    def _masked(self, bucket: Bucket) -> Tensor:
        return self._mask[: bucket.rows * bucket.columns].view(1, 1, bucket.rows, bucket.columns)


def clear_tail(cache: KVCache, bucket: Bucket) -> None:
    """Set the columns after a pass to zero, as far as its bucket reads them.

    They are masked, but a NaN in a masked column still makes the result NaN, because 0 * NaN is
    NaN. Only a failed pass can leave NaN in the cache.
    """
    tail = slice(cache.length + bucket.rows, bucket.columns)
    cache.memory.keys[..., tail, :] = 0
    cache.memory.values[..., tail, :] = 0


MOST_PROGRAMS = 64
"""Largest number of recordings that are kept; each takes a few MiB of GPU memory."""

_logger = logging.getLogger(__name__)


class RecordedDecoder(StaticDecoder):
    """A decoder that replays recorded passes.

    A shape is recorded when it occurs for the second time. A pass runs eagerly if it fits into no
    bucket, or if its bucket occurs for the first time. After a recording has failed, all passes do.

    Args:
        llm: The language model that is run.
        record: Records a program and returns a function that replays it
            (:class:`elysium_core.engine.cuda_graph.CudaRecorder`).
        capacity: Smallest capacity of a cache [tokens].
        most_programs: Recordings that are kept; the least recently used one is dropped first.

    Attributes:
        replayed: Number of replayed passes.
        padded_tokens: Number of padding rows in them.
    """

    def __init__(
        self,
        llm: Llama,
        record: Callable[[Program], Program],
        capacity: int = CAPACITY,
        most_programs: int = MOST_PROGRAMS,
    ) -> None:
        super().__init__(llm, capacity, COLUMN_STEP)
        self._record = record
        self._most_programs = most_programs
        self._programs: OrderedDict[tuple[KVMemory, Bucket], Program] = OrderedDict()
        self._seen: set[Bucket] = set()
        self._inputs: PaddedInputs | None = None
        self._weights = 0
        self._failure = ""
        self.replayed = self.padded_tokens = 0

    @property
    def description(self) -> str:
        """How passes are run, for reports."""
        if self._failure:
            return f"eager, because recording failed: {self._failure}"
        return f"recorded: {len(self._programs)} programs, {self.replayed} passes replayed"

    def release(self) -> None:
        """Free the recordings and the memory that is not in use."""
        self._programs.clear()
        self._inputs = None
        super().release()

    @torch.inference_mode()
    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the layers on T new tokens; see :meth:`elysium_core.network.llama.Llama.forward`."""
        start = 0 if cache is None else cache.length
        try:
            if mask is not None and cache is not None and not self._failure:
                hidden = self._replay(embeddings, positions, mask, cache)
                if hidden is not None:
                    return hidden, []
            return super().__call__(embeddings, positions, mask, cache)
        except torch.OutOfMemoryError:
            _logger.warning("the language model ran out of memory; its cached memory is freed and the pass is repeated")
        # Not in the handler above: there the error still refers to the memory of the failed pass.
        self.release()
        if cache is not None:
            cache.crop(start)
        return super().__call__(embeddings, positions, mask, cache)

    def _replay(self, embeddings: Tensor, positions: Tensor, mask: Tensor, cache: KVCache) -> Tensor | None:
        """Replay the recording of a pass; returns the hidden states (1, T, D), or None if there is no recording."""
        tokens = embeddings.shape[1]
        bucket = find_bucket(tokens, cache.length, cache.capacity)
        if bucket is None or bucket not in self._seen:
            self._seen |= {bucket} if bucket is not None else set()
            return None
        inputs = self._inputs_for(cache)
        inputs.fill(bucket, embeddings, positions, mask, cache.length)
        clear_tail(cache, bucket)
        program = self._program(inputs, cache.memory, bucket)
        if program is None:
            return None
        program()
        cache.advance(tokens)
        self.replayed += 1
        self.padded_tokens += bucket.rows - tokens
        return inputs.output(tokens)

    def _program(self, inputs: PaddedInputs, memory: KVMemory, bucket: Bucket) -> Program | None:
        key = memory, bucket
        if key in self._programs:
            self._programs.move_to_end(key)
            return self._programs[key]
        try:
            program = self._record(partial(inputs.run, self._llm, memory, bucket))
        except RuntimeError as error:  # includes torch.OutOfMemoryError
            self._failure = str(error).strip().partition("\n")[0] or type(error).__name__
            _logger.warning("the language model runs without CUDA graphs and slower: %s", self._failure)
            self.release()
            return None
        self._programs[key] = program
        if len(self._programs) > self._most_programs:
            self._programs.popitem(last=False)
        return program

    def _inputs_for(self, cache: KVCache) -> PaddedInputs:
        """The buffers; all recordings are dropped when the buffers must grow or the weights have moved."""
        weights = self._llm.lm_head.weight.data_ptr()
        inputs = self._inputs
        if inputs is None or inputs.capacity < cache.capacity or weights != self._weights:
            self._programs.clear()
            inputs = self._inputs = PaddedInputs(self._llm, cache.capacity)
            self._weights = weights
        return inputs


def build_decoder(llm: Llama, *, cuda_graphs: bool = True) -> StaticDecoder:
    """Make the decoder for the device of a language model.

    Args:
        llm: The language model, on its device.
        cuda_graphs: Replay recorded passes on a GPU; no effect on a CPU.
    """
    device = llm.model.embed_tokens.weight.device
    if device.type == "cuda" and cuda_graphs:
        return RecordedDecoder(llm, CudaRecorder(device))
    return StaticDecoder(llm)
