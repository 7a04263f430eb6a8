"""Grounding models of the Hugging Face hub as frame-by-frame trackers, the paper's kind of baseline.

Two families are supported, recognised by their configuration. From open-vocabulary
detectors (Grounding DINO, OWL-ViT ...) the best box is taken. From vision-language
models the first box in the generated text is taken. Both see one frame at a time, so
a target needs words. Vision-language models also describe the object in a box, from the
frame of that box, and answer questions about a video from its middle frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto import modeling_auto

from elysium_core.checkpoint.locations import cached_folder
from elysium_core.device import device_name, dtype_name, resolve_device
from elysium_core.errors import BackendError, BoxError, ConfigError, ModelFileError, TargetError
from elysium_core.evaluation.peers import HF, PeerModel, PeerTarget, PeerTracker, Sighting
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.prompt.expression import clean_expression, clean_question
from elysium_core.settings import TrackingConfig
from elysium_core.types import Grounding, ModelInfo

_NAME = re.compile(r"(?P<id>[^?]+)(?:\?scale=(?P<scale>[0-9]{1,5}))?")
_DEFAULT_SCALE = 1000
_MAX_NEW_TOKENS = 64
_QUESTION = "Where is {expression}? Answer with its bounding box [x1, y1, x2, y2] and nothing else, each 0 to {scale}."
_DESCRIBE = "What is in the box {box}? Its corners are [x1, y1, x2, y2], each 0 to {scale}. Answer in a few words."
_NUMBER = r"\s*([0-9]{1,5}(?:\.[0-9]{1,6})?)\s*"
# [1,2,3,4] and (1,2,3,4); (1,2),(3,4); {<1><2><3><4>}; <loc_1><loc_2><loc_3><loc_4>.
_BOX_FORMS = tuple(
    re.compile(form)
    for form in (
        r"[\[(]" + r",".join([_NUMBER] * 4) + r"[\])]",
        r"\(" + _NUMBER + "," + _NUMBER + r"\)\s*,?\s*\(" + _NUMBER + "," + _NUMBER + r"\)",
        r"<(?:loc_)?([0-9]{1,5})>" * 4,
    )
)


class Grounder(Protocol):
    """Finds one expression in one image."""

    def find(self, image: NDArray[np.uint8], expression: str) -> Grounding:
        """Return the best box, its score 0..1, and the answer as written."""
        ...


class HfModel(PeerModel):
    """A grounding model of the hub. Nothing is downloaded.

    Args:
        name: A folder, or a hub id that was pulled. ``?scale=N`` after it gives the range 0..N of
            the coordinates that a vision-language model writes; the default is 0..1000.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelFileError: The model is missing or cannot be read.
        BackendError: It belongs to neither family, or there is no such device.
        ConfigError: The name does not have the form above.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        match = _NAME.fullmatch(name)
        if match is None or match["scale"] == "0":
            raise ConfigError(f"{HF}{name} is not hf:ID or hf:ID?scale=N with N > 0")
        place = resolve_device(device)
        self._scale = int(match["scale"] or _DEFAULT_SCALE)
        self._grounder, network = _load(match["id"], place, self._scale)
        writes = isinstance(self._grounder, Writer)
        info = ModelInfo(
            name=HF + name,
            backend="transformers",
            device=device_name(place),
            precision=dtype_name(network.dtype),
            coordinate_levels=self._scale,
            clip_length=1,
            parameters=sum(p.numel() for p in network.parameters()),
            describes="frame" if writes else "none",
        )
        ability = "does not follow boxes: use it with --task rsot or video-reg, a refcoco benchmark or questions"
        if not writes:
            ability = "only grounds words: use it with --task rsot or a refcoco benchmark"
        super().__init__(info, f"it {ability}")

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Find one expression in one image; ``zoom`` is ignored."""
        pixels = image.image if isinstance(image, Frame) else image
        return self._grounder.find(pixels, clean_expression(expression))

    def describe(self, frames: Frame | Sequence[Frame], box: Box, frame_index: int = 0, *, zoom: bool = False) -> str:
        """Describe the object in a box from the frame of that box alone; ``zoom`` is ignored.

        Raises:
            BackendError: The model is a detector.
        """
        corners = "[" + ", ".join(str(round(value * self._scale)) for value in box) + "]"
        clip = [frames] if isinstance(frames, Frame) else list(frames)
        return self._writer().write(clip[frame_index].image, _DESCRIBE.format(box=corners, scale=self._scale))

    def ask(self, frames: Frame | Sequence[Frame], question: str, *, history: Sequence[tuple[str, str]] = ()) -> str:
        """Answer a question about a video from its middle frame; earlier questions are not known to the model.

        Raises:
            BackendError: The model is a detector.
        """
        clip = [frames] if isinstance(frames, Frame) else list(frames)
        return self._writer().write(clip[len(clip) // 2].image, clean_question(question))

    def _writer(self) -> Writer:
        if not isinstance(self._grounder, Writer):
            raise self._refusal()
        return self._grounder

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> HfTracker:
        """Make a tracker that grounds the words anew in every frame."""
        return HfTracker(self._grounder, config or TrackingConfig())


class HfTracker(PeerTracker):
    """Grounds the words of a target in every frame, without memory.

    Args:
        grounder: The model.
        config: Settings.
    """

    def __init__(self, grounder: Grounder, config: TrackingConfig) -> None:
        super().__init__(config)
        self._grounder = grounder

    def check(self, expression: str, box: Box | None) -> None:
        """Refuse a target without words, because a model of single images cannot follow a box."""
        if not expression:
            raise TargetError(
                "a model asked frame by frame needs words for its target; use --task rsot", code="TARGET_EMPTY"
            )

    def start(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Ground the words, as in every frame."""
        return self.follow(target, frame)

    def follow(self, target: PeerTarget, frame: Frame) -> Sighting:
        """Ground the words in this frame."""
        self.stats.vision_encodes += 1
        found = self._grounder.find(frame.image, target.expression)
        if found.box is None:
            self.count_failure("no box in the answer")
            return Sighting(None, reason="no box in the answer")
        return Sighting(found.box, found.score)


