"""The model as a user sees it: ground, describe, ask, caption, track. One call each."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.checkpoint.checkpoint import Checkpoint
from elysium_core.checkpoint.quantization import (
    check_quantization,
    check_unquantized,
    count_parameters,
    load_quantized,
    precision_of,
)
from elysium_core.checkpoint.weight_files import fingerprint
from elysium_core.device import check_gpu, device_name, resolve_device, resolve_dtype
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.errors import BackendError, BoxError, ImageError
from elysium_core.frames import Clip, Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.prompt.box_text import LEVELS, format_box
from elysium_core.prompt.expression import clean_answer, clean_question
from elysium_core.prompt.questions import CAPTION, PUBLISHED, REG, VIDEO_REG, fill
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.find import ground_answers
from elysium_core.tracking.stream import StreamTracker
from elysium_core.tracking.zoom import CloserLooks, closer_pictures
from elysium_core.types import Grounding, ModelInfo, Tracker, TrackingConfig, usable_clip_length
from elysium_core.vision.vision_choice import build_vision, check_backend

_LOG = logging.getLogger(__name__)

Images = Frame | NDArray[np.uint8] | Sequence[Frame] | Sequence[NDArray[np.uint8]] | Clip


class Elysium:
    """A loaded model. Stateless between calls; used by one thread at a time.

    Args:
        runtime: Network, tokenizer and vision backend.
        info: What this model is.
        checkpoint: The files it came from.
    """

    def __init__(self, runtime: Runtime, info: ModelInfo, checkpoint: Checkpoint) -> None:
        self._runtime: Runtime | None = runtime
        self._checkpoint: Checkpoint | None = checkpoint
        self.info = info
        self._warned: set[str] = set()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "nano",
        *,
        device: str = "auto",
        dtype: str = "auto",
        vision_backend: str = "auto",
        allow_pickle_weights: bool = False,
        quantization: str = "none",
        cuda_graphs: bool = True,
        fast_resize: bool = False,
    ) -> Elysium:
        """Load a checkpoint; never touches a network.

        Args:
            model: ``"nano"``, a folder, or a hub id that has been pulled (``elysium pull``).
            device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda:0``, ...
            dtype: ``auto`` (bfloat16 on CUDA, or float16 where that is faster; float32 on CPU),
                ``float32``, ``float16``, ``bfloat16``.
            vision_backend: ``auto``, ``torch``, ``onnx`` or ``tensorrt``
                (:func:`elysium_core.vision.vision_choice.build_vision`).
            allow_pickle_weights: Accept ``pytorch_model*.bin`` files where there are no
                safetensors; they are converted by an isolated process that loads weights only.
            quantization: Of the language model: ``none``, ``int8``, ``nf4`` or ``fp8``
                (:mod:`elysium_core.checkpoint.quantization`); answers are no longer quite the same.
            cuda_graphs: Replay recorded passes on a GPU.
            fast_resize: Resize images on the device instead of by PIL; they may differ by one
                step of 255 from those the model was trained on.

        Raises:
            ModelFileError: The checkpoint is missing, damaged or unsafe.
            BackendError: Device, dtype, quantisation or backend cannot be used here.
        """
        place = resolve_device(device)
        check_gpu(place)
        kind = resolve_dtype(dtype, place)
        check_backend(vision_backend, place)
        check_quantization(quantization, place, kind)
        checkpoint = load_quantized(model, quantization, place, kind, allow_pickle_weights=allow_pickle_weights)
        return cls.from_checkpoint(
            checkpoint, vision_backend=vision_backend, cuda_graphs=cuda_graphs, fast_resize=fast_resize
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        vision_backend: str = "torch",
        cuda_graphs: bool = True,
        fast_resize: bool = False,
    ) -> Elysium:
        """Make a model of a checkpoint that is already in memory; for the settings see :meth:`from_pretrained`.

        Its weights may go on changing, in training for example: only torch follows them.
        """
        network = checkpoint.network.eval()
        tokenizer = TextTokenizer.from_folder(checkpoint.llm_folder)
        tokenizer.check_fits(network.llm.size.vocab)
        vision = build_vision(
            vision_backend, network, checkpoint.folder, fast_resize=fast_resize, cuda_graphs=cuda_graphs
        )
        decoder = build_decoder(network.llm, cuda_graphs=cuda_graphs)
        runtime = Runtime(network, tokenizer, vision, decoder)
        info = ModelInfo(
            name=checkpoint.name,
            backend=vision.name,
            device=device_name(runtime.device),
            precision=precision_of(network.llm),
            coordinate_levels=LEVELS,
            clip_length=network.config.clip_length,
            parameters=count_parameters(network),
            weights=fingerprint({tensor.file for tensor in checkpoint.stored.values()}),
        )
        return cls(runtime, info, checkpoint)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int | None = None
    ) -> None:
        """Write the model in the published layout, to be loaded from there without anything else.

        What has not changed since it was loaded is written as it was, byte for byte, whatever
        data type it runs in. A folder is written whole or not at all.

        Args:
            folder: Where to; what else lies there stays.
            dtype: ``float32``, ``float16`` or ``bfloat16``; by default the weights are stored
                as they were.
            max_shard_bytes: Largest weight file; by default they are divided as they were.

        Raises:
            ModelFileError: The folder cannot be written.
            BackendError: The data type is unknown, or the model has been closed.
        """
        if self._checkpoint is None:
            raise self._closed()
        kind = None if dtype is None else resolve_dtype(dtype, self.runtime.device)
        check_unquantized(self.runtime.network.llm)
        self._checkpoint.save(folder, dtype=kind, max_shard_bytes=max_shard_bytes)

    @property
    def runtime(self) -> Runtime:
        """The parts of the model, for trackers and measurements.

        Raises:
            BackendError: The model has been closed.
        """
        if self._runtime is None:
            raise self._closed()
        return self._runtime

    def _closed(self) -> BackendError:
        return BackendError(f"the model {self.info.name!r} has been closed; load it again")

    def clean_words(self, expression: str) -> str:
        """Clean a user's expression and refuse one in which this model knows no word.

        Raises:
            ExpressionError: It is empty, too long, or spells the protocol; ``EXPR_UNKNOWN``: none of
                the names of a model with a closed vocabulary occurs.
        """
        return self.runtime.clean_words(expression)

    def ground(self, image: Frame | NDArray[np.uint8], expression: str, *, zoom: bool = False) -> Grounding:
        """Find one expression in one image (REC).

        Args:
            image: RGB uint8 (H, W, 3) or a frame.
            expression: What to find, such as ``the red apple``.
            zoom: Look closer at what was found, and through parts of the image at full resolution
                for what was not; for small things. Costs up to 16 more pictures and passes.

        Returns:
            Box, score 0..1 and the answer's text; the box is None when the answer held none.
            With ``zoom``, the text may be about a part of the image; the box never is.
        """
        runtime = self.runtime
        words = {"": runtime.clean_words(expression)}
        picture = _frames(image)[0].image
        answers = ground_answers(runtime, runtime.encode_frames([picture])[0], words)
        if zoom:
            answers = CloserLooks(runtime).finish(picture, answers, words)
        answer = answers[""]
        return Grounding(answer.parsed.boxes[0], answer.scores[0], answer.text)

    def describe(
        self, frames: Images, box: Box, frame_index: int = 0, max_new_tokens: int = 64, *, zoom: bool = False
    ) -> str:
        """Describe the object in a box (REG for one image, Video-REG for a clip).

        The model is shown all the frames. It was trained with the box in Frame 1 of a clip, so the
        frame of the box is shown first; those after it follow, and then those before it, backwards.

        Args:
            frames: One image or 1..32 frames in order of time.
            box: The object's box in ``frames[frame_index]``.
            frame_index: Position in ``frames``; negative counts from the end.
            max_new_tokens: Longest answer.
            zoom: Show a part of the frames around the box, at their full resolution, in place of the
                whole; for small things. The same part of every frame: what moves far leaves it.

        Raises:
            BoxError: There is no such frame.
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        clip = _shown_frames(frames)
        if not -len(clip) <= frame_index < len(clip):
            raise BoxError(f"frame_index {frame_index} is outside a clip of {len(clip)} frames")
        first = frame_index % len(clip)
        images = [frame.image for frame in [*clip[first:], *clip[:first][::-1]]]
        if zoom:
            images, box = closer_pictures(images, box)
        question = fill(PUBLISHED[REG if len(images) == 1 else VIDEO_REG], box=format_box(box))
        return self._write(images, question, max_new_tokens)

    def ask(
        self, frames: Images, question: str, max_new_tokens: int = 128, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        """Answer a question about an image or a clip. The model is shown all the frames.

        Args:
            frames: One image or 1..32 frames in order of time; of a longer video, take some by
                :func:`elysium_core.io.sampling.sample_evenly`.
            question: In words.
            max_new_tokens: Longest answer.
            history: Questions and answers before this one about the same frames, oldest first.

        Raises:
            ExpressionError: A question is empty, too long or spells the protocol, or an answer
                is too long.
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        words = clean_question(question)
        self._warn_untrained("questions")
        rounds = [(clean_question(asked), clean_answer(answer)) for asked, answer in history]
        return self._write([frame.image for frame in _shown_frames(frames)], words, max_new_tokens, rounds)

    def caption(self, frames: Images, max_new_tokens: int = 128) -> str:
        """Describe a whole image or clip of 1..32 frames. The model is shown all of them.

        Raises:
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        self._warn_untrained("captions")
        return self._write([frame.image for frame in _shown_frames(frames)], PUBLISHED[CAPTION], max_new_tokens)

    def _warn_untrained(self, task: str) -> None:
        """Say once for each task that a model which only knows names has not learnt it."""
        if self.runtime.config.vocabulary and task not in self._warned:
            self._warned.add(task)
            _LOG.warning(
                "this model was trained to find, follow and name things, not for %s: its answer means nothing "
                "(load a larger model)",
                task,
            )

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker for one stream.

        Args:
            mode: ``stream`` answers every frame as it comes; ``clip`` is the paper's
                offline protocol.
            config: Settings; ``mode`` in it is overruled by the argument. By default the usual
                ones with the model's own clip length.

        Raises:
            ConfigError: The mode is unknown.
        """
        settings = replace(config or TrackingConfig(clip_length=usable_clip_length(self.info.clip_length)), mode=mode)
        kind = StreamTracker if mode == "stream" else ClipTracker
        return kind(self.runtime, settings)

    def warm_up(self) -> None:
        """Run every stage once, so that the first real frame is not slow."""
        side = self.runtime.network.visual_encoder.side_px
        tracker = self.tracker()
        tracker.add(box=Box(0.25, 0.25, 0.75, 0.75))
        # On a GPU passes are recorded when their shapes come again.
        for index in range(6 if self.runtime.device.type == "cuda" else 2):
            tracker.step(Frame(np.zeros((side, side, 3), np.uint8), index=index))

    def prefetch(self, frame: Frame) -> bool:
        """Start to encode the frame that a tracker will be given next, beside what it does with this one.

        Call it before ``tracker.step`` with the frame before, and hand the same ``Frame`` to the
        next ``step``. It changes no answer.

        Returns:
            Whether it was started; only on a GPU.
        """
        return self.runtime.prefetch(frame.image)

    def close(self) -> None:
        """Free weights and device memory; the model cannot be used afterwards."""
        self._runtime = self._checkpoint = None
        # Some parts know each other.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _write(
        self,
        images: Sequence[NDArray[np.uint8]],
        question: str,
        max_new_tokens: int,
        history: Sequence[tuple[str, str]] = (),
    ) -> str:
        runtime = self.runtime
        answer = runtime.ask(runtime.encode_frames(images), question, max_new_tokens, history)
        return runtime.tokenizer.decode(answer.token_ids)


def _frames(images: Images) -> list[Frame]:
    """Any form of picture or pictures as frames."""
    if isinstance(images, Frame):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [Frame(images)]
    frames = [item if isinstance(item, Frame) else Frame(item, index=i) for i, item in enumerate(images)]
    if not frames:
        raise ImageError("there is no frame to look at")
    return frames


def _shown_frames(images: Images) -> list[Frame]:
    """Any form of picture or pictures as frames, no more than a model is shown at once."""
    frames = _frames(images)
    if len(frames) > MOST_FRAMES:
        raise ImageError(
            f"{len(frames)} frames are more than the {MOST_FRAMES} that a model is shown at once; "
            f"take some: elysium_core.io.sampling.sample_evenly(frames, {MOST_FRAMES})",
            code="FRAMES",
        )
    return frames
