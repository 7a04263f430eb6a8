"""``elysium info``: print sizes and vocabulary of a model, read from its configuration files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import typer

from elysium_core.cli.options import DEFAULT_MODEL, JsonOption
from elysium_core.cli.output import emit, say

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a model, from its configuration and the headers of its weight files.

    Attributes:
        model: Name of the model, as given on the command line.
        folder: Folder of the checkpoint.
        parameters: Number of parameters; None if the weights are not safetensors files, which are not opened here.
        encoder: Kind of vision encoder.
        input_px: Side of the square that every image is scaled to [px].
        patch_tokens: Tokens per frame from the vision encoder.
        visual_tokens: Tokens per frame that the language model reads.
        clip_length: Frames of its training clips.
        window: Window of past frames in stream mode: ``anchor`` or ``growing``.
        follow: What it follows targets in: ``frame`` or ``crop``.
        crop_px: Sides of its anchor crops and live crops [px]; None if it cannot follow in crops.
        crop_tokens: Tokens of both that the language model reads.
        names: Names in its vocabulary; empty for an open vocabulary.
    """

    model: str
    folder: str
    parameters: int | None
    encoder: str
    input_px: int
    patch_tokens: int
    visual_tokens: int
    clip_length: int
    window: str
    follow: str
    crop_px: tuple[int, int] | None
    crop_tokens: tuple[int, int] | None
    names: tuple[str, ...]


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="real, nano, a folder, or a hub id that was pulled.")
    ] = DEFAULT_MODEL,
    json: JsonOption = False,
) -> None:
    """Print sizes and vocabulary of a model.

    Only configuration files and headers of weight files are read, so this is quick for a model of any size.
    """
    # Imported here because transformers takes seconds to import, and other verbs do not need it.
    from elysium_core.families.loaders import family_facts

    others = family_facts(model)
    facts = read_facts(model) if others is None else others
    if json:
        emit(asdict(facts) if isinstance(facts, ModelFacts) else facts)
        return
    for line in _lines(facts) if isinstance(facts, ModelFacts) else _plain_lines(facts):
        say(line)


def read_facts(model: str) -> ModelFacts:
    """Read a model's settings.

    Raises:
        ModelFileError: It is not on this machine, or its settings cannot be read.
    """
    # Imported here because transformers takes seconds to import, and other verbs do not need it.
    from elysium_core.checkpoint.base_settings import vision_config
    from elysium_core.checkpoint.locations import base_settings, checkpoint_folder
    from elysium_core.network.model_config import CONFIG_NAME, ElysiumConfig

    folder = checkpoint_folder(model)
    config = ElysiumConfig.from_file(folder / CONFIG_NAME)
    vision, crop = vision_config(*base_settings(config.vision, folder)), config.crop
    return ModelFacts(
        model=model,
        folder=str(folder),
        parameters=_parameters(folder),
        encoder=vision.model_type,
        input_px=vision.image_size,
        patch_tokens=config.adapter.in_token_num,
        visual_tokens=config.adapter.out_token_num,
        clip_length=config.clip_length,
        window=config.window,
        follow=config.follow,
        crop_px=None if crop is None else (crop.anchor_px, crop.live_px),
        crop_tokens=None if crop is None else (crop.anchor_tokens, crop.live_tokens),
        names=config.vocabulary,
    )


def _parameters(folder: Path) -> int | None:
    from elysium_core.checkpoint.weight_files import find_weight_files, read_headers

    stored = read_headers(find_weight_files(folder))
    return sum(prod(tensor.shape) for tensor in stored.values()) or None


def _plain_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """One line for each fact about a model of another family."""
    yield f"{facts['model']}: {facts['folder']}"
    for name, value in facts.items():
        if name not in ("model", "folder"):
            shown = f"{value:,}" if type(value) is int else value
            yield f"  {name.replace('_', ' '):<24} {shown}"


def _lines(facts: ModelFacts) -> list[str]:
    count = "unknown: the weights are not safetensors files" if facts.parameters is None else f"{facts.parameters:,}"
    side, tokens = facts.input_px, f"{facts.visual_tokens} of {facts.patch_tokens} tokens kept"
    lines = [
        f"{facts.model}: {facts.folder}",
        f"  parameters   {count}",
        f"  input        {side}x{side} px, {tokens} ({facts.encoder})",
        f"  clips        {facts.clip_length} frames; streams: {facts.window} window",
    ]
    if facts.crop_px is not None and facts.crop_tokens is not None:
        (anchor, live), (first, second) = facts.crop_px, facts.crop_tokens
        crops = f"anchor {anchor}x{anchor} px, {first} tokens; live {live}x{live} px, {second} tokens"
        lines.append(f"  crops        {crops}")
    lines.append(f"  follows in   {'crops' if facts.follow == 'crop' else 'whole frames'}")
    if not facts.names:
        return [*lines, "  vocabulary   open"]
    names = textwrap.wrap(", ".join(facts.names), _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return [*lines, f"  vocabulary   {len(facts.names)} names only:", *names]
