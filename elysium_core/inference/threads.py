"""How many CPU threads a program should let torch use for a model."""

from __future__ import annotations

import os

import torch

SMALL_MODEL = 50_000_000
"""Parameters below which one thread is faster than several: the matrices are so small that
threads spend their time waiting for each other, and on a busy machine wait for ever."""


def fit_threads(parameters: int) -> int:
    """Set torch's threads for this process to what suits a model.

    For programs (the command, the node), not for libraries: the setting is the whole
    process's. ``OMP_NUM_THREADS`` in the environment goes before.

    Args:
        parameters: Size of the model.

    Returns:
        The number of threads now in use.
    """
    torch.set_num_threads(suitable_threads(parameters))
    return torch.get_num_threads()


def suitable_threads(parameters: int) -> int:
    """Threads that suit a model: one for a small one, else as many as torch uses.

    Args:
        parameters: Size of the model.
    """
    few = parameters < SMALL_MODEL and "OMP_NUM_THREADS" not in os.environ
    return 1 if few else torch.get_num_threads()
