"""How many processes a config of ``accelerate launch`` starts, and what it divides among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elysium_core.training.acceleration import launcher_settings

SHARDINGS = ("", "zero2", "zero3", "fsdp")
"""Nothing is divided (one process, or data-parallel); optimiser and gradients; these and the weights; likewise."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes of a stage.

    Attributes:
        processes: Their number.
        sharding: One of :data:`SHARDINGS`.
    """

    processes: int = 1
    sharding: str = ""

    def __str__(self) -> str:
        if self.processes == 1 and not self.sharding:
            return "one process"
        names = {"": "data-parallel", "zero2": "ZeRO-2", "zero3": "ZeRO-3", "fsdp": "FSDP"}
        return f"{names[self.sharding]}, {self.processes} processes"


def read_launch(config: Path | None, gpus: int | None = None) -> Launch:
    """Return what a config of ``accelerate launch`` starts.

    Args:
        config: The config; None = one process, or the whole model on every GPU.
        gpus: Number of processes in place of the config's.

    Raises:
        ConfigError: It cannot be read, or is not a config of accelerate.
    """
    if config is None:
        return Launch(gpus or 1)
    settings = launcher_settings(config)
    kind, count = settings["distributed_type"], gpus or int(settings.get("num_processes", 1))
    if kind == "DEEPSPEED":
        stage = int((settings.get("deepspeed_config") or {}).get("zero_stage", 2))
        return Launch(count, {2: "zero2", 3: "zero3"}.get(stage, ""))
    return Launch(count, "fsdp" if kind == "FSDP" else "")
