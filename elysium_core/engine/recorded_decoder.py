"""Forward passes of a few fixed shapes: what a recorded program needs, and what tests compare with free shapes.

A pass of T new tokens behind S - T cached ones is padded to a *bucket*: a few more rows of
zeros, which nobody attends to, and a few more columns, which nobody may look at. A decoder
without biases keeps rows of zeros at zero, so that what they write is zero, too.

Shapes: T new tokens and S columns of a pass, Tb and Sb those of its bucket, D width.

A language model whose passes are recorded once for each of a few shapes, and then replayed.

One pass of a 7B decoder is some five hundred small programs. Told one by one from Python,
they take longer to be told than to be run. A recording is told at once, but it has one
shape and fixed addresses: passes are padded (:mod:`elysium_core.engine.recorded_decoder`),
and the memory of the caches stays where it is.
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
"""Columns of a bucket are a multiple of it, or all that the memory has."""
MAX_TOKENS = 2048
"""Rows of the largest bucket; wider passes are not padded."""

# Up to so many rows in steps of so many: what padding costs stays below a seventh from 96 rows on.
_ROW_STEPS = ((32, 16), (256, 32), (512, 64), (MAX_TOKENS, 128))


@dataclass(frozen=True, slots=True)
class Bucket:
    """The shape that a pass is padded to.

    Attributes:
        rows: New tokens Tb.
        columns: Columns Sb of the memory that are attended to.
    """

    rows: int
    columns: int


def find_bucket(tokens: int, start: int, capacity: int) -> Bucket | None:
    """The smallest bucket of a pass; None if it fits into none.

    Args:
        tokens: New tokens T.
        start: Tokens in memory before them.
        capacity: Of the memory.
    """
    step = next((step for most, step in _ROW_STEPS if tokens <= most), None)
    if step is None:
        return None
    rows = _up(tokens, step)
    columns = min(_up(start + rows, COLUMN_STEP), capacity)
    return Bucket(rows, columns) if start + rows <= columns else None


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class PaddedCache:
    """A cache as a padded pass sees it: always the same columns, and new tokens at places that are read on the device.

    Args:
        memory: Where keys and values are.
        slots: (Tb,) int64, places of the new tokens.
        columns: Sb.
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
        """Does nothing: the cache that is padded counts its tokens itself."""


class PaddedInputs:
    """The inputs of padded passes and their output, at addresses that never change.

    Args:
        llm: The decoder.
        capacity: Most columns.
    """

    def __init__(self, llm: Llama, capacity: int) -> None:
        weight = llm.model.embed_tokens.weight
        rows, device = min(MAX_TOKENS, capacity), weight.device
        self.capacity = capacity
        self._embeddings = torch.zeros(1, rows, llm.size.width, device=device, dtype=weight.dtype)
        self._positions = torch.zeros(1, rows, dtype=torch.int64, device=device)
        # One block for the masks of all buckets: each is a view that begins at its first byte.
        self._mask = torch.zeros(rows * capacity, dtype=torch.bool, device=device)
        self._extent = torch.zeros(2, dtype=torch.int64, device=device)
        self._hidden = torch.zeros_like(self._embeddings)

    def fill(self, bucket: Bucket, embeddings: Tensor, positions: Tensor, mask: Tensor, start: int) -> None:
        """Take over the inputs of a pass (:meth:`elysium_core.network.llama.Llama.forward`)."""
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
        """The pass itself: reads and writes nothing but these buffers and the memory, in the same way every time."""
        rows, columns = bucket.rows, bucket.columns
        row = torch.arange(rows, device=self._extent.device)
        slots = self._extent[0] + row
        # A row that may attend to nothing would be no number; one of padding attends to itself, which is zero.
        own = (row >= self._extent[1])[:, None] & (torch.arange(columns, device=row.device) == slots[:, None])
        allowed = self._masked(bucket) | own
        bias = torch.zeros_like(allowed, dtype=self._embeddings.dtype).masked_fill_(~allowed, float("-inf"))
        cache = PaddedCache(memory, slots, columns)
        hidden, _ = llm(self._embeddings[:, :rows], self._positions[:, :rows], bias, cache)
        self._hidden[:, :rows] = hidden

    def output(self, tokens: int) -> Tensor:
        """Hidden states (1, T, D) of the pass that ran last, a copy."""
        return self._hidden[:, :tokens].clone()

    def _masked(self, bucket: Bucket) -> Tensor:
        return self._mask[: bucket.rows * bucket.columns].view(1, 1, bucket.rows, bucket.columns)


