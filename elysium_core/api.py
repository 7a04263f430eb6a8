"""The Python API of a model: ground, describe, ask, caption and track."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from elysium_core.checkpoint.checkpoint import Checkpoint
from elysium_core.checkpoint.quantization import check_unquantized
from elysium_core.device import resolve_dtype
from elysium_core.errors import BackendError, BoxError, ConfigError, ExpressionError, ImageError
from elysium_core.families.base import Seen
from elysium_core.families.elysium import as_elysium
from elysium_core.families.elysium_loader import from_checkpoint
from elysium_core.families.loaders import LoadedModel, load_model
from elysium_core.frames import Clip, Frame, require_frame
from elysium_core.geometry import Box
from elysium_core.io.pictures import as_frames
from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.prompt.expression import clean_answer, clean_question
from elysium_core.prompt.questions import CAPTION, REG, VIDEO_REG
from elysium_core.runtime import Runtime
from elysium_core.settings import LoadOptions, TrackingConfig
from elysium_core.tracking.find_parts import find_in_picture
from elysium_core.tracking.instances import find_instances
from elysium_core.tracking.multi_object import ALL_OBJECTS, MultiObjectTracker
from elysium_core.tracking.newcomers import NEWCOMER_SCORE, NEWCOMER_SCORE_BY_NAME, InstanceSearch, Known, split_names
from elysium_core.tracking.tracker_choice import make_tracker
from elysium_core.tracking.zoom import zoomed_pictures
from elysium_core.tracking.zoom_search import ZoomSearch
from elysium_core.types import Grounding, ModelInfo, Tracker

_TORCH_VISION = LoadOptions(vision_backend="torch")

Picture = Frame | NDArray[np.uint8] | Image | str | PathLike[str]
"""A frame, an RGB uint8 array (height, width, 3), a PIL image, or the path of a picture."""
Images = Picture | Sequence[Picture] | Clip


class Elysium:
    """A loaded model. It keeps no state between calls. Only one thread may use it at a time.

    Args:
        loaded: A model of any family.

    Attributes:
        info: Description of the model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._runtime: Runtime | None = Runtime(loaded.family)
        self._checkpoint: Checkpoint | None = loaded.checkpoint
        self.info: ModelInfo = loaded.info

    @classmethod
    def from_pretrained(cls, model: str | Path | LoadOptions = "real", **options: Any) -> Elysium:
        """Load a checkpoint from the disk; never downloads anything.

        Args:
            model: ``"real"``, ``"nano"``, a folder, a hub id that has been pulled (``elysium pull``), or a
                :class:`elysium_core.settings.LoadOptions`.
            **options: Fields of :class:`elysium_core.settings.LoadOptions`, such as ``device="cpu"``.

        Raises:
            ConfigError: An option is unknown.
            ModelFileError: The checkpoint is missing, damaged or unsafe.
            BackendError: Device, dtype, quantisation or backend cannot be used on this machine.
        """
        load = (model if isinstance(model, LoadOptions) else LoadOptions(str(model))).with_options(**options)
        return cls(load_model(load))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, load: LoadOptions = _TORCH_VISION) -> Elysium:
        """Make a model from a checkpoint in memory.

        If the weights change later, in training for example, only the vision backend ``torch`` uses the new ones.

        Args:
            checkpoint: The checkpoint, on its device.
            load: Options of the vision encoder and the decoder; ``model``, ``device``, ``dtype`` and
                ``quantization`` are not used.
        """
        return cls(from_checkpoint(checkpoint, load))

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | None = None, max_shard_bytes: int | None = None
    ) -> None:
        """Write the model to a folder in the published layout, complete with all files for loading.

        Weights that have not changed since loading are written unchanged, byte for byte, in any
        running data type. The folder is written completely or not at all.

        Args:
            folder: Target folder; other files in it are kept.
            dtype: ``float32``, ``float16`` or ``bfloat16``; by default the data type of the loaded
                files.
            max_shard_bytes: Largest weight file [bytes]; by default the division of the loaded files.

        Raises:
            ModelFileError: The folder cannot be written.
            BackendError: The data type is unknown, or the model has been closed.
        """
        kind = None if dtype is None else resolve_dtype(dtype, self.runtime.device)
        check_unquantized(self.network.llm)
        if self._checkpoint is None:
            raise BackendError(f"the model {self.info.name!r} has no checkpoint of the published layout to save")
        self._checkpoint.save(folder, dtype=kind, max_shard_bytes=max_shard_bytes)

    @property
    def runtime(self) -> Runtime:
        """The runtime of the model, for trackers and measurements.

        Raises:
            BackendError: The model has been closed.
        """
        if self._runtime is None:
            raise self._closed()
        return self._runtime

    @property
    def network(self) -> ElysiumNetwork:
        """The network with its weights, for saving and measurements.

        Raises:
            BackendError: The model has been closed, or is of another family than Elysium.
        """
        return as_elysium(self.runtime.family).network

    def _closed(self) -> BackendError:
        return BackendError(f"the model {self.info.name!r} has been closed; load it again")

    def clean_words(self, expression: str) -> str:
        """Clean a user's expression and check it.

        Raises:
            ExpressionError: It is empty, too long, or contains a part of the prompt format. For a model
                with a closed vocabulary: it contains none of its names (``EXPR_UNKNOWN``).
        """
        return self.runtime.clean_words(expression)

    def ground(self, image: Picture, expression: str, *, zoom: bool = False) -> Grounding:
        """Find one expression in one image (REC).

        Args:
            image: RGB uint8 (H, W, 3), a frame, a PIL image, or the path of a picture.
            expression: The object to find, such as ``the red apple``.
            zoom: Also search parts of the image at full resolution; for small objects. Costs up to 16
                more encoded images and passes.

        Returns:
            Box, score 0..1 and text of the answer; the box is None if the answer has none. With
            ``zoom``, the text may be about a part of the image; the box always refers to the whole
            image.

        Raises:
            ExpressionError: See :meth:`clean_words`.
            ImageError: It is no picture, cannot be read, or is the address of one (``IMG_ADDRESS``); or there are
                several (``FRAMES``).
        """
        runtime = self.runtime
        words = {"": runtime.clean_words(expression)}
        frames = as_frames(image)
        if len(frames) > 1:
            raise ImageError(f"ground looks at one image, not at {len(frames)}; call it for each", code="FRAMES")
        picture = frames[0].image
        found = find_in_picture(runtime, picture, words)
        if zoom:
            found = ZoomSearch(runtime).finish(picture, found, words)
        return found[""]

    def find_all(
        self, image: Frame | NDArray[np.uint8], names: Sequence[str], *, known: Sequence[Known] = ()
    ) -> dict[str, list[Grounding]]:
        """Find the objects of some names in one image, as many as one look shows.

        Call it again with what was found as ``known`` for those that are still missing.

        Args:
            image: RGB uint8 (H, W, 3) or a frame.
            names: Names such as ``person``.
            known: Names and boxes of objects that are known already; they are hidden from the model.

        Returns:
            For each name, cleaned, its objects with box and score, the most certain first; uncertain ones included.

        Raises:
            ExpressionError: A name cannot be used; see :meth:`clean_words`.
        """
        runtime = self.runtime
        return find_instances(runtime, as_frames(image)[0].image, split_names(names, runtime.clean_words), known)

    def describe(
        self, frames: Images, box: Box, frame_index: int = 0, max_new_tokens: int = 64, *, zoom: bool = False
    ) -> str:
        """Describe the object in a box (REG for one image, Video-REG for a clip).

        The model gets all the frames. It was trained with the box in Frame 1 of a clip, so the order is:
        the frame of the box, the frames after it, and then the frames before it, backwards. A model that was
        trained on single images gets the frame of the box alone.

        Args:
            frames: One image, or 1..32 frames in order of time; each as for :meth:`ground`.
            box: The object's box in ``frames[frame_index]``.
            frame_index: Position in ``frames``; negative counts from the end.
            max_new_tokens: Longest answer [tokens].
            zoom: Use only the part of each frame around the box, at full resolution; for small objects.
                It is the same part in every frame, so an object that moves far may leave it.

        Raises:
            BoxError: ``frame_index`` is out of range.
            ExpressionError: The model was not trained for descriptions (``TASK``).
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        clip = _frames_for_prompt(frames)
        if not -len(clip) <= frame_index < len(clip):
            raise BoxError(f"frame_index {frame_index} is outside a clip of {len(clip)} frames")
        first = frame_index % len(clip)
        images = [frame.image for frame in [*clip[first:], *clip[:first][::-1]]]
        described = self.runtime.family.settings.describe
        if described == "none":
            raise self._untrained("descriptions")
        if described == "frame":
            images = images[:1]
        if zoom:
            images, box = zoomed_pictures(images, box)
        seen, family = self.runtime.encode_frames(images), self.runtime.family
        text = family.grammar.write(box, seen[0].steps)
        return self._write(seen, family.question(REG if len(seen) == 1 else VIDEO_REG, box=text), max_new_tokens)

    def ask(
        self, frames: Images, question: str, max_new_tokens: int = 128, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        """Answer a question about an image or a clip. The model gets all the frames.

        Args:
            frames: One image, or 1..32 frames in order of time; each as for :meth:`ground`. Sample a longer
                video by :func:`elysium_core.io.sampling.sample_evenly`.
            question: The question.
            max_new_tokens: Longest answer [tokens].
            history: Earlier questions and answers about the same frames, oldest first.

        Raises:
            ExpressionError: A question is empty, too long or contains a part of the prompt format, or
                an answer is too long; or the model was not trained for questions (``TASK``).
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        words = clean_question(question)
        self._require_trained("questions")
        rounds = [(clean_question(asked), clean_answer(answer)) for asked, answer in history]
        return self._write(self._encode(frames), words, max_new_tokens, rounds)

    def caption(self, frames: Images, max_new_tokens: int = 128) -> str:
        """Describe a whole image or a clip of 1..32 frames, each as for :meth:`ground`. The model gets all the frames.

        Raises:
            ExpressionError: The model was not trained for captions (``TASK``).
            ImageError: There is no frame, or there are too many (``FRAMES``).
        """
        self._require_trained("captions")
        return self._write(self._encode(frames), self.runtime.family.question(CAPTION), max_new_tokens)

    def _require_trained(self, task: str) -> None:
        if self.runtime.family.settings.vocabulary:
            raise self._untrained(task)

    def _untrained(self, task: str) -> ExpressionError:
        return ExpressionError(f"the model {self.info.name!r} was not trained for {task}; load a larger model", "TASK")

    def tracker(self, mode: str = "stream", config: TrackingConfig | None = None) -> Tracker:
        """Make a tracker for one stream.

        Args:
            mode: ``stream`` answers every frame as it arrives; ``clip`` is the paper's offline protocol;
                ``paper`` answers a live stream in the paper's clips of 8 frames, each with its last frame.
            config: Settings; ``mode`` has priority over the mode in them.

        Raises:
            ConfigError: The mode is unknown, or the model does not know it (``MODE``).
        """
        return make_tracker(self.runtime, replace(config or TrackingConfig(), mode=mode), self.info.name)

    def tracker_of_all(self, names: str | Sequence[str], config: TrackingConfig | None = None) -> MultiObjectTracker:
        """Make a tracker that finds all objects of some names in one stream and follows them.

        Args:
            names: Names, or text with commas between them: ``"person, dog"``.
            config: Settings; ``max_targets`` limits how many are followed at a time. By default 16, and what is lost
                for two seconds is removed after two more.

        Raises:
            ConfigError: There are no names or too many (``NAMES``), or the model cannot follow a box (``MODE``).
            ExpressionError: A name cannot be used.
        """
        search, settings = self.search_of_all(names), config or ALL_OBJECTS
        if settings.mode != "stream":
            raise ConfigError(f"all objects are followed in mode 'stream', not {settings.mode!r}", code="MODE")
        return MultiObjectTracker(self.tracker(config=settings), search)

    def search_of_all(self, names: str | Sequence[str]) -> InstanceSearch:
        """Make a search for newcomers in one stream, for a tracker of all objects of some names.

        Raises:
            ConfigError: There are no names or too many (``NAMES``), or the model cannot follow a box (``MODE``).
            ExpressionError: A name cannot be used.
        """
        if self.runtime.family.settings.by_words:
            raise ConfigError(
                f"{self.info.name!r} follows things by words, so it cannot tell several of one name apart; follow one "
                "with tracker()",
                code="MODE",
            )
        by_name = self.runtime.family.settings.name_scores is not None
        least_score = NEWCOMER_SCORE_BY_NAME if by_name else NEWCOMER_SCORE
        return InstanceSearch(self, split_names(names, self.runtime.clean_words), least_score=least_score)

    def warm_up(self) -> None:
        """Run every stage on blank frames, so that the first real frame is not slow."""
        side = self.runtime.family.side_px
        tracker = self.tracker()
        by_words = self.runtime.family.settings.by_words
        tracker.add("an object" if by_words else "", Box(0.25, 0.25, 0.75, 0.75))
        # On a GPU, a pass is recorded when its shape occurs again.
        for index in range(6 if self.runtime.device.type == "cuda" else 2):
            tracker.step(Frame(np.zeros((side, side, 3), np.uint8), index=index))

    def prefetch(self, frame: Frame) -> bool:
        """Start to encode the next frame of a tracker while the tracker works on the current one.

        Call it before ``tracker.step`` of the current frame, and give the same ``Frame`` to the
        next ``step``. It changes no answer.

        Returns:
            Whether the encoding was started; always false on a CPU.
        """
        require_frame(frame)
        return self.runtime.prefetch(frame.image)

    def interrupted_by(self, other: Callable[[], object]) -> AbstractContextManager[None]:
        """Call ``other`` again and again while the model answers inside a ``with`` block.

        The calls come after each encoded image and between forward passes, so that a tracker of this model, for
        example, can follow new frames while a long text is written. No answer changes, up to rounding.

        Args:
            other: May use the model, except for its ``close``. What it raises ends the answer.
        """
        return self.runtime.breaks.given_to(other)

    def close(self) -> None:
        """Free weights and device memory; the model cannot be used afterwards."""
        self._runtime = self._checkpoint = None
        # Some parts refer to each other, so reference counting alone does not free them.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, frames: Images) -> list[Seen]:
        return self.runtime.encode_frames([frame.image for frame in _frames_for_prompt(frames)])

    def _write(
        self, seen: Sequence[Seen], question: str, max_new_tokens: int, history: Sequence[tuple[str, str]] = ()
    ) -> str:
        answer = self.runtime.ask(seen, question, max_new_tokens, history)
        return self.runtime.tokenizer.decode(answer.token_ids)


def _frames_for_prompt(images: Images) -> list[Frame]:
    """Convert images or frames to a list of frames, and refuse more than a model takes at once."""
    frames = as_frames(images)
    if len(frames) > MOST_FRAMES:
        raise ImageError(
            f"{len(frames)} frames are more than the {MOST_FRAMES} that a model takes at once; "
            f"sample them: elysium_core.io.sampling.sample_evenly(frames, {MOST_FRAMES})",
            code="FRAMES",
        )
    return frames
