"""Runs a whole recipe: each stage in a separate process, independent stages in parallel."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elysium_core.errors import ConfigError, DataError, printable
from elysium_core.io.files import atomic_path
from elysium_core.io.stop_request import StopRequest
from elysium_core.training.acceleration import end_processes
from elysium_core.training.loop import DONE_NAME
from elysium_core.training.plans import plan_of
from elysium_core.training.recipes import AnyRecipe
from elysium_core.training.records import last_step

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
# A step of a large model and its state on disk take minutes; a second Ctrl-C does not wait for them.
_STOP_S = 600.0
_SETTINGS_NAME = "settings.json"
# Settings that may change when a run is continued, because they do not affect what is learnt.
_NOT_LEARNT_FROM = {"name", "stages", "export", "average", "device", "validation", "stored_as"} | {
    "threads", "workers", "evaluate_every", "log_every", "save_every_s",
}  # fmt: skip
_LONGEST_LIST, _LONGEST_REASON = 500, 300


def run_recipe(
    recipe: AnyRecipe,
    recipe_path: Path,
    overrides: Sequence[str],
    folder: Path,
    jobs: int,
    on_progress: Callable[[int], None] | None = None,
    launcher: Path | None = None,
) -> Path:
    """Run all stages that are not done yet, then write the checkpoint.

    A run that was stopped is continued from its saved states.

    Args:
        recipe: The recipe with overrides applied.
        recipe_path: Its file, for the processes of the stages.
        overrides: ``key=value`` texts, for the processes of the stages.
        folder: Folder of the run.
        jobs: Most stages in parallel; stages of fine-tuning always run one after the other.
        on_progress: Called about twice a second with the total number of steps done.
        launcher: Config file of ``accelerate launch``, which then starts each stage in many processes.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: The folder holds a run of another model.
        DataError: A stage failed; its log is named. Or what the recipe reads is not there.
        KeyboardInterrupt: Ctrl-C or SIGTERM came, and the stages that ran have saved their states.
    """
    claim_run(recipe, folder)
    plan = plan_of(recipe)
    jobs = jobs if plan.may_run_side_by_side else 1
    plan.prepare(folder)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with StopRequest() as stop:
            while waiting := [name for name in recipe.stages if not (folder / name / DONE_NAME).exists()]:
                _collect(running, folder)
                for name in waiting:
                    if name not in running and len(running) < jobs and _ready(recipe, name, folder):
                        threads = recipe.stages[name].threads
                        running[name] = _start(name, recipe_path, overrides, folder, threads, launcher)
                if on_progress is not None:
                    on_progress(sum(steps_done(recipe, folder).values()))
                if stop.is_set:
                    raise KeyboardInterrupt
                time.sleep(_POLL_S)
            for process in running.values():
                process.wait()
    finally:
        _stop(running)
    return plan.export(folder)


def claim_run(recipe: AnyRecipe, folder: Path) -> None:
    """Make a run's folder, or check that it holds a run of the same model.

    Raises:
        ConfigError: Weights or tokenizer in it would not fit the recipe, or a stage was finished with other settings.
        DataError: What the recipe reads is not there.
    """
    plan_of(recipe).require_inputs()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.json"
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(_model_settings(recipe)) + "\n", encoding="utf-8")
        return
    changed = _differences(path, _model_settings(recipe), _model_settings(recipe, chosen=True))
    if changed:
        raise ConfigError(f"{folder} holds a run of a model with {changed}; choose another --out")
    for name in recipe.stages:
        changed = _changed_settings(recipe, name, folder)
        if changed and (folder / name / DONE_NAME).exists():
            raise ConfigError(
                f"stage {name} in {folder} was trained with {changed}; choose another --out, "
                f"or delete {folder / name} to train it again"
            )


def _changed_settings(recipe: AnyRecipe, name: str, folder: Path) -> str:
    """Return how the settings of a started stage differ from the recipe, in words; empty for a new stage."""
    path = folder / name / _SETTINGS_NAME
    if not path.is_file():
        return ""
    return _differences(path, _stage_settings(recipe, name), _stage_settings(recipe, name, chosen=True))


def _differences(path: Path, now: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Return how a file of settings differs from the recipe, in words; empty if it does not.

    Args:
        path: File with settings by dotted keys.
        now: All settings of the recipe.
        chosen: Settings that are not the default. A setting that the (older) file lacks had its default.
    """
    before = json.loads(path.read_text(encoding="utf-8"))
    compared = before.keys() | chosen.keys()
    changed = sorted(key for key in compared if before.get(key) != now.get(key))
    return "; ".join(f"{key} {before.get(key)!r}, not {now.get(key)!r}" for key in changed)[:_LONGEST_LIST]


