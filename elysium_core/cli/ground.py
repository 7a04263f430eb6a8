"""``elysium ground``: find the object that an expression names in an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    ExpressionsOption,
    JsonOption,
    TopicOption,
    ZoomOption,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import box_fields, emit, say
from elysium_core.errors import ConfigError
from elysium_core.frames import Frame
from elysium_core.io.files import is_same_file
from elysium_core.io.image import check_image_name, write_image
from elysium_core.io.overlay import draw_tracks
from elysium_core.io.pictures import as_frames
from elysium_core.io.video import read_picture
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import LoadOptions
from elysium_core.types import Grounding, TrackState, TrackUpdate


@with_load_options
def command(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="An image file of any kind that track reads; of an animation or a bag, its first frame.",
        ),
    ],
    expression: ExpressionsOption = None,
    render: Annotated[Path | None, typer.Option("--render", "-r", help="Draw the boxes: .png or .jpg.")] = None,
    zoom: ZoomOption = False,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Find the object that an expression names in an image."""
    if not expression:
        raise ConfigError("say what to find: --expression 'the red mug'")
    expressions = [clean_expression(text) for text in expression]
    if render:
        check_image_name(render)
        if is_same_file(render, [image]):
            raise ConfigError(f"{str(render)!r} is the image itself; write to another file")
    frame = Frame(read_picture(image, topic)) if topic else as_frames(image)[0]
    loaded = load_model(load)
    groundings = [loaded.ground(frame, text, zoom=zoom) for text in expressions]
    for text, grounding in zip(expressions, groundings, strict=True):
        fields = _fields(text, grounding, frame)
        if json:
            emit(fields)
        else:
            where = f"{fields['box_px']} px, score {grounding.score:.2f}" if grounding.box else "not found"
            if grounding.box and not grounding.is_sure():
                where = f"not found; the best guess is {where}"
            say(f"{text}: {where}")
    if render:
        write_image(render, draw_tracks(frame.image, _as_updates(expressions, groundings)))


def _fields(expression: str, grounding: Grounding, frame: Frame) -> dict[str, Any]:
    return {
        "expression": expression,
        **box_fields(grounding.box, frame.width, frame.height),
        "score": round(grounding.score, 6),
        "sure": grounding.is_sure(),
        "text": grounding.text,
    }


def _as_updates(expressions: list[str], groundings: list[Grounding]) -> list[TrackUpdate]:
    pairs = enumerate(zip(expressions, groundings, strict=True), start=1)
    return [
        TrackUpdate(str(number), 0, found.box, found.score, TrackState.TRACKED, expression=expression)
        for number, (expression, found) in pairs
        if found.box is not None
    ]
