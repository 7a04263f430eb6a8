"""Write the gradient of a recipe's first step: ``dump_gradients.py RECIPE OUT PROCESSES [KEY=VALUE]... [-- ...]``.

Several runs, divided by ``--``, share what a new program costs most: its imports. Their processes are forked from this
one before it computes anything, and find each other as those of torchrun do: by environment variables.
"""

from __future__ import annotations

import os
import socket
import sys
from itertools import groupby
from pathlib import Path

# The first and the last are imported once here, not in every process.
from accelerate import Accelerator  # noqa: F401
from safetensors.torch import save_file
from torch.multiprocessing import start_processes
from transformers import CLIPVisionModel  # noqa: F401

from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe
from elysium_core.training.finetune.stage import FineTuneStageRun
from elysium_core.training.recipes import load_any_recipe


class FirstStepError(Exception):
    """Ends a run behind its first gradient."""


def dump_gradients(recipe: FineTuneRecipe, folder: Path, out: Path) -> None:
    """Run to the first gradient, exchanged between processes and clipped, and write it once."""
    run = FineTuneStageRun(recipe, "all", folder)

    def dump() -> None:
        model = run.loop.acceleration.unwrap(run.loop.model)
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        if run.loop.acceleration.is_main:
            save_file({name: gradient.contiguous() for name, gradient in gradients.items()}, out)
        raise FirstStepError

    run.loop.optimizer.step = dump
    try:
        run.run()
    except FirstStepError:
        run.loop.acceleration.wait()


def work(rank: int, processes: int, port: int, recipe: Path, out: Path, overrides: list[str]) -> None:
    """One process of a run."""
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
    dump_gradients(load_any_recipe(recipe, overrides), out.with_suffix(""), out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    recipe = Path(sys.argv[1])
    for divides, words in groupby(sys.argv[2:], lambda word: word == "--"):
        if not divides:
            out, processes, *overrides = words
            arguments = (int(processes), free_port(), recipe, Path(out), overrides)
            start_processes(work, arguments, nprocs=int(processes), start_method="fork")
