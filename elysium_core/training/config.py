"""Recipes: one YAML file describes a run; every key is known, typed and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elysium_core.data.synthetic.assets import SYSTEM_PHOTO_FOLDERS
from elysium_core.training.recipe_checks import check_recipe
from elysium_core.training.recipe_file import read_recipe, read_settings


@dataclass(frozen=True, slots=True)
class NanoModelConfig:
    """Sizes of a model that is trained from scratch.

    Attributes:
        side_px: Input side of the vision encoder [px].
        patch_px: Patch side [px].
        vision_width: Width of the vision encoder.
        vision_layers: Its layers.
        vision_heads: Its attention heads.
        llm_width: Width of the language model.
        llm_layers: Its layers.
        llm_heads: Its attention heads.
        llm_mlp: Width of its MLP.
        visual_tokens: Tokens a frame that the T-Selector keeps.
        vocab_size: Most entries of the tokenizer.
    """

    side_px: int = 128
    patch_px: int = 16
    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    llm_width: int = 128
    llm_layers: int = 4
    llm_heads: int = 4
    llm_mlp: int = 384
    visual_tokens: int = 24
    vocab_size: int = 1024

    @property
    def patch_count(self) -> int:
        """Patches a frame."""
        return (self.side_px // self.patch_px) ** 2


@dataclass(frozen=True, slots=True)
class SyntheticDataConfig:
    """What the generated training clips look like.

    Attributes:
        names: Size of the vocabulary: the first so many names that may be trained on.
        frames: Numbers of frames a clip.
        frame_weights: Their shares.
        objects: Numbers of objects a clip.
        object_weights: Their shares.
        gaps: Range of the time between frames, for each entry of ``frames`` [time units].
        max_turns: Most questions asked about one clip.
        absent_share: Share of questions about something that is not in the picture.
        vanish_share: Share of clips of several frames in which an object disappears.
        twin_share: Share of clips of several objects in which two have the same name.
        dye_share: Share of objects that are dyed in a colour.
        plain_share: Share of questions that use the mere name where that is enough; the
            others name colour, size or place.
        photo_folders: Where background photos are searched; procedural backgrounds alone if empty.
        seed: Seed of everything; each stage and step adds its own number.
    """

    names: int = 40
    frames: tuple[int, ...] = (1, 2, 3, 4)
    frame_weights: tuple[float, ...] = (0.25, 0.5, 0.1, 0.15)
    objects: tuple[int, ...] = (1, 2, 3, 4)
    object_weights: tuple[float, ...] = (0.1, 0.3, 0.3, 0.3)
    gaps: tuple[tuple[float, float], ...] = ((0.5, 2.5), (0.5, 12.0), (0.5, 5.0), (0.5, 3.0))
    max_turns: int = 4
    absent_share: float = 0.0
    vanish_share: float = 0.0
    twin_share: float = 0.0
    dye_share: float = 0.0
    plain_share: float = 1.0
    photo_folders: tuple[str, ...] = tuple(map(str, SYSTEM_PHOTO_FOLDERS))
    seed: int = 1


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage of a run.

    Attributes:
        kind: ``vision``, ``language``, ``distil`` or ``joint`` (:mod:`elysium_core.training.stages`).
        steps: Optimiser steps.
        batch_frames: Frames a step; a step holds ``batch_frames / T`` clips of T frames.
        lr: Peak learning rate of everything but the vision encoder.
        vision_lr: Peak learning rate of vision encoder, selector and projector.
        warmup_steps: Steps of linear warm-up.
        decay_from: Share of the steps after which the rate falls linearly to ``final_lr`` of its peak, 0..1.
        final_lr: Last rate as a share of the peak.
        frames: Overrides the data's ``frames`` with one number; 0 = as the data says.
        objects: Overrides the data's ``objects``, each number as often; empty = as the data says. What is
            learnt from single patches is learnt faster from crowds: a picture of 8 shows 3 times as many
            things as one of 2 or 3.
        init: Stages whose weights this one starts from, a later one over an earlier one.
        after: Stages that must be finished first (those of ``init`` always must).
        parts: For each entry of ``init``, prefixes of the weights taken; empty = all.
        align_names: Before the first step, let the oracle's names and the word embeddings agree with
            how the vision encoder tells names apart; needs ``patch_heads`` of a stage in ``init``.
        pointing_weight: Weight of the pointing loss.
        gate: How answers train the T-Selector's gate (:mod:`elysium_core.model.token_selector`);
            ``hard`` leaves it to its own loss.
        frozen: Prefixes of weights that this stage leaves as they are.
        words_frozen: Keep word embeddings and oracle as they are, because a projector is
            trained towards them.
        weight_decay: AdamW's weight decay.
        threads: CPU threads of the training process.
        evaluate_every: Steps between two looks at clips never trained on: their losses, and pictures
            of what the model says about them; 0 = never.
    """

    kind: str
    steps: int
    batch_frames: int = 32
    lr: float = 1.2e-3
    vision_lr: float = 1.5e-3
    warmup_steps: int = 60
    decay_from: float = 0.5
    final_lr: float = 0.03
    frames: int = 0
    objects: tuple[int, ...] = ()
    init: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    align_names: bool = False
    pointing_weight: float = 0.5
    gate: str = "hard"
    frozen: tuple[str, ...] = ()
    words_frozen: bool = False
    weight_decay: float = 0.01
    threads: int = 1
    evaluate_every: int = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole run from scratch.

    Attributes:
        name: Name of the run; its files lie in ``runs/<name>``.
        model: Sizes.
        data: Generated clips.
        stages: Stages by name, in the order of the file.
        export: Stage whose weights become the checkpoint.
        device: Where to train: ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: str
    stages: dict[str, StageConfig]
    export: str
    model: NanoModelConfig = field(default_factory=NanoModelConfig)
    data: SyntheticDataConfig = field(default_factory=SyntheticDataConfig)
    device: str = "auto"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of training from scratch and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: The file cannot be read, or has unknown keys, wrong types or values
            out of range; all of them are named at once.
    """
    return read_recipe(path, read_settings(path, overrides), Recipe, check_recipe)
