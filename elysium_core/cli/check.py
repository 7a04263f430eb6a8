"""``elysium check``: whether a model works on this machine as it should, and how fast."""

from __future__ import annotations

import json as json_library
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from elysium_core.cli.options import DEFAULT_MODEL, LOAD_DEFAULTS, JsonOption, load_model, with_load_options
from elysium_core.cli.output import emit, say
from elysium_core.errors import ConfigError
from elysium_core.io.files import atomic_path
from elysium_core.settings import LoadOptions

_FAILED = 1


@partial(with_load_options, without=("model",))
def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="real, nano, a folder, or a hub id that was pulled.")
    ] = DEFAULT_MODEL,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result to this .json file.")] = None,
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Check a model on this machine: answers, boxes, speed and memory.

    Ten generated pictures, of photographs in motion or drawn, are asked about; the answers are
    compared with those of transformers' own generate, the boxes with the true ones. The result is
    one sentence, or with --json one JSON object. The exit code is 1 if the check failed. Send the
    JSON when you report a problem.
    """
    if model == "identity":
        raise ConfigError("model 'identity' has nothing to check; name a model with weights")
    loaded = load_model(load.with_options(model=model))
    # Imported here because transformers takes seconds to import, and the help does not need it.
    from elysium_core.api import Elysium
    from elysium_core.evaluation.model_check import check_model

    if not isinstance(loaded, Elysium):
        raise ConfigError(f"model {model!r} has no weights to check")
    result = check_model(loaded)
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(json_library.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    if json:
        emit(result.as_json())
    else:
        say(result.sentence)
    if not result.passed:
        raise typer.Exit(_FAILED)
