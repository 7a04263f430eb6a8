"""A language model whose passes are recorded once for each of a few shapes, and then replayed.

One pass of a 7B decoder is some five hundred small programs. Told one by one from Python,
they take longer to be told than to be run. A recording is told at once, but it has one
shape and fixed addresses: passes are padded (:mod:`elysium_core.inference.padded_pass`),
and the memory of the caches stays where it is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from elysium_core.inference.cuda_graph import Program
from elysium_core.inference.padded_pass import COLUMN_STEP, Bucket, PaddedInputs, clear_tail, find_bucket
from elysium_core.inference.static_decoder import StaticDecoder
from elysium_core.model.kv_cache import KVCache, KVMemory
from elysium_core.model.llama import Llama

CAPACITY = 2048
"""Tokens every cache has room for: eight frames of 108 visual tokens and several targets."""
MOST_PROGRAMS = 64
"""Recordings kept; each takes a few MiB of the GPU's memory."""

_logger = logging.getLogger(__name__)


class RecordedDecoder(StaticDecoder):
    """A decoder that replays its passes where it can.

    A shape is recorded when it comes for the second time. What fits into no bucket, or has
    not come before, is run as it is. When recording fails, everything is.

    Args:
        llm: Runs the layers.
        record: Turns a program into one that repeats it (:class:`elysium_core.inference.cuda_graph.CudaRecorder`).
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
        """Run new tokens; see :meth:`elysium_core.model.llama.Llama.forward`."""
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
