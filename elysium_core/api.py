"""The model as a user sees it: ground, describe, ask, caption, track. One call each."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from elysium_core.families.base import Seen
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.frames import Clip, Frame
from elysium_core.geometry import Box
from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.prompt.expression import clean_answer, clean_question
from elysium_core.prompt.questions import CAPTION, REG, VIDEO_REG
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.runtime import Runtime
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.crop_tracker import CropTracker
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.stream import StreamTracker
from elysium_core.tracking.zoom import ZoomSearch, zoomed_pictures
from elysium_core.types import Grounding, LoadOptions, ModelInfo, Tracker, TrackingConfig
from elysium_core.vision.vision_choice import build_vision, check_backend

_LOG = logging.getLogger(__name__)

_TORCH_VISION = LoadOptions(vision_backend="torch")

Images = Frame | NDArray[np.uint8] | Sequence[Frame] | Sequence[NDArray[np.uint8]] | Clip


class Elysium:
    """A loaded model. Stateless between calls; used by one thread at a time.

    Args:
        runtime: The model, ready to be asked.
        network: Its weights.
        info: What this model is.
        checkpoint: The files it came from.
    """

    def __init__(self, runtime: Runtime, network: ElysiumNetwork, info: ModelInfo, checkpoint: Checkpoint) -> None:
        self._runtime: Runtime | None = runtime
        self._network: ElysiumNetwork | None = network
        self._checkpoint: Checkpoint | None = checkpoint
        self.info = info
        self._warned: set[str] = set()

    @classmethod
    def from_pretrained(cls, model: str | Path | LoadOptions = "nano", **options: Any) -> Elysium:
        """Load a checkpoint; never touches a network.

        Args:
            model: ``"nano"``, a folder, a hub id that has been pulled (``elysium pull``), or all options at once.
            **options: Fields of :class:`elysium_core.types.LoadOptions`, such as ``device="cpu"``.

        Raises:
            ConfigError: There is no such option.
            ModelFileError: The checkpoint is missing, damaged or unsafe.
            BackendError: Device, dtype, quantisation or backend cannot be used here.
        """
        load = (model if isinstance(model, LoadOptions) else LoadOptions(str(model))).with_options(**options)
        device = resolve_device(load.device)
        check_gpu(device)
        dtype = resolve_dtype(load.dtype, device)
        check_backend(load.vision_backend, device)
        check_quantization(load.quantization, device, dtype)
        checkpoint = load_quantized(
            load.model, load.quantization, device, dtype, allow_pickle_weights=load.allow_pickle_weights
        )
        return cls.from_checkpoint(checkpoint, load)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, load: LoadOptions = _TORCH_VISION) -> Elysium:
        """Make a model of a checkpoint that is already in memory.

        Its weights may go on changing, in training for example: only the vision backend ``torch`` follows them.

        Args:
            checkpoint: On its device.
            load: How its vision encoder and decoder are run.
        """
        network = checkpoint.network.eval()
        tokenizer = TextTokenizer.from_folder(checkpoint.llm_folder)
        tokenizer.check_fits(network.llm.size.vocab)
        vision = build_vision(
            load.vision_backend,
            network,
            checkpoint.folder,
            fast_resize=load.fast_resize,
            cuda_graphs=load.cuda_graphs,
        )
        decoder = build_decoder(network.llm, cuda_graphs=load.cuda_graphs)
        family = ElysiumFamily(network, tokenizer, vision, decoder)
        runtime = Runtime(family)
        info = ModelInfo(
            name=checkpoint.name,
            backend=vision.name,
            device=device_name(runtime.device),
            precision=precision_of(network.llm),
            coordinate_levels=family.grammar.levels,
            clip_length=network.config.clip_length,
            parameters=count_parameters(network),
            weights=fingerprint({tensor.file for tensor in checkpoint.stored.values()}),
        )
        return cls(runtime, network, info, checkpoint)

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
        check_unquantized(self.network.llm)
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

    @property
    def network(self) -> ElysiumNetwork:
        """The weights, for saving and measurements.

        Raises:
            BackendError: The model has been closed.
        """
        if self._network is None:
            raise self._closed()
        return self._network

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
        found = find_by_words(runtime, runtime.encode_frames([picture])[0], words)
        if zoom:
            found = ZoomSearch(runtime).finish(picture, found, words)
        return found[""]

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
            images, box = zoomed_pictures(images, box)
        seen, family = self.runtime.encode_frames(images), self.runtime.family
        text = family.grammar.write(box, seen[0].steps)
        return self._write(seen, family.question(REG if len(seen) == 1 else VIDEO_REG, box=text), max_new_tokens)

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
        return self._write(self._encode(frames), words, max_new_tokens, rounds)

    def caption(self, frames: Images, max_new_tokens: int = 128) -> str:
        """Describe a whole image or clip of 1..32 frames. The model is shown all of them.

        Raises:
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        self._warn_untrained("captions")
        return self._write(self._encode(frames), self.runtime.family.question(CAPTION), max_new_tokens)

    def _warn_untrained(self, task: str) -> None:
        """Say once for each task that a model which only knows names has not learnt it."""
        if self.runtime.family.settings.vocabulary and task not in self._warned:
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
            config: Settings; the argument goes before ``mode`` in it.

        Raises:
            ConfigError: The mode is unknown.
        """
        settings = replace(config or TrackingConfig(), mode=mode)
        if mode != "stream":
            return ClipTracker(self.runtime, settings)
        in_crops = self.runtime.family.crop_sizes is not None
        return (CropTracker if in_crops else StreamTracker)(self.runtime, settings)

    def warm_up(self) -> None:
        """Run every stage once, so that the first real frame is not slow."""
        side = self.runtime.family.side_px
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
        self._runtime = self._network = self._checkpoint = None
        # Some parts know each other.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, frames: Images) -> list[Seen]:
        return self.runtime.encode_frames([frame.image for frame in _shown_frames(frames)])

    def _write(
        self, seen: Sequence[Seen], question: str, max_new_tokens: int, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        answer = self.runtime.ask(seen, question, max_new_tokens, history)
        return self.runtime.tokenizer.decode(answer.token_ids)


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
