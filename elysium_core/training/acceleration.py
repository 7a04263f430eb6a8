"""Wrapper around ``accelerate``: the same training code runs on a CPU, a GPU or many GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from elysium_core.device import resolve_device
from elysium_core.errors import BackendError, ConfigError, pip_line
from elysium_core.io.files import atomic_path
from elysium_core.training.losses import Sums
from elysium_core.training.master_weights import master_weights, set_master_weights, trained_weights
from elysium_core.training.recipe_file import one_line

PRECISIONS = ("float32", "bfloat16")
"""Precisions of the computation; weights and optimiser stay in float32."""

# The whole model on every GPU, as training/accelerate/data_parallel.yaml has it.
_DATA_PARALLEL = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "mixed_precision": "bf16"}
_MIXED = {"float32": "no", "bfloat16": "bf16"}
_DISTRIBUTED_VARIABLE = "WORLD_SIZE"
_SHARDING = {"DeepSpeed": "ACCELERATE_USE_DEEPSPEED", "FSDP": "ACCELERATE_USE_FSDP"}


def process_count() -> int:
    """Return the number of processes that ``accelerate launch`` (or torchrun) started; 1 without it."""
    return int(os.environ.get(_DISTRIBUTED_VARIABLE, "1"))


def _is_true(variable: str) -> bool:
    return os.environ.get(variable, "").lower() == "true"


def end_processes() -> None:
    """Leave the group of processes, if there is one, when the work is done: torch may crash at exit otherwise."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Acceleration:
    """The processes of a run and the distribution of the model over them.

    In single and data-parallel runs every process holds the whole weights. DeepSpeed ZeRO and FSDP
    (chosen in the config file of ``accelerate launch``) shard the optimiser over the processes, and
    ZeRO-3 and FSDP also the weights. All processes save sharded states together.

    Args:
        device: As in :func:`elysium_core.device.resolve_device`.
        precision: One of :data:`PRECISIONS`.
        accumulate: Batches whose gradients are summed in a step.
        find_unused: Whether some trained weights may be unused in a step (data-parallel only).

    Raises:
        BackendError: There is no such device, or ``accelerate`` or DeepSpeed is not installed.
        ConfigError: The launcher's config asks for sharding, which accelerate does not do on this device.
    """

    def __init__(
        self, device: str = "auto", precision: str = "float32", accumulate: int = 1, *, find_unused: bool = False
    ) -> None:
        place = resolve_device(device)
        require_packages(deepspeed=_is_true(_SHARDING["DeepSpeed"]))
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        if place.type == "cuda" and place.index is not None and process_count() == 1:
            torch.cuda.set_device(place)
        self._accelerator = Accelerator(
            cpu=place.type == "cpu",
            mixed_precision=_MIXED[precision],
            gradient_accumulation_steps=accumulate,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=find_unused)],
        )
        self._require_sharding()
        self._keep_losses_in_float32()
        self.precision = precision
        self.device: torch.device = place if process_count() == 1 else self._accelerator.device
        self._accumulate = accumulate

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def world(self) -> int:
        """Number of processes."""
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes logs and checkpoints."""
        return bool(self._accelerator.is_main_process)

    @property
    def kind(self) -> str:
        """``single``, ``data_parallel``, ``deepspeed`` or ``fsdp``."""
        name = self._accelerator.distributed_type.value
        return {"DEEPSPEED": "deepspeed", "FSDP": "fsdp", "NO": "single"}.get(name, "data_parallel")

    @property
    def sharded(self) -> bool:
        """Whether all processes must save a state together."""
        return self.kind in ("deepspeed", "fsdp")

    @property
    def whole_weights(self) -> bool:
        """Whether this process alone can run the model; False for FSDP and ZeRO-3."""
        return self.kind != "fsdp" and self._zero_stage() < 3

    def _require_sharding(self) -> None:
        """Accelerate leaves out on a CPU, without a word, what the launcher's config asks for."""
        for name, variable in _SHARDING.items():
            if _is_true(variable) and not self.sharded:
                raise ConfigError(
                    f"the launcher's config asks for {name}, which accelerate does not use on "
                    f"{self._accelerator.device}; launch without it, or with training/accelerate/data_parallel.yaml"
                )

    def _keep_losses_in_float32(self) -> None:
        """FSDP casts what a model returns to the type of the computation, in which losses have two or three digits."""
        if self.kind != "fsdp":
            return
        plugin = self._accelerator.state.fsdp_plugin
        policy = plugin.mixed_precision_policy
        if getattr(policy, "output_dtype", None) is not None:
            plugin.mixed_precision_policy = replace(policy, output_dtype=None)

    def _zero_stage(self) -> int:
        plugin = getattr(self._accelerator.state, "deepspeed_plugin", None)
        return 0 if plugin is None else int(plugin.zero_stage)

    def prepare(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None, *, batch: int, clip_norm: float
    ) -> tuple[nn.Module, Any]:
        """Move a model and its optimiser to the device and wrap them for the processes.

        Args:
            model: The model in float32, on any device.
            optimizer: Optimiser of its trained parameters; None if it needs no wrapper (whole weights only).
            batch: Samples per batch of one process, for DeepSpeed.
            clip_norm: Largest norm of a gradient, for DeepSpeed, which clips gradients itself.

        Returns:
            The wrapped model and optimiser.

        Raises:
            ConfigError: The launcher's config asks for sharding, which this model's optimiser cannot do.
        """
        if self.kind == "deepspeed":
            settings = self._accelerator.state.deepspeed_plugin.deepspeed_config
            settings["train_micro_batch_size_per_gpu"] = batch
            settings["gradient_clipping"] = clip_norm
        if optimizer is None:
            if self.sharded:
                raise ConfigError(
                    f"a model trained from scratch cannot be sharded by {self.kind}; launch it with "
                    "training/accelerate/data_parallel.yaml, or without accelerate"
                )
            return self._accelerator.prepare_model(model.to(self.device)), None
        exact = trained_weights(model) if self.kind == "deepspeed" else {}
        wrapped, prepared = self._accelerator.prepare(model, optimizer)
        if exact:
            set_master_weights(self.unwrap(wrapped), exact)
        return wrapped, prepared

    @contextmanager
    def accumulating(self, model: nn.Module) -> Iterator[None]:
        """Context of one batch of a step. Processes exchange gradients only after the last one."""
        with self._accelerator.accumulate(model):
            yield

    def computing(self) -> AbstractContextManager[object]:
        """Context in which a model that is not wrapped computes in the precision of the training."""
        context: AbstractContextManager[object] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a batch. They are summed over the batches of a step and averaged over processes."""
        # accelerate divides by the number of batches, but the loss already has this batch's weight in the step.
        self._accelerator.backward(loss * self._accumulate if self._accumulate > 1 else loss)

    def clip(self, model: nn.Module, parameters: list[nn.Parameter], largest: float) -> float:
        """Clip the gradient to a norm; return the norm before clipping."""
        if not self.sharded:
            return float(torch.nn.utils.clip_grad_norm_(parameters, largest))
        norm = self._accelerator.clip_grad_norm_(model.parameters(), largest)
        return 0.0 if norm is None else float(norm)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return means over all processes. All processes must pass the same keys."""
        if self.world == 1:
            return dict(values)
        stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        return dict(zip(values, self._accelerator.reduce(stacked, "mean").tolist(), strict=True))

    def mean_sums(self, sums: Sums) -> Sums:
        """Return totals and weights as means over all processes. All processes must pass the same names."""
        totals = self.mean({name: total for name, (total, _) in sums.items()})
        weights = self.mean({name: weight for name, (_, weight) in sums.items()})
        return {name: (totals[name], weights[name]) for name in sums}

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            self._accelerator.wait_for_everyone()

    def on_main(self, action: Callable[[], None]) -> None:
        """Run a function in the main process while the others wait. Its failure ends all processes.

        Raises:
            OSError: The error of the main process; the other processes refer to its message.
        """
        failure: OSError | None = None
        if self.is_main:
            try:
                action()
            except OSError as error:
                failure = error
        failed = self.mean({"failed": float(failure is not None)})["failed"] > 0
        if failure is not None:
            raise failure
        if failed:
            raise OSError("the main process could not write its files; see its message")

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return the model without the wrappers for several processes."""
        unwrapped: nn.Module = self._accelerator.unwrap_model(model)
        return unwrapped

    def whole_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """Return all weights in float32 in the main process, None in the others. Every process must call it.

        With DeepSpeed only trained weights: it holds the others rounded to the type of the computation.
        """
        if self.kind == "deepspeed":
            masters = {}
            for name, weight in master_weights(self.unwrap(model)):
                if self.is_main:
                    masters[name] = weight.cpu()
            return masters if self.is_main else None
        if not self.sharded:
            return self.unwrap(model).state_dict() if self.is_main else None
        state: dict[str, Tensor] = self._accelerator.get_state_dict(model)
        return state if self.is_main else None

    def save_shards(self, folder: Path) -> None:
        """Write this process's part of weights and optimiser; every process must call it."""
        self._accelerator.save_state(str(folder))

    def load_shards(self, folder: Path) -> None:
        """Read the files of :meth:`save_shards`, with the same number of processes."""
        self._accelerator.load_state(str(folder))


