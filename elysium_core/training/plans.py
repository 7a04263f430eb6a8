"""What differs between the kinds of recipes when a whole run is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.training.estimate import TriedStage
from elysium_core.training.finetune.eight_bit import require_bitsandbytes
from elysium_core.training.finetune.finetune_recipe import FineTuneRecipe, require_inputs
from elysium_core.training.finetune.memory_lines import memory_line, other_memory_lines
from elysium_core.training.finetune.stage import CHECKPOINT_FOLDER, FineTuneStageRun
from elysium_core.training.finetune.trial import try_sources
from elysium_core.training.launch import Launch
from elysium_core.training.nano.nano_model import build_tokenizer, export_stage
from elysium_core.training.nano.nano_recipe import Recipe
from elysium_core.training.nano.scratch import StageRun
from elysium_core.training.real.real_export import export_run
from elysium_core.training.real.real_model import run_tokenizer
from elysium_core.training.real.real_recipe import RealRecipe, require_files
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.recipes import AnyRecipe
from elysium_core.training.run_tokenizer import TOKENIZER_FOLDER


class RunPlan(Protocol):
    """How the stages of one kind of recipe are run."""

    may_run_side_by_side: bool
    """Whether stages that do not need each other run at the same time."""

    def require_inputs(self) -> None:
        """Check that everything a run reads is there.

        Raises:
            DataError: Something is not.
        """
        ...

    def prepare(self, folder: Path) -> None:
        """Make what all stages share."""
        ...

    def model_settings(self, *, chosen: bool = False) -> dict[str, Any]:
        """What must stay the same in a folder; with ``chosen`` only what differs from its default."""
        ...

    def needed(self, name: str) -> tuple[str, ...]:
        """Stages that must be finished before one."""
        ...

    def run_stage(self, name: str, folder: Path) -> None:
        """Run one stage to its end."""
        ...

    def tried(self) -> Callable[[str, Path], TriedStage] | None:
        """What makes a stage to time its steps; None where that would tell nothing."""
        ...

    def memory(self, name: str, launch: Launch, *, others: bool = False) -> Iterator[str]:
        """Lines about a stage's memory, with ``others`` also of other ways to run it; none where it is measured."""
        ...

    def export(self, folder: Path) -> Path:
        """Write the checkpoint and return its folder."""
        ...


class FineTunePlan:
    """Stages run one after the other, and each leaves a checkpoint (protocol: :class:`RunPlan`)."""

    may_run_side_by_side = False

    def __init__(self, recipe: FineTuneRecipe) -> None:
        self._recipe = recipe

    def require_inputs(self) -> None:
        """See :class:`RunPlan`."""
        require_inputs(self._recipe)
        if any(stage.optimizer == "adamw8bit" for stage in self._recipe.stages.values()):
            require_bitsandbytes()

    def prepare(self, folder: Path) -> None:
        """See :class:`RunPlan`; a sample of every data set is tried, so that no later stage fails at its data."""
        try_sources(self._recipe)

    def model_settings(self, *, chosen: bool = False) -> dict[str, Any]:
        """See :class:`RunPlan`."""
        return self._recipe.base.model_dump(mode="json", exclude_defaults=chosen)

    def needed(self, name: str) -> tuple[str, ...]:
        """See :class:`RunPlan`."""
        init = self._recipe.stages[name].init
        return (init,) if init else ()

    def run_stage(self, name: str, folder: Path) -> None:
        """See :class:`RunPlan`."""
        FineTuneStageRun(self._recipe, name, folder).run()

    def tried(self) -> None:
        """See :class:`RunPlan`. Time depends on data, launcher and network."""

    def memory(self, name: str, launch: Launch, *, others: bool = False) -> Iterator[str]:
        """See :class:`RunPlan`."""
        yield memory_line(self._recipe, name, launch)
        if others:
            yield from other_memory_lines(self._recipe, name, launch)

    def export(self, folder: Path) -> Path:
        """See :class:`RunPlan`."""
        return folder / self._recipe.export / CHECKPOINT_FOLDER


