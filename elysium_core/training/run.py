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

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.files import atomic_path
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, require_inputs
from elysium_core.training.finetune.stage import CHECKPOINT_FOLDER, FineTuneStageRun
from elysium_core.training.loop import DONE_NAME
from elysium_core.training.nano.nano_model import TOKENIZER_FOLDER, build_tokenizer, export_stage
from elysium_core.training.nano.scratch import StageRun
from elysium_core.training.recipes import AnyRecipe
from elysium_core.training.records import last_step

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_STOP_S = 10.0
_SETTINGS_NAME = "settings.json"
# Settings that may change when a run is continued, because they do not affect what is learnt.
_NOT_LEARNT_FROM = {"name", "stages", "export", "device", "validation", "stored_as"} | {
    "threads", "workers", "evaluate_every", "log_every", "save_every_s",
}  # fmt: skip
_LONGEST_LIST = 500


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
        DataError: A stage failed (the message names its log), or input files of fine-tuning are missing.
    """
    claim_run(recipe, folder)
    if isinstance(recipe, FineTuneRecipe):
        jobs = 1
    else:
        # The stages share the tokenizer, so it is trained before they start.
        build_tokenizer(
            trainable_names()[: recipe.data.names],
            recipe.model.vocab_size,
            folder / TOKENIZER_FOLDER,
            recipe.model.system_text,
        )
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting := [name for name in recipe.stages if not (folder / name / DONE_NAME).exists()]:
            _collect(running, folder)
            for name in waiting:
                if name not in running and len(running) < jobs and _ready(recipe, name, folder):
                    threads = recipe.stages[name].threads
                    running[name] = _start(name, recipe_path, overrides, folder, threads, launcher)
            if on_progress is not None:
                on_progress(sum(steps_done(recipe, folder).values()))
            time.sleep(_POLL_S)
        for process in running.values():
            process.wait()
    finally:
        _stop(running)
    if isinstance(recipe, FineTuneRecipe):
        return folder / recipe.export / CHECKPOINT_FOLDER
    return export_stage(recipe, folder)


def claim_run(recipe: AnyRecipe, folder: Path) -> None:
    """Make a run's folder, or check that it holds a run of the same model.

    Raises:
        ConfigError: Weights or tokenizer in it would not fit the recipe, or a stage was finished with other settings.
        DataError: Input files of fine-tuning are missing.
    """
    if isinstance(recipe, FineTuneRecipe):
        require_inputs(recipe)
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
    """Return the settings that must not change in a run folder; ``chosen`` as in :func:`_stage_settings`."""
    if isinstance(recipe, FineTuneRecipe):
        return recipe.base.model_dump(mode="json", exclude_defaults=chosen)
    return recipe.model.model_dump(mode="json", exclude_defaults=chosen) | {"names": recipe.data.names}


def run_stage(recipe: AnyRecipe, name: str, folder: Path) -> None:
    """Run one stage in this process (one of many under ``accelerate launch``), to its end."""
    claim_run(recipe, folder)
    if (folder / name / DONE_NAME).exists():
        return
    _note_settings(recipe, name, folder)
    if isinstance(recipe, FineTuneRecipe):
        FineTuneStageRun(recipe, name, folder).run()
        return
    run = StageRun(recipe, name, folder)
    run.start()
    run.run()


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
    if isinstance(recipe, FineTuneRecipe):
        needed: tuple[str, ...] = (recipe.stages[name].init,) if recipe.stages[name].init else ()
    else:
        needed = (*recipe.stages[name].init, *recipe.stages[name].after)
    return all((folder / other / DONE_NAME).exists() for other in needed)


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
            raise DataError(f"stage {name} failed with exit code {process.returncode}; see {folder / (name + '.log')}")
        _LOG.info("stage %s is done", name)


def _stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in running.values():
        process.terminate()
    for process in running.values():
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
