"""``elysium view``: follow things in a video or camera in the browser, without ROS."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Annotated

import typer

from elysium_core.cli.options import (
    LOAD_DEFAULTS,
    ExpressionsOption,
    JsonOption,
    LiveVideoArgument,
    TopicOption,
    ZoomOption,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import emit, say
from elysium_core.errors import packages_needed
from elysium_core.io.recording import DEFAULT_FPS
from elysium_core.io.video import open_video
from elysium_core.prompt.expression import clean_expression
from elysium_core.settings import LoadOptions, TrackingConfig
from elysium_core.viewer.access import DEFAULT_HOST, DEFAULT_PORT, TOKEN_VARIABLE, Access

_DEFAULTS = TrackingConfig()
_MOST_TARGETS = 8


@with_load_options
def command(
    video: LiveVideoArgument,
    expression: ExpressionsOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 = all networks, then with a token.")
    ] = DEFAULT_HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 = any that is free.")] = DEFAULT_PORT,
    loop: Annotated[bool, typer.Option("--loop/--once", help="Start a file over at its end, or stay there.")] = True,
    fps: Annotated[float, typer.Option("--fps", help="Frame rate of a folder of images [Hz].")] = DEFAULT_FPS,
    zoom: ZoomOption = _DEFAULTS.zoom,
    topic: TopicOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Show a video or camera in the browser; follow what is typed, clicked or marked there.

    Open the printed address. A file plays while somebody looks. Ctrl-C ends.
    """
    access = Access.choose(host, os.environ)
    words = [clean_expression(text) for text in expression or ()]
    with packages_needed():
        from elysium_core.viewer.library_backend import LibraryBackend
        from elysium_core.viewer.server import serve

    def ready(used_port: int) -> None:
        address = access.address(used_port)
        if json:
            emit({"address": address})
            return
        say(f"open {address}")
        if access.token and not os.environ.get(TOKEN_VARIABLE):
            say(f"the token is new at every start; set {TOKEN_VARIABLE} to keep one")

    with ExitStack() as stack:
        recording = stack.enter_context(open_video(video, fps=fps, topic=topic, allow_network=True))
        config = TrackingConfig(zoom=zoom, max_targets=max(_MOST_TARGETS, len(words)))
        model = load_model(load)
        for text in words:
            model.clean_words(text)
        backend = LibraryBackend(recording, model, config, loop=loop, expressions=words)
        serve(backend, access, port, ready)
