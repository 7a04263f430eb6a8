"""The vision half for one image, recorded once and replayed: what a camera needs."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from elysium_core.inference.cuda_graph import Program
from elysium_core.model.elysium import ElysiumNetwork
from elysium_core.model.image_transform import ImageTransform

_logger = logging.getLogger(__name__)


class RecordedEncoder:
    """Runs the vision half; one image at a time by a recording, from the second one on.

    Args:
        network: In eval mode, on its device.
        record: Turns a program into one that repeats it (:class:`elysium_core.inference.cuda_graph.CudaRecorder`);
            None = nothing is recorded. Not the language model's: both may run at the same time.
    """

    def __init__(self, network: ElysiumNetwork, record: Callable[[Program], Program] | None = None) -> None:
        self._network = network
        self._transform = ImageTransform(network.visual_encoder.side_px)
        self._record = record
        self._program: Program | None = None
        self._weights: tuple[int, torch.dtype] | None = None
        self._images = self._tokens = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Visual tokens (B, K, D) of images (B, S, S, 3) uint8 on the network's device."""
        if self._record is None or len(images) != 1:
            return self._encode(images)
        if self._weights != self._where():
            # The first image tells the output's size; nothing is recorded for one image alone.
            self._program, self._weights = None, self._where()
            self._images, self._tokens = images.clone(), self._encode(images)
            return self._tokens.clone()
        self._images.copy_(images)
        program = self._program or self._recorded(self._record)
        if program is None:
            return self._encode(images)
        program()
        return self._tokens.clone()

    def _encode(self, images: Tensor) -> Tensor:
        return self._network.encode_frames(self._transform.normalize(images))

    def _run(self) -> None:
        self._tokens.copy_(self._encode(self._images))

    def _recorded(self, record: Callable[[Program], Program]) -> Program | None:
        try:
            self._program = record(self._run)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            _logger.warning("the vision encoder runs without CUDA graphs, slower, because: %s", reason)
            self._record = None
        return self._program

    def _where(self) -> tuple[int, torch.dtype]:
        """Where the weights are, and as what: a recording knows only these."""
        weight = next(self._network.llm_proj.parameters())
        return weight.data_ptr(), weight.dtype
