"""The benchmarks as commands: ``python -m bench.engine`` or ``python -m bench engine``.

An error is one line and an exit code, as in the ``elysium`` command.
"""

from __future__ import annotations

import sys

import typer

from elysium_core.cli.app import ErrorGroup
from elysium_core.cli.output import configure_logging
from elysium_core.cli.registry import CONTEXT_SETTINGS, Verb

BENCHMARKS = (
    Verb("engine", "bench.engine", "Passes, tokens and time of the language model."),
    Verb("vision", "bench.vision", "Tokens, time and memory of the vision encoder with each adapter."),
    Verb("soak", "bench.soak", "Growth of memory and time over ten thousand frames."),
    Verb("gpu", "bench.gpu", "All measurements that need a GPU, in one run and one report."),
    Verb("node", "bench.node", "Latency of the ROS 2 node, from image stamp to answer."),
    Verb("endurance", "bench.endurance", "Memory of the node in a long run, and what it leaves when it ends."),
    Verb("image_path", "bench.image_path", "Files, functions and calls on the path of one ROS image."),
    Verb("names", "bench.names", "Things found by name in photos, and doubt about names that are not there."),
    Verb(
        "following", "bench.following", "Boxes followed in other light and colour, and doubt when the target is gone."
    ),
    Verb("depth", "bench.depth", "Errors of the positions that depth gives, in scenes with known geometry."),
    Verb("ablation", "bench.ablation", "Trains and scores each token adapter of the paper's table 7, at small size."),
    Verb("crowds", "bench.crowds", "Generated recordings of several objects of one name, for elysium eval mot."),
    Verb("data", "bench.data", "Frames a second that the clip generator draws."),
    Verb("curation", "bench.curation", "Yield and purity of curated tracks, and memory, on video with known tracks."),
    Verb("box_passes", "bench.box_passes", "Passes a frame for boxes in motion, by grammar and number of targets."),
    Verb("qwen_estimate", "bench.qwen_estimate", "Memory and frame rate of Qwen-VL models, computed."),
    Verb("lasot", "bench.lasot", "Scores of trackers without a model on LaSOT's annotations."),
)


class BenchGroup(ErrorGroup):
    """All benchmarks."""

    verbs = BENCHMARKS


app = typer.Typer(cls=BenchGroup, add_completion=False, context_settings=CONTEXT_SETTINGS)


@app.callback(invoke_without_command=True)
def _bench(context: typer.Context) -> None:
    """Measure speed and memory on this machine."""
    configure_logging(verbose=False)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(name: str) -> None:
    """Run one benchmark with the options of this process."""
    app([name, *sys.argv[1:]], prog_name="python -m bench")
