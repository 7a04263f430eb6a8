"""SAM 2 of transformers as a tracker: the box that its mask fills in each frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.checkpoint.locations import cached_folder
from elysium_core.curation.curation_rules import Trajectory
from elysium_core.device import resolve_device
from elysium_core.errors import BackendError, BoxError, ModelFileError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.image import resized

_MODEL_TYPE = "sam2_video"
# Mean and standard deviation of the pixels, 0..1, that all published models were trained with.
_MEAN, _DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
# How the model is told that two points are the corners of a box.
_CORNERS = (2, 3)
_LONGEST_REASON = 200


class Sam2Follower:
    """SAM 2 for video; its score is the chance that the object is visible.

    Only what the model looks back on is held in memory, however long the video is.

    Args:
        name: A folder, or the id of a model that was pulled, such as ``facebook/sam2.1-hiera-small``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelFileError: The model is not there or cannot be loaded.
        BackendError: It is another kind of model, or there is no such device.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        self.name = f"sam2:{name}"
        self._device = resolve_device(device)
        self._network = _load(name).to(self._device).eval()
        size = self._network.config.image_size
        self._side = int(size if isinstance(size, int) else size[0])

    @torch.inference_mode()
    def follow(self, frames: Iterable[Frame], boxes: Sequence[Box]) -> list[Trajectory]:
        """Return the trajectory of each box, in their order."""
        rows: list[list[tuple[Box | None, float]]] = [[] for _ in boxes]
        session: Any = None
        for number, frame in enumerate(frames):
            if session is None:
                session = self._session(frame, boxes)
            output = self._network(inference_session=session, frame=self._pixels(frame), frame_idx=number)
            masks = output.pred_masks.float().cpu().numpy().reshape(len(boxes), *output.pred_masks.shape[-2:])
            chances = torch.sigmoid(output.object_score_logits.float()).cpu().numpy().reshape(-1)
            for row, given, mask, chance in zip(rows, boxes, masks, chances, strict=True):
                box = given if number == 0 else mask_box(mask)
                row.append((box, float(chance) if box is not None else 0.0))
            self._forget(session, number)
        return [Trajectory(tuple(box for box, _ in row), tuple(score for _, score in row)) for row in rows]

    def _session(self, frame: Frame, boxes: Sequence[Box]) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        names = ("inference_device", "inference_state_device", "video_storage_device")
        places: dict[str, Any] = dict.fromkeys(names, self._device)
        session: Any = Sam2VideoInferenceSession(
            video_height=frame.height, video_width=frame.width, dtype=self._network.dtype, **places
        )
        ids = list(range(1, len(boxes) + 1))
        for track_id, box in zip(ids, boxes, strict=True):
            corners = torch.tensor([box.x1, box.y1, box.x2, box.y2]).reshape(1, 1, 2, 2) * self._side
            labels = torch.tensor(_CORNERS, dtype=torch.int32).reshape(1, 1, 2)
            prompt = {"point_coords": corners.to(self._device), "point_labels": labels.to(self._device)}
            session.add_point_inputs(session.obj_id_to_idx(track_id), 0, prompt)
        session.obj_with_new_inputs = ids
        return session

    def _pixels(self, frame: Frame) -> torch.Tensor:
        """The frame as the model takes it, (3, side, side)."""
        picture = resized(frame.image, self._side, self._side).astype(np.float32) / 255
        picture = (picture - _MEAN) / _DEVIATION
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).to(self._device)

    def _forget(self, session: Any, number: int) -> None:
        """Drop frames, and results of frames on which the model does not look back any more."""
        session.processed_frames.pop(number - 1, None)
        settings = self._network.config
        last = number - max(settings.num_maskmem, settings.max_object_pointers_in_encoder)
        for outputs in session.output_dict_per_obj.values():
            outputs["non_cond_frame_outputs"].pop(last, None)


def mask_box(mask: NDArray[np.floating[Any]]) -> Box | None:
    """Return the box that a mask fills, or None for an empty mask.

    Args:
        mask: (H, W) logits over the whole frame; above 0 is the object.
    """
    rows, columns = np.nonzero(mask > 0)
    if not len(rows):
        return None
    height, width = mask.shape
    try:
        return Box.from_px(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, width, height)
    except BoxError:
        return None


def _load(name: str) -> Any:
    """The network, from disk; no code or pickle of the model's author is run."""
    from transformers import AutoConfig, Sam2VideoModel

    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if not Path(name).is_dir() and (name.startswith(("/", ".")) or cached_folder(name) is None):
        raise ModelFileError(f"there is no model {name!r} on this machine; give a folder, or: elysium pull {name}")
    try:
        kind = AutoConfig.from_pretrained(name, **safe).model_type
        if kind != _MODEL_TYPE:
            raise BackendError(f"model {name!r} is of type {kind!r}, not SAM 2 for video ({_MODEL_TYPE!r})")
        return Sam2VideoModel.from_pretrained(name, use_safetensors=True, **safe)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelFileError(f"model {name!r} cannot be loaded ({reason}); fetch it again") from error
