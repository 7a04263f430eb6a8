"""``elysium eval``: evaluate models on a benchmark, or report scores from results on disk."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from elysium_core.cli.options import (
    DEFAULT_MODEL,
    LOAD_DEFAULTS,
    JsonOption,
    ZoomOption,
    load_model,
    with_load_options,
)
from elysium_core.cli.output import Progress, emit, say
from elysium_core.cli.registry import CONTEXT_SETTINGS
from elysium_core.errors import ConfigError
from elysium_core.evaluation.answer_log import AnswerLog
from elysium_core.evaluation.benchmark import EvalRequest
from elysium_core.evaluation.benchmarks import ALL_TASKS, BENCHMARKS, make_reports, prepare, unanswered
from elysium_core.evaluation.judge import EndpointJudge
from elysium_core.evaluation.peers import HF, OPENCV, is_peer
from elysium_core.evaluation.protocols import PROTOCOLS
from elysium_core.evaluation.question_benchmark import run_judge
from elysium_core.evaluation.ranks import Ranks
from elysium_core.evaluation.report import as_lines, write_report
from elysium_core.evaluation.run_folder import MANIFEST, run_folders_below
from elysium_core.evaluation.track_recording import WORDS
from elysium_core.io.sampling import MOST_FRAMES
from elysium_core.settings import MODES, LoadOptions
from elysium_core.types import PerceptionModel

_MOST_REASONS = 5
_KEY_VARIABLE = "ELYSIUM_JUDGE_KEY"

ProtocolsOption = Annotated[
    list[str] | None,
    typer.Option("--protocol", "-p", metavar="P", help=f"Rules to score by; repeatable: {', '.join(PROTOCOLS)}."),
]
JudgeUrlOption = Annotated[
    str,
    typer.Option(
        "--judge-url",
        help=f"OpenAI-compatible endpoint of the judge, such as http://localhost:8000/v1; its key in {_KEY_VARIABLE}.",
        rich_help_panel="Questions",
    ),
]
JudgeModelOption = Annotated[
    str, typer.Option("--judge-model", help="Name of the judging model there.", rich_help_panel="Questions")
]


class EvalGroup(TyperGroup):
    """``elysium eval BENCHMARK`` is short for ``elysium eval run BENCHMARK``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the verb ``run`` if the first word is not a verb: it is a benchmark, perhaps a misspelt one."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=EvalGroup, add_completion=False, context_settings=CONTEXT_SETTINGS, no_args_is_help=False)


