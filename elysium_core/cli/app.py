"""Entry point of the ``elysium`` command: runs a verb and turns every failure into one line and an exit code.

Exit codes: 0 = done; 1 = ``elysium doctor`` found something missing; 2 = bad input,
with one line on stderr that gives the reason; 130 = stopped by the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from elysium_core import __version__
from elysium_core.cli.output import configure_logging, emit
from elysium_core.cli.registry import CONTEXT_SETTINGS, VERBS, LazyGroup, UsageError
from elysium_core.errors import ElysiumError

BAD_INPUT = 2
"""Exit code when the input cannot be used."""


class ErrorGroup(LazyGroup):
    """A group of verbs. It turns their failures into one line on stderr and an exit code; nothing else does."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            result = super().main(arguments, *rest, **extra)
        except UsageError as error:
            _fail(error.format_message(), "USAGE", arguments)
        except ElysiumError as error:
            _fail(str(error), error.code, arguments)
        except typer.Abort:
            sys.exit(130)
        except OSError as error:
            _fail(f"{error.filename or 'file system'}: {error.strerror or error}", "OS", arguments)
        sys.exit(result if isinstance(result, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. A closed pipe (``elysium track ... | head``) ends it without an error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        return result


class MainGroup(ErrorGroup):
    """All verbs of ``elysium``."""

    verbs = VERBS


app = typer.Typer(cls=MainGroup, context_settings=CONTEXT_SETTINGS)


def main() -> None:
    """Entry point of the ``elysium`` command."""
    app(prog_name="elysium")


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, to stderr.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find, follow and describe what a sentence names, in video."""
    configure_logging(verbose)
    if version:
        typer.echo(f"elysium {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _fail(message: str, code: str, arguments: list[str]) -> None:
    one_line = " ".join(message.split())
    typer.echo(f"elysium: {one_line}", err=True)
    if "--json" in arguments:
        emit({"error": {"code": code, "message": one_line}})
    sys.exit(BAD_INPUT)