class Detector:
    """An open-vocabulary detector.

    Args:
        network: The model.
        processor: Its processor.
        style: ``sentence`` (lower case, full stop) or ``photo`` (as in CLIP's training captions).
    """

    def __init__(self, network: Any, processor: Any, style: str) -> None:
        self._network, self._processor, self._style = network, processor, style

    @torch.inference_mode()
    def find(self, image: NDArray[np.uint8], expression: str) -> Grounding:
        """Return the box with the highest score, however low that is."""
        words = expression.lower().rstrip(".") + "." if self._style == "sentence" else f"a photo of {expression}"
        inputs = self._processor(images=image, text=[[words]] if self._style == "photo" else words, return_tensors="pt")
        outputs = self._network(**_placed(inputs, self._network))
        (best,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=0.0, target_sizes=[image.shape[:2]]
        )
        if len(best["scores"]) == 0:
            return Grounding(None, 0.0)
        index = int(best["scores"].argmax())
        score = float(best["scores"][index])
        x1, y1, x2, y2 = (float(v) for v in best["boxes"][index])
        try:
            return Grounding(Box.from_px(x1, y1, x2, y2, image.shape[1], image.shape[0], clip=True), score)
        except BoxError:
            return Grounding(None, 0.0)


class Writer:
    """A vision-language model that writes the box as text.

    Args:
        network: The model.
        processor: Its processor, with a chat template.
        scale: Coordinates are written as 0..scale.
    """

    def __init__(self, network: Any, processor: Any, scale: int) -> None:
        self._network, self._processor, self._scale = network, processor, scale

    @torch.inference_mode()
    def find(self, image: NDArray[np.uint8], expression: str) -> Grounding:
        """Generate one answer greedily and read its first box; the score of a box is always 1."""
        text = self._generated(image, _QUESTION.format(expression=expression, scale=self._scale), special=True)
        box = parse_written_box(text, self._scale)
        return Grounding(box, 0.0 if box is None else 1.0, text)

    @torch.inference_mode()
    def write(self, image: NDArray[np.uint8], question: str) -> str:
        """Answer a question about one image greedily, without special tokens."""
        return " ".join(self._generated(image, question, special=False).split())

    def _generated(self, image: NDArray[np.uint8], question: str, *, special: bool) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = _placed(self._processor(images=image, text=prompt, return_tensors="pt"), self._network)
        tokens = self._network.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return str(self._processor.decode(answer, skip_special_tokens=not special))


def _placed(inputs: Any, network: Any) -> Any:
    """Move a processor's output to the network's device, and its pixels to the network's precision."""
    inputs = inputs.to(network.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(network.dtype)
    return inputs


def parse_written_box(text: str, scale: int) -> Box | None:
    """Return the first box in a model's answer, in any of the common notations.

    Args:
        text: The answer.
        scale: Coordinates are 0..scale.

    Example:
        >>> parse_written_box("<box>(250,0),(500,1000)</box>", 1000)
        Box(x1=0.25, y1=0.0, x2=0.5, y2=1.0)
    """
    found = [match for form in _BOX_FORMS if (match := form.search(text))]
    if not found:
        return None
    first = min(found, key=lambda match: match.start())
    try:
        return Box(*(float(number) / scale for number in first.groups()))
    except BoxError:
        return None


def _load(name: str, device: torch.device, scale: int) -> tuple[Grounder, Any]:
    """Load config, weights and processor from disk only, without remote code and without pickle files."""
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if not Path(name).is_dir() and name.startswith(("/", ".")):
        raise ModelFileError(f"there is no model folder {name!r}")
    if not Path(name).is_dir() and cached_folder(name) is None:
        raise ModelFileError(f"there is no model {name!r} in the local cache; give a folder, or: elysium pull {name}")
    try:
        kind = AutoConfig.from_pretrained(name, **safe).model_type
        auto_class = _auto_class(name, kind)
        network: Any = auto_class.from_pretrained(name, use_safetensors=True, dtype="auto", **safe).to(device).eval()
        processor: Any = AutoProcessor.from_pretrained(name, **safe)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelFileError(
            f"model {name!r} cannot be loaded ({' '.join(str(error).split())[:200]}); "
            f"give a folder, or fetch it again: elysium pull {name}"
        ) from error
    if kind in modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
        return Detector(network, processor, "photo" if kind.startswith("owl") else "sentence"), network
    return Writer(network, processor, scale), network


def _auto_class(name: str, kind: str) -> Any:
    if kind in modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
        return modeling_auto.AutoModelForZeroShotObjectDetection
    if kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return modeling_auto.AutoModelForImageTextToText
    raise BackendError(
        f"model {name!r} has the type {kind!r}, which cannot ground words; use a detector or a vision-language model"
    )
