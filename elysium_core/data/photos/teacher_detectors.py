"""Detectors that label photos: a YOLOX graph on ONNX Runtime, or an open-vocabulary detector of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.checkpoint.locations import cached_folder
from elysium_core.data.photos.photo_records import PhotoObject
from elysium_core.errors import BackendError, BoxError, ConfigError, ModelFileError
from elysium_core.geometry import Box
from elysium_core.vision.onnx_vision import import_onnxruntime

COCO_NAMES: tuple[str, ...] = tuple(
    """person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;parking meter;
    bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;handbag;tie;suitcase;frisbee;skis;
    snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;surfboard;tennis racket;bottle;wine glass;cup;
    fork;knife;spoon;bowl;banana;apple;sandwich;orange;broccoli;carrot;hot dog;pizza;donut;cake;chair;couch;
    potted plant;bed;dining table;toilet;tv;laptop;mouse;remote;keyboard;cell phone;microwave;oven;toaster;sink;
    refrigerator;book;clock;vase;scissors;teddy bear;hair drier;toothbrush""".replace("\n    ", "").split(";")
)
"""COCO's 80 names, in the order of its detectors' outputs."""

_STRIDES_PX = (8, 16, 32)
_PADDING = 114
_SAME_OBJECT_IOU = 0.6
_MOST_OBJECTS = 100
_LONGEST_REASON = 200


class TeacherDetector(Protocol):
    """Finds named things in a photo."""

    @property
    def name(self) -> str:
        """Name of the detector, for the file it writes."""
        ...

    def detect(self, image: NDArray[np.uint8]) -> list[PhotoObject]:
        """Return the things in an RGB uint8 image (H, W, 3), the surest first."""
        ...


class YoloxDetector:
    """A YOLOX graph, or another with its input and output.

    Its input is (1, 3, S, S) float32, BGR 0..255, the picture in the upper left corner on gray. Its output is
    (1, cells, 5 + classes): middle and logarithm of the size in cells, objectness, and a probability for each class.

    Args:
        path: The ONNX file.
        names: Names of its classes in the order of its output; by default COCO's.
        least_score: Boxes with a lower score are left out, 0..1.
        threads: CPU threads.

    Raises:
        BackendError: ONNX Runtime is not installed, or the file is no such graph.
        ConfigError: The number of names is not that of the graph's classes.
    """

    def __init__(
        self, path: Path, names: Sequence[str] = COCO_NAMES, least_score: float = 0.3, threads: int = 1
    ) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if not path.is_file():
            raise BackendError(f"there is no ONNX file {str(path)!r}")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"ONNX Runtime cannot use {str(path)!r}: {_one_line(error)}") from error
        self.name = path.name
        self._names, self._least_score = tuple(names), least_score
        self._input, self._side = self._check_ends(path)
        self._cells, self._strides = _grid(self._side)

    def detect(self, image: NDArray[np.uint8]) -> list[PhotoObject]:
        """Return the things in an RGB uint8 image (H, W, 3), the surest first."""
        height, width = image.shape[:2]
        scale = min(self._side / height, self._side / width)
        (output,) = self._session.run(None, {self._input: self._framed(image, scale)})
        found = output[0]
        middle = (found[:, :2] + self._cells) * self._strides
        size = np.exp(np.minimum(found[:, 2:4], 10)) * self._strides
        scores = found[:, 4:5] * found[:, 5:]
        rows, classes = np.nonzero(scores >= self._least_score)
        boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1)[rows] / scale
        return _kept(boxes, scores[rows, classes], [self._names[n] for n in classes], width, height)

    def _framed(self, image: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
        width, height = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
        framed = np.full((self._side, self._side, 3), _PADDING, np.float32)
        framed[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(framed[..., ::-1].transpose(2, 0, 1)[None])

    def _check_ends(self, path: Path) -> tuple[str, int]:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape, result = inputs[0].shape, outputs[0].shape
        is_picture = len(shape) == 4 and shape[1] == 3 and isinstance(shape[2], int) and shape[2] == shape[3]
        if len(inputs) != 1 or len(outputs) != 1 or not is_picture or shape[2] % _STRIDES_PX[-1]:
            raise BackendError(f"{str(path)!r} has the input {shape}; a YOLOX graph has one, (1, 3, side, side)")
        side = int(shape[2])
        cells = sum((side // stride) ** 2 for stride in _STRIDES_PX)
        if len(result) != 3 or result[1] != cells or not isinstance(result[2], int):
            raise BackendError(
                f"{str(path)!r} has the output {result}; YOLOX at {side} px has (1, {cells}, 5 + classes)"
            )
        if result[2] - 5 != len(self._names):
            raise ConfigError(f"{str(path)!r} knows {result[2] - 5} classes, not {len(self._names)}; give their names")
        return str(inputs[0].name), side


class OpenVocabulary:
    """An open-vocabulary detector of transformers, from disk, that is asked for other names in every picture.

    Detectors that take a list of texts (OWL-ViT, OWLv2) look once at a photo, others (Grounding DINO) once for each
    name.

    Args:
        name: A folder, or the id of a model that was pulled.
        least_score: Boxes with a lower score are left out, 0..1.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelFileError: The model is not there or cannot be loaded.
        BackendError: It is no such detector.
    """

    def __init__(self, name: str, least_score: float = 0.3, device: str = "cpu") -> None:
        self._least_score = least_score
        self._network, self._processor, self._takes_lists = _load_zero_shot(name, device)

    @torch.inference_mode()
    def find(self, image: NDArray[np.uint8], names: Sequence[str]) -> list[PhotoObject]:
        """Return the named things in an RGB uint8 image (H, W, 3), the surest first; at least one name is needed."""
        height, width = image.shape[:2]
        if self._takes_lists:
            boxes, scores, labels = self._ask(image, [[f"a photo of a {name}" for name in names]])
            return _kept(boxes, scores, [names[int(n)] for n in labels], width, height)
        parts = [self._ask(image, f"{name.lower().rstrip('.')}.") for name in names]
        found = [name for name, part in zip(names, parts, strict=True) for _ in part[1]]
        boxes, scores = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
        return _kept(boxes, scores, found, width, height)

    def _ask(self, image: NDArray[np.uint8], text: Any) -> tuple[NDArray[Any], NDArray[Any], Sequence[Any]]:
        """Boxes (N, 4) [px], scores (N,) and labels of one question."""
        inputs = self._processor(images=image, text=text, return_tensors="pt").to(self._network.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._network.dtype)
        outputs = self._network(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=self._least_score, target_sizes=[image.shape[:2]]
        )
        labels = found["labels"].tolist() if self._takes_lists else ()
        boxes = found["boxes"].float().cpu().numpy().reshape(-1, 4)
        return boxes, found["scores"].float().cpu().numpy().reshape(-1), labels


class ZeroShotDetector:
    """An open-vocabulary detector that looks for the same names in every photo.

    Args:
        name: See :class:`OpenVocabulary`.
        names: What to look for.
        least_score: Boxes with a lower score are left out, 0..1.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelFileError: The model is not there or cannot be loaded.
        BackendError: It is no such detector.
        ConfigError: There is no name to look for.
    """

    def __init__(self, name: str, names: Sequence[str], least_score: float = 0.3, device: str = "cpu") -> None:
        if not names:
            raise ConfigError("an open-vocabulary detector needs names to look for; give at least one")
        self.name = name
        self._names = tuple(names)
        self._network = OpenVocabulary(name, least_score, device)

    def detect(self, image: NDArray[np.uint8]) -> list[PhotoObject]:
        """Return the things in an RGB uint8 image (H, W, 3), the surest first."""
        return self._network.find(image, self._names)


def _load_zero_shot(name: str, device: str) -> tuple[Any, Any, bool]:
    """Network, processor, and whether it takes a list of texts; no code or pickle of the model's author is run."""
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.models.auto import modeling_auto

    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if not Path(name).is_dir() and (name.startswith(("/", ".")) or cached_folder(name) is None):
        raise ModelFileError(f"there is no model {name!r} on this machine; give a folder, or: elysium pull {name}")
    try:
        kind = AutoConfig.from_pretrained(name, **safe).model_type
        if kind not in modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
            raise BackendError(f"model {name!r} is of type {kind!r}, which is no open-vocabulary detector")
        network: Any = AutoModelForZeroShotObjectDetection.from_pretrained(name, use_safetensors=True, **safe)
        processor: Any = AutoProcessor.from_pretrained(name, **safe)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelFileError(f"model {name!r} cannot be loaded ({_one_line(error)}); fetch it again") from error
    return network.to(device).eval(), processor, kind.startswith("owl")


