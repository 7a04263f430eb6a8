"""The division of a run among processes that ``torchrun`` starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from elysium_core.errors import ConfigError

_RANK_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Number of this process among all processes of a run.

    Attributes:
        rank: Number of this process, 0..world_size-1.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which selects its GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read the variables that ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK.

        Raises:
            ConfigError: They are not numbers, or do not fit together.
        """
        words = {name: os.environ.get(name, default) for name, default in _RANK_VARIABLES.items()}
        try:
            rank, world_size, local_rank = (int(word) for word in words.values())
        except ValueError:
            rank, world_size, local_rank = -1, 0, 0
        if not 0 <= rank < world_size or local_rank < 0:
            shown = ", ".join(f"{name}={word}" for name, word in words.items())
            raise ConfigError(
                f"{shown} are not valid for one of several processes; start with torchrun, or unset these variables"
            )
        return cls(rank, world_size, local_rank)

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield every ``world_size``-th item, starting at ``rank``; the shares of all ranks cover each item once."""
        return (item for position, item in enumerate(items) if position % self.world_size == self.rank)

    def device(self, asked: str) -> str:
        """Return the device of this process: with several processes and no numbered device, the GPU ``local_rank``."""
        return f"cuda:{self.local_rank}" if asked in ("auto", "cuda") and self.world_size > 1 and _has_cuda() else asked


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
