"""Which sample comes when: shares of data sets, each read through before it is read again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_CYCLE = 1000


class Mixture:
    """An endless order of samples of several data sets.

    Of every 1000 samples each set gives its share, in random order. Within a set all items come
    once in random order, then all again in another. What comes at a number depends on the number
    and the seed alone, so a run that was stopped goes on where it was, in any number of processes.

    Args:
        sizes: Items of each data set.
        shares: Shares of the data sets; they need not add up to 1.
        seed: Decides all orders.
    """

    def __init__(self, sizes: Mapping[str, int], shares: Mapping[str, float], seed: int) -> None:
        self._names = list(shares)
        self._sizes = [sizes[name] for name in self._names]
        self._seed = seed
        self._slots = _slots(np.asarray(list(shares.values()), dtype=np.float64), seed)
        self._quotas = np.bincount(self._slots, minlength=len(self._names))
        self._ranks = np.zeros(_CYCLE, dtype=np.int64)
        for source in range(len(self._names)):
            own = np.flatnonzero(self._slots == source)
            self._ranks[own] = np.arange(len(own))
        self._order = lru_cache(maxsize=2 * len(self._names))(self._make_order)

    def pick(self, number: int) -> tuple[str, int]:
        """Data set and item of sample ``number``, from 0."""
        cycle, slot = divmod(number, _CYCLE)
        source = int(self._slots[slot])
        epoch, place = divmod(cycle * int(self._quotas[source]) + int(self._ranks[slot]), self._sizes[source])
        return self._names[source], int(self._order(source, epoch)[place])

    def _make_order(self, source: int, epoch: int) -> NDArray[np.int32]:
        return np.random.default_rng([self._seed, source, epoch]).permutation(self._sizes[source]).astype(np.int32)


def _slots(shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """The data set of each slot of a cycle; every set has at least one."""
    exact = shares / shares.sum() * _CYCLE
    counts = np.maximum(1, np.floor(exact)).astype(np.int64)
    while counts.sum() != _CYCLE:
        direction = 1 if counts.sum() < _CYCLE else -1
        movable = np.where(counts + direction >= 1, direction * (exact - counts), -np.inf)
        counts[int(np.argmax(movable))] += direction
    return np.random.default_rng([seed, len(shares)]).permutation(np.repeat(np.arange(len(shares)), counts))