def _note_settings(recipe: AnyRecipe, name: str, folder: Path) -> None:
    """Write the settings of a stage into its folder."""
    if changed := _changed_settings(recipe, name, folder):
        _LOG.warning("stage %s was started with %s; it continues with the new settings", name, changed)
    path = folder / name / _SETTINGS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_stage_settings(recipe, name), indent=1) + "\n", encoding="utf-8")


def _stage_settings(recipe: AnyRecipe, name: str, *, chosen: bool = False) -> dict[str, Any]:
    """Return all settings that affect what a stage learns, by dotted keys; with ``chosen`` without defaults."""
    shared = recipe.model_dump(mode="json", exclude=_NOT_LEARNT_FROM, exclude_defaults=chosen)
    stage = recipe.stages[name].model_dump(mode="json", exclude=_NOT_LEARNT_FROM, exclude_defaults=chosen)
    return _flat({**shared, f"stages.{name}": stage})


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _model_settings(recipe: AnyRecipe, *, chosen: bool = False) -> dict[str, Any]:
    """What must stay the same in a folder from one command to the next; ``chosen`` as in :func:`_stage_settings`."""
    return plan_of(recipe).model_settings(chosen=chosen)


def run_stage(recipe: AnyRecipe, name: str, folder: Path) -> None:
    """Run one stage in this process (one of many under ``accelerate launch``), to its end."""
    claim_run(recipe, folder)
    if (folder / name / DONE_NAME).exists():
        return
    _note_settings(recipe, name, folder)
    plan_of(recipe).run_stage(name, folder)
    end_processes()


def steps_done(recipe: AnyRecipe, folder: Path) -> dict[str, int]:
    """Return the number of steps that each stage has done, from its log."""
    done = {}
    for name, stage in recipe.stages.items():
        if (folder / name / DONE_NAME).exists():
            done[name] = stage.steps
        elif step := last_step(folder / name):
            done[name] = step
    return done


def _ready(recipe: AnyRecipe, name: str, folder: Path) -> bool:
    return all((folder / other / DONE_NAME).exists() for other in plan_of(recipe).needed(name))


def _start(
    name: str, recipe_path: Path, overrides: Sequence[str], folder: Path, threads: int, launcher: Path | None = None
) -> subprocess.Popen[bytes]:
    _LOG.info("stage %s starts; its log is %s", name, folder / f"{name}.log")
    launch = [] if launcher is None else ["-m", "accelerate.commands.launch", "--config_file", str(launcher)]
    command = [sys.executable, *launch, "-m", "elysium_core.cli", "train", str(recipe_path), *overrides]
    command += ["--stage", name, "--out", str(folder)]
    # Passive waiting: spinning threads would take CPU time from working threads.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _collect(running: dict[str, subprocess.Popen[bytes]], folder: Path) -> None:
    for name, process in list(running.items()):
        if process.poll() is None:
            continue
        del running[name]
        if process.returncode != 0 or not (folder / name / DONE_NAME).exists():
            log = folder / f"{name}.log"
            said = f": {reason}" if (reason := _last_words(log)) else ""
            raise DataError(f"stage {name} failed with exit code {process.returncode}{said}; see {log}")
        _LOG.info("stage %s is done", name)


def _last_words(log: Path) -> str:
    """The last line of a stage's log; empty without one."""
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return printable(last.removeprefix("elysium: "), _LONGEST_REASON)


def _stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Let the stages that still run save their states and end."""
    for process in running.values():
        process.terminate()
    if any(process.poll() is None for process in running.values()):
        _LOG.warning("the stages that run save their states; the same command goes on from there")
    for process in running.values():
        try:
            process.wait(_STOP_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
