from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.training.finetune.mixed_batches import Mixture


def test_shares_are_exact_over_a_thousand_samples():
    mixture = Mixture({"a": 7, "b": 500, "c": 3}, {"a": 1, "b": 2, "c": 1}, seed=4)
    assert Counter(mixture.pick(n)[0] for n in range(1000)) == {"a": 250, "b": 500, "c": 250}


def test_a_set_is_read_through_before_it_is_read_again():
    mixture = Mixture({"a": 13}, {"a": 0.2}, seed=1)
    epochs = [[mixture.pick(n)[1] for n in range(13 * e, 13 * e + 13)] for e in range(200)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_order_depends_on_the_seed_alone():
    orders = [[Mixture({"a": 50, "b": 9}, {"a": 1, "b": 1}, seed).pick(n) for n in range(60)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@given(st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=12))
def test_every_set_comes_whatever_the_shares(shares):
    names = [str(n) for n in range(len(shares))]
    mixture = Mixture(dict.fromkeys(names, 5), dict(zip(names, shares, strict=True)), seed=0)
    counts = Counter(mixture.pick(n)[0] for n in range(1000))
    assert set(counts) == set(names)
    for name, share in zip(names, shares, strict=True):
        assert counts[name] == pytest.approx(1000 * share / sum(shares), abs=len(names) + 1)
