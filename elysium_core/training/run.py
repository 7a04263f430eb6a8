"""A whole run: every stage in a process of its own, side by side where they do not need each other."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.files import atomic_path
from elysium_core.model.checkpoint import save_checkpoint
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.config import Recipe
from elysium_core.training.loop import DONE_NAME
from elysium_core.training.nano_model import (
    build_network,
    build_tokenizer,
    elysium_settings,
    llm_settings,
    vision_settings,
)
from elysium_core.training.records import last_step
from elysium_core.training.scratch import TOKENIZER_FOLDER, StageRun
from elysium_core.training.snapshots import find_weights

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_STOP_S = 10.0
_TIED = "llm.lm_head.weight"


def run_recipe(
    recipe: Recipe,
    recipe_path: Path,
    overrides: Sequence[str],
    folder: Path,
    jobs: int,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Run all stages that are not done yet, then write the checkpoint.

    A run that was stopped at any moment is taken up where it was.

    Args:
        recipe: The recipe, overrides applied.
        recipe_path: Its file, for the processes of the stages.
        overrides: ``key=value`` texts, likewise.
        folder: Folder of the run.
        jobs: Most stages at once.
        on_progress: Told about twice a second how many steps are done in all.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: The folder holds a run of another model.
        DataError: A stage failed; its log is named.
    """
    claim_run(recipe, folder)
    # The stages share the tokenizer, so it is made before any of them starts.
    build_tokenizer(trainable_names()[: recipe.data.names], recipe.model.vocab_size, folder / TOKENIZER_FOLDER)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting := [name for name in recipe.stages if not (folder / name / DONE_NAME).exists()]:
            _collect(running, folder)
            for name in waiting:
                if name not in running and len(running) < jobs and _ready(recipe, name, folder):
                    running[name] = _start(name, recipe_path, overrides, folder, recipe.stages[name].threads)
            if on_progress is not None:
                on_progress(sum(steps_done(recipe, folder).values()))
            time.sleep(_POLL_S)
        for process in running.values():
            process.wait()
    finally:
        _stop(running)
    return export_stage(recipe, folder)


def claim_run(recipe: Recipe, folder: Path) -> None:
    """Make a run's folder, or check that it holds a run of the same model.

    Raises:
        ConfigError: Weights or tokenizer in it would not fit the recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.json"
    wanted = asdict(recipe.model) | {"names": recipe.data.names}
    if not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    changed = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if changed:
        raise ConfigError(f"{folder} holds a run of a model with {'; '.join(changed)}; choose another --out")


def run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """Run one stage in this process, to its end."""
    claim_run(recipe, folder)
    run = StageRun(recipe, name, folder)
    if not run.done:
        run.start()
        run.run()


def steps_done(recipe: Recipe, folder: Path) -> dict[str, int]:
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
    save_checkpoint(
        target,
        network,
        elysium_settings(recipe.model, names),
        llm_settings(recipe.model, tokenizer.vocab_size),
        vision_settings(recipe.model).to_diff_dict(),
        dtype=torch.float16,
        llm_folder=folder / TOKENIZER_FOLDER,
    )
    return target


def _ready(recipe: Recipe, name: str, folder: Path) -> bool:
    stage = recipe.stages[name]
    return all((folder / other / DONE_NAME).exists() for other in (*stage.init, *stage.after))


def _start(
    name: str, recipe_path: Path, overrides: Sequence[str], folder: Path, threads: int
) -> subprocess.Popen[bytes]:
    _LOG.info("stage %s starts; its log is %s", name, folder / f"{name}.log")
    command = [sys.executable, "-m", "elysium_core.cli", "train", str(recipe_path), *overrides]
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
