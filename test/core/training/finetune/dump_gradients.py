"""Write the gradient of a recipe's first step: ``dump_gradients.py RECIPE FOLDER OUT [KEY=VALUE]...``.

A program of its own, because launchers of many processes start programs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

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


if __name__ == "__main__":
    dump_gradients(load_any_recipe(Path(sys.argv[1]), sys.argv[4:]), Path(sys.argv[2]), Path(sys.argv[3]))
