"""A whole run: every stage in a process of its own, side by side where they do not need each other."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from elysium_core.checkpoint.checkpoint import save_checkpoint
from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.files import atomic_path
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.finetune.recipe_checks import require_inputs
from elysium_core.training.finetune.stage import CHECKPOINT_FOLDER, FineTuneStageRun
from elysium_core.training.loop import DONE_NAME
from elysium_core.training.nano.nano_model import (
    build_network,
    build_tokenizer,
    elysium_settings,
    known_nouns,
    llm_settings,
    vision_settings,
)
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.scratch import TOKENIZER_FOLDER, StageRun
from elysium_core.training.recipes import AnyRecipe
from elysium_core.training.records import find_weights, last_step

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_STOP_S = 10.0
_TIED = "llm.lm_head.weight"
_SETTINGS_NAME = "settings.json"
# What may change between two commands: names, places, what is looked at, how fast it goes.
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

    A run that was stopped at any moment is taken up where it was.

    Args:
        recipe: The recipe, overrides applied.
        recipe_path: Its file, for the processes of the stages.
        overrides: ``key=value`` texts, likewise.
        folder: Folder of the run.
        jobs: Most stages at once; stages of fine-tuning always run one after the other.
        on_progress: Told about twice a second how many steps are done in all.
        launcher: Config file of ``accelerate launch``, which then starts each stage in many processes.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: The folder holds a run of another model.
        DataError: A stage failed; its log is named. Or what a recipe of fine-tuning reads is not there.
    """
    claim_run(recipe, folder)
    if isinstance(recipe, FineTuneRecipe):
        jobs = 1
    else:
        # The stages share the tokenizer, so it is made before any of them starts.
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
        DataError: What a recipe of fine-tuning reads is not there.
    """
    if isinstance(recipe, FineTuneRecipe):
        require_inputs(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.json"
    wanted = _identity(recipe)
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    changed = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if changed:
        raise ConfigError(f"{folder} holds a run of a model with {'; '.join(changed)}; choose another --out")
    for name in recipe.stages:
        _check_finished_stage(recipe, name, folder)


def _check_finished_stage(recipe: AnyRecipe, name: str, folder: Path) -> None:
    """Refuse to pass off a stage that was trained with other settings as this recipe's."""
    changed = _changed_settings(recipe, name, folder)
    if changed and (folder / name / DONE_NAME).exists():
        raise ConfigError(
            f"stage {name} in {folder} was trained with {changed}; choose another --out, "
            f"or delete {folder / name} to train it again"
        )


def _changed_settings(recipe: AnyRecipe, name: str, folder: Path) -> str:
    """What a stage was begun with and the recipe says otherwise; empty for a new stage."""
    path = folder / name / _SETTINGS_NAME
    if not path.is_file():
        return ""
    before, now = json.loads(path.read_text(encoding="utf-8")), _stage_settings(recipe, name)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return "; ".join(f"{key} {before.get(key)!r}, not {now.get(key)!r}" for key in changed)[:_LONGEST_LIST]


def _note_settings(recipe: AnyRecipe, name: str, folder: Path) -> None:
    """Write beside a stage what it is trained with."""
    if changed := _changed_settings(recipe, name, folder):
        _LOG.warning("stage %s was begun with %s; it goes on with the new settings", name, changed)
    path = folder / name / _SETTINGS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_stage_settings(recipe, name), indent=1) + "\n", encoding="utf-8")


def _stage_settings(recipe: AnyRecipe, name: str) -> dict[str, Any]:
    """All that decides what a stage learns, by dotted keys, as JSON gives it back."""
    shared = {key: value for key, value in asdict(recipe).items() if key not in _NOT_LEARNT_FROM}
    stage = {key: value for key, value in asdict(recipe.stages[name]).items() if key not in _NOT_LEARNT_FROM}
    settings: dict[str, Any] = json.loads(json.dumps(_flat({**shared, f"stages.{name}": stage}), default=str))
    return settings


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _identity(recipe: AnyRecipe) -> dict[str, object]:
    """What must stay the same in a folder from one command to the next, as JSON gives it back."""
    if isinstance(recipe, FineTuneRecipe):
        return asdict(recipe.base)
    return asdict(recipe.model) | {"names": recipe.data.names}


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
    """Steps that each stage has done, as far as its log tells."""
    done = {}
    for name, stage in recipe.stages.items():
        if (folder / name / DONE_NAME).exists():
            done[name] = stage.steps
        elif step := last_step(folder / name):
            done[name] = step
    return done


def export_stage(recipe: Recipe, folder: Path, target: Path | None = None) -> Path:
    """Write the weights of the recipe's ``export`` stage as a checkpoint in half precision.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        target: The checkpoint's folder; ``<folder>/checkpoint`` if omitted.

    Raises:
        DataError: The stage has left no weights, or not those of this recipe.
    """
    target = target or folder / "checkpoint"
    names = trainable_names()[: recipe.data.names]
    path = find_weights(folder / recipe.export)
    if path is None:
        raise DataError(f"stage {recipe.export} has left no weights in {folder / recipe.export}; run the recipe first")
    tokenizer = TextTokenizer.from_folder(folder / TOKENIZER_FOLDER)
    network = build_network(recipe.model, names, tokenizer.vocab_size, recipe.data.seed)
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    try:
        keys = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise DataError(f"{path} belongs to a model of other sizes than the recipe's") from error
    if keys.unexpected_keys or set(keys.missing_keys) - {_TIED}:
        raise DataError(f"{path} belongs to another model than the recipe's")
    settings = elysium_settings(recipe.model, known_nouns(names, recipe.data))
    save_checkpoint(
        target,
        network,
        # It has never seen longer ones.
        replace(settings, clip_length=max(recipe.data.frames)),
        llm_settings(recipe.model, tokenizer.vocab_size),
        vision_settings(recipe.model).to_diff_dict(),
        dtype=torch.float16,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    return target


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
    # Waiting threads that spin take the core from those that work.
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