class NanoPlan:
    """Stages share the tokenizer (protocol: :class:`RunPlan`)."""

    may_run_side_by_side = True

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def require_inputs(self) -> None:
        """See :class:`RunPlan`; everything is generated."""

    def prepare(self, folder: Path) -> None:
        """See :class:`RunPlan`."""
        model, names = self._recipe.model, trainable_names()[: self._recipe.data.names]
        build_tokenizer(names, model.vocab_size, folder / TOKENIZER_FOLDER, model.system_text)

    def model_settings(self, *, chosen: bool = False) -> dict[str, Any]:
        """See :class:`RunPlan`."""
        return self._recipe.model.model_dump(mode="json", exclude_defaults=chosen) | {"names": self._recipe.data.names}

    def needed(self, name: str) -> tuple[str, ...]:
        """See :class:`RunPlan`."""
        return (*self._recipe.stages[name].init, *self._recipe.stages[name].after)

    def run_stage(self, name: str, folder: Path) -> None:
        """See :class:`RunPlan`."""
        run = StageRun(self._recipe, name, folder)
        run.start()
        run.run()

    def tried(self) -> Callable[[str, Path], TriedStage]:
        """See :class:`RunPlan`; on procedural backgrounds."""
        data = self._recipe.data.model_copy(update={"photo_folders": ()})
        trial = self._recipe.model_copy(update={"data": data})
        return lambda name, folder: StageRun(trial, name, folder)

    def memory(self, name: str, launch: Launch, *, others: bool = False) -> Iterator[str]:
        """See :class:`RunPlan`; it is measured with the trial."""
        return iter(())

    def export(self, folder: Path) -> Path:
        """See :class:`RunPlan`."""
        return export_stage(self._recipe, folder)


class RealPlan:
    """Stages share the tokenizer and the pool of pairs (protocol: :class:`RunPlan`)."""

    may_run_side_by_side = True

    def __init__(self, recipe: RealRecipe) -> None:
        self._recipe = recipe

    def require_inputs(self) -> None:
        """See :class:`RunPlan`."""
        require_files(self._recipe)

    def prepare(self, folder: Path) -> None:
        """See :class:`RunPlan`."""
        run_tokenizer(self._recipe, folder)

    def model_settings(self, *, chosen: bool = False) -> dict[str, Any]:
        """See :class:`RunPlan`."""
        return self._recipe.model.model_dump(mode="json", exclude_defaults=chosen)

    def needed(self, name: str) -> tuple[str, ...]:
        """See :class:`RunPlan`."""
        return (*self._recipe.stages[name].init, *self._recipe.stages[name].after)

    def run_stage(self, name: str, folder: Path) -> None:
        """See :class:`RunPlan`."""
        run = RealStageRun(self._recipe, name, folder)
        run.start()
        run.run()

    def tried(self) -> Callable[[str, Path], TriedStage]:
        """See :class:`RunPlan`; every pair is drawn anew, which a pool does only once."""
        data = self._recipe.data.model_copy(update={"pool": 0})
        trial = self._recipe.model_copy(update={"data": data})
        return lambda name, folder: RealStageRun(trial, name, folder)

    def memory(self, name: str, launch: Launch, *, others: bool = False) -> Iterator[str]:
        """See :class:`RunPlan`; it is measured with the trial."""
        return iter(())

    def export(self, folder: Path) -> Path:
        """See :class:`RunPlan`."""
        return export_run(self._recipe, folder)


def plan_of(recipe: AnyRecipe) -> RunPlan:
    """The plan of a recipe."""
    if isinstance(recipe, FineTuneRecipe):
        return FineTunePlan(recipe)
    return RealPlan(recipe) if isinstance(recipe, RealRecipe) else NanoPlan(recipe)