def clear_tail(cache: KVCache, bucket: Bucket) -> None:
    """Make the columns behind a pass zero, as far as its bucket sees them.

    They are masked, but what is no number would show through a mask: 0 times it is no
    number either. Only a pass that failed leaves such behind.
    """
    tail = slice(cache.length + bucket.rows, bucket.columns)
    cache.memory.keys[..., tail, :] = 0
    cache.memory.values[..., tail, :] = 0


MOST_PROGRAMS = 64
"""Recordings kept; each takes a few MiB of the GPU's memory."""

_logger = logging.getLogger(__name__)


class RecordedDecoder(StaticDecoder):
    """A decoder that replays its passes where it can.

    A shape is recorded when it comes for the second time. What fits into no bucket, or has
    not come before, is run as it is. When recording fails, everything is.

    Args:
        llm: Runs the layers.
        record: Turns a program into one that repeats it (:class:`elysium_core.engine.cuda_graph.CudaRecorder`).
        capacity: Tokens every cache has room for at least.
        most_programs: Recordings kept; the one that was not used for longest goes first.

    Attributes:
        replayed: Passes that were replayed.
        padded_tokens: Rows of padding in them.
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
        """Run new tokens; see :meth:`elysium_core.network.llama.Llama.forward`."""
        start = 0 if cache is None else cache.length
        try:
            if mask is not None and cache is not None and not self._failure:
                hidden = self._replay(embeddings, positions, mask, cache)
                if hidden is not None:
                    return hidden, []
            return super().__call__(embeddings, positions, mask, cache)
        except torch.OutOfMemoryError:
            _logger.warning("the language model ran out of memory; what was kept for speed is freed, and it goes on")
        # Not above: the error holds on to what the failed pass has allocated.
        self.release()
        if cache is not None:
            cache.crop(start)
        return super().__call__(embeddings, positions, mask, cache)

    def _replay(self, embeddings: Tensor, positions: Tensor, mask: Tensor, cache: KVCache) -> Tensor | None:
        """The pass by a recording, or None if there is none for it."""
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
        except RuntimeError as error:  # lack of memory is one, too
            self._failure = str(error).strip().partition("\n")[0] or type(error).__name__
            _logger.warning("the language model runs without CUDA graphs, slower, because: %s", self._failure)
            self.release()
            return None
        self._programs[key] = program
        if len(self._programs) > self._most_programs:
            self._programs.popitem(last=False)
        return program

    def _inputs_for(self, cache: KVCache) -> PaddedInputs:
        """The buffers; larger ones, and weights that have moved, make all recordings worthless."""
        weights = self._llm.lm_head.weight.data_ptr()
        inputs = self._inputs
        if inputs is None or inputs.capacity < cache.capacity or weights != self._weights:
            self._programs.clear()
            inputs = self._inputs = PaddedInputs(self._llm, cache.capacity)
            self._weights = weights
        return inputs


def build_decoder(llm: Llama, *, cuda_graphs: bool = True) -> StaticDecoder:
    """The decoder that suits a language model's device.

    Args:
        llm: On its device.
        cuda_graphs: Replay recorded passes on a GPU; elsewhere it makes no difference.
    """
    device = llm.model.embed_tokens.weight.device
    if device.type == "cuda" and cuda_graphs:
        return RecordedDecoder(llm, CudaRecorder(device))
    return StaticDecoder(llm)
