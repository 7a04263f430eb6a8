"""Times of the stages of a frame, measured by events of the device on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.device import synchronize
from elysium_core.engine.decoder import StreamDecoder
from elysium_core.geometry import Box
from elysium_core.network.kv_cache import KVCache
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.vision.torch_vision import VisionBackend


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of the language model.

    Attributes:
        tokens: Input tokens.
        columns: Tokens attended to, including the input.
    """

    tokens: int
    columns: int


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """The times of one frame.

    Attributes:
        wall_ms: Wall time of ``step`` [ms].
        vision_ms: Resizing, upload and vision encoder [ms].
        pass_ms: Each pass of the language model with its head [ms].
        passes: The same passes.
    """

    wall_ms: float
    vision_ms: float
    pass_ms: tuple[float, ...]
    passes: tuple[Pass, ...]


class StageClock:
    """Measures the times of frames.

    Args:
        device: The device whose work is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Callable[[], float]]] = []
        self._passes: list[Pass] = []

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Time the work of the block, on a GPU the work that is queued on the current stream."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            took = 1000 * (time.perf_counter() - started)
            self._spans.append((name, lambda: took))
            return
        first, second = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record(torch.cuda.current_stream(self._device))
        yield
        second.record(torch.cuda.current_stream(self._device))
        self._spans.append((name, lambda: float(first.elapsed_time(second))))

    def note_pass(self, tokens: int, columns: int) -> None:
        """Describe the pass that is timed next."""
        self._passes.append(Pass(tokens, columns))

    def frame(self, step: Callable[[], object]) -> FrameTimes:
        """Run one frame and return its times."""
        self._spans, self._passes = [], []
        started = time.perf_counter()
        step()
        synchronize(self._device)
        wall_ms = 1000 * (time.perf_counter() - started)
        pass_ms: list[float] = []
        vision_ms = 0.0
        for name, read in self._spans:
            if name == "vision":
                vision_ms += read()
            elif name == "pass":
                pass_ms.append(read())
            elif pass_ms:
                pass_ms[-1] += read()
        return FrameTimes(wall_ms, vision_ms, tuple(pass_ms), tuple(self._passes))


class TimedVision:
    """A timed vision backend.

    Args:
        vision: The backend to time.
        clock: The clock that collects the times.
    """

    def __init__(self, vision: VisionBackend, clock: StageClock) -> None:
        self.name = vision.name
        self._vision, self._clock = vision, clock

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See :class:`elysium_core.vision.torch_vision.VisionBackend`."""
        with self._clock.span("vision"):
            return self._vision.encode(images)

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`elysium_core.vision.torch_crops.CropBackend`."""
        with self._clock.span("vision"):
            return self._vision.encode_anchors(images, boxes)

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`elysium_core.vision.torch_crops.CropBackend`."""
        with self._clock.span("vision"):
            return self._vision.encode_crops(images, anchors)


class TimedDecoder:
    """A timed decoder.

    Args:
        decoder: The decoder to time.
        clock: The clock that collects the times.
    """

    def __init__(self, decoder: StreamDecoder, clock: StageClock) -> None:
        self._decoder, self._clock = decoder, clock

    @property
    def description(self) -> str:
        """See :class:`elysium_core.engine.decoder.StreamDecoder`."""
        return self._decoder.description

    def release(self) -> None:
        """See :class:`elysium_core.engine.decoder.StreamDecoder`."""
        self._decoder.release()

    def embed(self, token_ids: Tensor) -> Tensor:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        return self._decoder.embed(token_ids)

    def new_cache(self, capacity: int) -> KVCache:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        return self._decoder.new_cache(capacity)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        with self._clock.span("head"):
            return self._decoder.logits(hidden)

    def __call__(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """See :class:`elysium_core.engine.decoder.Decoder`."""
        tokens = embeddings.shape[1]
        self._clock.note_pass(tokens, tokens + (0 if cache is None else cache.length))
        with self._clock.span("pass"):
            return self._decoder(embeddings, positions, mask, cache)
