"""The ``elysium`` command in processes that shard on a CPU, which accelerate does on GPUs only.

``accelerate launch`` starts it. It also checks that losses reach the log in float32, and writes what each process has
allocated after its first step into ``memory-<rank>.json``.
"""

from __future__ import annotations

import json
import os

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from elysium_core.cli.start import main
from elysium_core.training.finetune.stage import FineTuneStageRun
from elysium_core.training.loop import TrainingLoop

make, losses_of, step_of = Accelerator.__init__, FineTuneStageRun.losses, TrainingLoop.train_step


def make_as_on_gpus(self, *words, cpu: bool = False, **named) -> None:
    make(self, *words, **named)


def losses_in_float32(self, model, batch):
    losses = losses_of(self, model, batch)
    for name, mean in losses.items():
        for part in mean:
            if part.is_floating_point() and part.dtype != torch.float32:
                raise TypeError(f"{name} is {part.dtype}")
    return losses


def size(tensors) -> int:
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def step_and_measure(self, batches):
    losses = step_of(self, batches)
    wrapped = self.optimizer.shardable.optimizer
    # DeepSpeed wraps the optimiser once more, whose weights are the float32 copies of this process's part.
    kept = getattr(wrapped, "optimizer", wrapped).state
    states = [value for state in kept.values() for value in state.values() if torch.is_tensor(value) and value.ndim]
    found = {
        "weights": size(getattr(weight, "ds_tensor", weight) for weight in self.model.parameters()),
        "optimizer": size(states) + (size(kept) if self.acceleration.kind == "deepspeed" else 0),
    }
    (self.folder / f"memory-{self.acceleration.rank}.json").write_text(json.dumps(found))
    return losses


Accelerator.__init__ = make_as_on_gpus
PartialState._prepare_backend = lambda self, *words, **named: ("gloo", DistributedType.MULTI_GPU)
FineTuneStageRun.losses = losses_in_float32
TrainingLoop.train_step = step_and_measure

if __name__ == "__main__":
    main()