@app.callback(invoke_without_command=True)
def _eval(context: typer.Context) -> None:
    """Score a model on a benchmark, or report scores."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)}.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Folder of the data set; synthetic needs none.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="real, nano, identity, a folder, a hub id, opencv:NAME, or hf:ID of a grounding model; repeatable.",
            rich_help_panel="Model",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Run folder; an earlier run in it is continued.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the data set; its usual one if not given.")] = "",
    task: Annotated[str, typer.Option("--task", help=f"For tracking data: {', '.join(ALL_TASKS)}.")] = ALL_TASKS[0],
    words: Annotated[str, typer.Option("--words", help=f"Words given for rsot: {' or '.join(WORDS)}.")] = WORDS[0],
    mode: Annotated[str, typer.Option("--mode", help=f"{' or '.join(MODES)}.")] = MODES[0],
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", help="A box with a lower score is UNCERTAIN; 0 in clip mode if not given."),
    ] = None,
    clip_length: Annotated[
        int | None,
        typer.Option(
            "--clip-length",
            help="Frames the tracker sees at once. If not given: 8 in clip mode, as in the paper, and the length "
            "of the training clips in stream mode and for models with shorter training clips.",
        ),
    ] = None,
    zoom: ZoomOption = False,
    protocol: ProtocolsOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first N entries; of synthetic, N clips of each part.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option("--frames", min=1, max=MOST_FRAMES, help="Frames shown for video-reg and questions."),
    ] = None,
    judge_url: JudgeUrlOption = "",
    judge_model: JudgeModelOption = "",
    load: LoadOptions = LOAD_DEFAULTS,
    json: JsonOption = False,
) -> None:
    """Run one model or several over a benchmark and report the scores.

    All annotations are read before the run starts. Damaged entries are left out and named.
    The same command continues a run that was stopped. Under torchrun the processes
    share the work.
    """
    models = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    ranks = Ranks.from_environment()
    if judge_url and ranks.world_size > 1:
        raise ConfigError("--judge-url does not go with torchrun; give it to elysium eval report afterwards")
    if zoom and (peers := [name for name in models if is_peer(name)]):
        raise ConfigError(f"--zoom is not for models of other projects, such as {peers[0]!r}; leave it out")
    request = EvalRequest(
        benchmark=benchmark,
        data=data,
        split=split,
        task=task,
        words=words,
        mode=mode,
        score_threshold=score_threshold,
        clip_length=clip_length,
        zoom=zoom,
        protocols=tuple(protocol or ()),
        limit=limit,
        frames=frames,
    )
    prepared = prepare(request, ranks)
    _say_left_out(prepared.benchmark.left_out)
    base = out or _default_folder(request, models)
    folders = {name: base if len(models) == 1 else base / _as_file_name(name) for name in models}
    for name, folder in folders.items():
        perception = _load(replace(load, model=name, device=ranks.device(load.device)))
        with Progress(f"eval {benchmark}, {name}", prepared.share) as progress:
            for note in prepared.execute(perception, name, folder):
                progress.advance(note)
        perception.close()
    if ranks.world_size > 1 and (left := sum(unanswered(folder) for folder in folders.values())):
        # The process that finishes last writes the report.
        sys.stderr.write(f"elysium: process {ranks.rank} is done; the others still have {left} entries to do\n")
        return
    for folder in folders.values():
        _judge(folder, judge_url, judge_model)
    _report(list(folders.values()), base, (), json)


app.command("run")(with_load_options(run, without=("model",)))


@app.command("report")
def report(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that elysium eval wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the comparison of several runs.")
    ] = None,
    protocol: ProtocolsOption = None,
    judge_url: JudgeUrlOption = "",
    judge_model: JudgeModelOption = "",
    json: JsonOption = False,
) -> None:
    """Score results again, by any protocol; the data set is not needed. Several folders are compared."""
    folders = directories
    if len(directories) == 1 and not (directories[0] / MANIFEST).is_file():
        # The folder of a comparison holds one run folder for each model.
        folders = run_folders_below(directories[0]) or directories
    where = out or (directories[0] if len(directories) == 1 else directories[0].parent / "comparison")
    for folder in folders:
        _judge(folder, judge_url, judge_model)
    _report(folders, where, tuple(protocol or ()), json)


def _say_left_out(reasons: Sequence[str]) -> None:
    for reason in reasons[:_MOST_REASONS]:
        sys.stderr.write(f"elysium: left out: {reason}\n")
    if len(reasons) > _MOST_REASONS:
        sys.stderr.write(f"elysium: left out: {len(reasons) - _MOST_REASONS} more\n")


def _load(load: LoadOptions) -> PerceptionModel:
    """Load a model of this project or of another one."""
    name = load.model
    if name.startswith(OPENCV):
        from elysium_core.evaluation.peers_opencv import OpenCvModel

        return OpenCvModel(name.removeprefix(OPENCV))
    if name.startswith(HF):
        # transformers takes seconds to import; only these models need it here.
        from elysium_core.evaluation.peers_hf import HfModel

        return HfModel(name.removeprefix(HF), load.device)
    return load_model(load)


def _judge(folder: Path, url: str, model: str) -> None:
    if not url:
        return
    judge = EndpointJudge(url, model, os.environ.get(_KEY_VARIABLE, ""))
    with AnswerLog(folder, "verdicts") as log, Progress("judge", None) as progress:
        for question_id in run_judge(folder, judge, log):
            progress.advance(question_id)


def _report(folders: list[Path], out: Path, protocols: tuple[str, ...], json: bool) -> None:
    """Print and write the report of one run, or of several."""
    for folder, made in make_reports(folders, out, protocols):
        paths = write_report(folder, made)
        if json:
            emit({"title": made.title, "facts": made.facts, "warnings": list(made.warnings), **made.scores})
        else:
            for line in as_lines(made):
                say(line)
        for path in [*paths, *(folder / name for name in made.figures)]:
            sys.stderr.write(f"elysium: wrote {path}\n")


def _default_folder(request: EvalRequest, models: Sequence[str]) -> Path:
    """Return a result folder named after the benchmark, the model and the settings that are not the default."""
    task = request.task if request.data else ""
    mode = "" if request.mode == MODES[0] else request.mode
    model = models[0] if len(models) == 1 else "comparison"
    words = (request.benchmark, request.split, task, mode, "zoom" if request.zoom else "", model)
    return Path("runs") / "eval" / "-".join(_as_file_name(word) for word in words if word)


def _as_file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)