def require_packages(*, deepspeed: bool = False) -> None:
    """Check that the packages that training needs are installed.

    Raises:
        BackendError: One of them is not; the message has the command to install it.
    """
    if find_spec("accelerate") is None:
        raise BackendError(f"training needs the package accelerate; run: {pip_line('accelerate', 'tensorboard')}")
    if deepspeed and find_spec("deepspeed") is None:
        raise BackendError(
            "the launcher's config asks for DeepSpeed, which is not installed; run "
            f"`{pip_line('deepspeed')}`, or choose training/accelerate/fsdp.yaml"
        )


def check_launcher(path: Path) -> None:
    """Check a config file of ``accelerate launch`` before any process is started with it.

    Raises:
        ConfigError: It cannot be read, or is not a config of accelerate.
        BackendError: It needs DeepSpeed, which is not installed.
    """
    require_packages(deepspeed=launcher_settings(path)["distributed_type"] == "DEEPSPEED")


def launcher_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a config file of ``accelerate launch``.

    Raises:
        ConfigError: It cannot be read, or is not a config of accelerate.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the accelerate config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(settings, dict) or "distributed_type" not in settings:
        raise ConfigError(f"{path} is not an accelerate config: it has no distributed_type")
    return settings


def launcher_for(gpus: int, base: Path | None, folder: Path) -> Path | None:
    """Write the config of ``accelerate launch`` for some GPUs of this machine.

    Args:
        gpus: Number of GPUs, >= 1.
        base: Config to start from; None = the whole model on every GPU.
        folder: Folder of the run; the config is written into it.

    Returns:
        The config; None if one GPU is wanted and no config was given, because one process needs none.

    Raises:
        ConfigError: This machine has fewer GPUs, or the config cannot be read.
        BackendError: A package is missing (``PACKAGE_MISSING``).
    """
    if (found := torch.cuda.device_count()) < gpus:
        raise ConfigError(f"--gpus {gpus}, but this machine has {found} GPUs that torch can use")
    if base is None and gpus == 1:
        return None
    require_packages()
    if base is not None:
        check_launcher(base)
    settings = _DATA_PARALLEL if base is None else yaml.safe_load(base.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "accelerate.yaml"
    with atomic_path(path) as temporary:
        text = yaml.safe_dump({**settings, "num_machines": 1, "num_processes": gpus}, sort_keys=False)
        temporary.write_text(text, encoding="utf-8")
    return path
