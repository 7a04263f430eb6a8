"""``elysium bench``: measurements, one verb each."""

from __future__ import annotations

import typer

from elysium_core.cli.registry import BENCHES, CONTEXT_SETTINGS, LazyGroup


class BenchGroup(LazyGroup):
    """The verbs of ``elysium bench``."""

    verbs = BENCHES


app = typer.Typer(cls=BenchGroup, add_completion=False, context_settings=CONTEXT_SETTINGS)


@app.callback(invoke_without_command=True)
def _bench(context: typer.Context) -> None:
    """Measure speed and memory on this machine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
