"""Seeds of what is random in a training: they depend on the recipe, the stage and the number of the batch alone."""

from __future__ import annotations

import numpy as np


def batch_seed(*numbers: int) -> int:
    """A seed 0..2**63 - 1 of numbers >= 0, such as the recipe's seed, the number of the stage and of the batch."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
