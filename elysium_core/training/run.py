"""A whole run: every stage in a process of its own, side by side where they do not need each other."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from elysium_core.data.synthetic.assets import sprite_names
from elysium_core.errors import DataError
from elysium_core.model.checkpoint import save_checkpoint
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.training.config import Recipe
from elysium_core.training.loop import StageRun
from elysium_core.training.nano_model import (
    build_network,
    build_tokenizer,
    elysium_settings,
    llm_settings,
    vision_settings,
)

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0


def run_recipe(recipe: Recipe, recipe_path: Path, overrides: Sequence[str], folder: Path, jobs: int) -> Path:
    """Run all stages that are not done yet, then write the checkpoint.

    A run that was stopped at any moment is taken up where it was.

    Args:
        recipe: The recipe, overrides applied.
        recipe_path: Its file, for the processes of the stages.
        overrides: ``key=value`` texts, likewise.
        folder: Folder of the run.
        jobs: Most stages at once.

    Returns:
        The checkpoint's folder.

    Raises:
        DataError: A stage failed; its log is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The stages share the tokenizer, so it is made before any of them starts.
    build_tokenizer(sprite_names()[: recipe.data.names], recipe.model.vocab_size, folder / "tokenizer")
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting := [name for name in recipe.stages if not (folder / name / "done").exists()]:
            _collect(running, folder)
            for name in waiting:
                if name not in running and len(running) < jobs and _ready(recipe, name, folder):
                    running[name] = _start(name, recipe_path, overrides, folder, recipe.stages[name].threads)
            time.sleep(_POLL_S)
    finally:
        for process in running.values():
            process.terminate()
    return export_stage(recipe, folder)


def run_stage(recipe: Recipe, name: str, folder: Path) -> None:
    """Run one stage in this process, to its end."""
    run = StageRun(recipe, name, folder)
    if not run.done:
        run.start()
        run.run()


def export_stage(recipe: Recipe, folder: Path, target: Path | None = None) -> Path:
    """Write the weights of the recipe's ``export`` stage as a checkpoint in half precision.

    Args:
        recipe: The recipe.
        folder: Folder of the run.
        target: The checkpoint's folder; ``<folder>/checkpoint`` if omitted.
    """
    target = target or folder / "checkpoint"
    names = sprite_names()[: recipe.data.names]
    tokenizer = TextTokenizer.from_folder(folder / "tokenizer")
    network = build_network(recipe.model, names, tokenizer.vocab_size, recipe.data.seed)
    path = folder / recipe.export / "state.safetensors"
    if not path.exists():
        raise DataError(f"stage {recipe.export} has left no {path}; run the recipe first")
    prefix = "network."
    weights = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
    network.load_state_dict(weights, strict=False)
    save_checkpoint(
        target,
        network,
        elysium_settings(recipe.model, names),
        llm_settings(recipe.model, tokenizer.vocab_size),
        vision_settings(recipe.model).to_diff_dict(),
        dtype=torch.float16,
        llm_folder=folder / "tokenizer",
    )
    return target


def _ready(recipe: Recipe, name: str, folder: Path) -> bool:
    stage = recipe.stages[name]
    return all((folder / other / "done").exists() for other in (*stage.init, *stage.after))


def _start(
    name: str, recipe_path: Path, overrides: Sequence[str], folder: Path, threads: int
) -> subprocess.Popen[bytes]:
    _LOG.info("stage %s starts; its log is %s", name, folder / f"{name}.log")
    command = [sys.executable, "-m", "elysium_core.cli.app", "train", str(recipe_path), *overrides]
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
        if process.returncode != 0:
            raise DataError(f"stage {name} failed with exit code {process.returncode}; see {folder / (name + '.log')}")
        _LOG.info("stage %s is done", name)
