"""The backend for crops that runs exported graphs on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elysium_core.geometry import Box
from elysium_core.network.image_transform import ImageTransform
from elysium_core.network.target_selector import AnchorTokens
from elysium_core.vision.crop_export import ANCHOR, BOXES_NAME, COMPARED_NAMES, CROP, CropGraphDescription
from elysium_core.vision.onnx_export import INPUT_NAME, OUTPUT_NAME
from elysium_core.vision.onnx_vision import check_ends, run_session, start_session
from elysium_core.vision.torch_crops import CropBackend, box_rows


class OnnxCrops:
    """A :class:`~elysium_core.vision.torch_crops.CropBackend` on ONNX Runtime.

    Args:
        graphs: Files of :func:`elysium_core.vision.crop_export.export_crop_graph`, by ``anchor`` and ``crop``.
        wanted: Their descriptions.
        otherwise: Does the work of a graph that is missing.
        device: Device of the language model, to which the tokens are copied.
        dtype: Data type of the language model.
        threads: CPU threads; 0 = as many as torch uses.

    Raises:
        BackendError: ONNX Runtime is not installed, or a graph cannot be used.
    """

    def __init__(
        self,
        graphs: Mapping[str, Path],
        wanted: Mapping[str, CropGraphDescription],
        otherwise: CropBackend,
        device: torch.device,
        dtype: torch.dtype,
        threads: int = 0,
    ) -> None:
        self._otherwise, self._device, self._dtype = otherwise, device, dtype
        self._sessions: dict[str, Any] = {}
        inputs = {ANCHOR: (BOXES_NAME,), CROP: COMPARED_NAMES}
        for name, path in graphs.items():
            session = start_session(path, device, threads or torch.get_num_threads())
            check_ends(session, path, wanted[name].side_px, inputs[name])
            self._sessions[name] = session
        self._transforms = {name: ImageTransform(each.side_px) for name, each in wanted.items()}

    def encode_anchors(self, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box]) -> AnchorTokens:
        """See :class:`~elysium_core.vision.torch_crops.CropBackend`."""
        if ANCHOR not in self._sessions:
            return self._otherwise.encode_anchors(images, boxes)
        given = {INPUT_NAME: self._resized(ANCHOR, images), BOXES_NAME: box_rows(boxes).numpy()}
        found = run_session(self._sessions[ANCHOR], (OUTPUT_NAME, *COMPARED_NAMES), given)
        return AnchorTokens(*(torch.from_numpy(part) for part in found)).to(self._device, self._dtype)

    def encode_crops(self, images: Sequence[NDArray[np.uint8]], anchors: AnchorTokens) -> Tensor:
        """See :class:`~elysium_core.vision.torch_crops.CropBackend`."""
        if CROP not in self._sessions:
            return self._otherwise.encode_crops(images, anchors)
        given = {INPUT_NAME: self._resized(CROP, images)}
        for name in COMPARED_NAMES:
            given[name] = getattr(anchors, name).to("cpu", torch.float32).numpy()
        (tokens,) = run_session(self._sessions[CROP], (OUTPUT_NAME,), given)
        return torch.from_numpy(tokens).to(self._device, self._dtype)

    def _resized(self, name: str, images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        return np.stack([self._transforms[name].resize(image) for image in images])