def _grid(side_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of each cell, (cells, 2), and its side [px], (cells, 1)."""
    cells, strides = [], []
    for stride in _STRIDES_PX:
        count = side_px // stride
        rows, columns = np.mgrid[:count, :count]
        cells.append(np.stack([columns.ravel(), rows.ravel()], -1))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _kept(
    boxes: NDArray[Any], scores: NDArray[Any], names: Sequence[str], width: int, height: int
) -> list[PhotoObject]:
    """Of boxes (N, 4) [px] that overlap much, the surest of each name; cut to the picture."""
    if not len(boxes):
        return []
    kinds = np.array([sorted(set(names)).index(name) for name in names])
    corners_and_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    chosen = cv2.dnn.NMSBoxesBatched(
        corners_and_sizes.astype(float).tolist(), scores.astype(float).tolist(), kinds.tolist(), 0.0, _SAME_OBJECT_IOU
    )
    surest = sorted((int(n) for n in chosen), key=lambda n: -scores[n])[:_MOST_OBJECTS]
    found = []
    for n in surest:
        x1, y1, x2, y2 = (float(value) for value in boxes[n])
        try:
            box = Box.from_px(x1, y1, x2, y2, width, height, clip=True)
        except BoxError:
            continue  # outside the picture
        found.append(PhotoObject(names[n], box, score=min(1.0, float(scores[n]))))
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
